"""Do maps become more complex when the weights are random? The efficient randomisation test of Hedström et al."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64, Shaped
from torch import Tensor, nn

from xaitools.checks import Target, check_counts, checked_images
from xaitools.evaluation._maps import as_array
from xaitools.evaluation.bootstrap import mean_interval
from xaitools.evaluation.randomization import FAILS, PASSES, UNDECIDED, Explainer
from xaitools.models import Network
from xaitools.progress import Progress, Teller

BINS = 100


def map_complexity(
    maps: Shaped[Tensor, "n channel *spatial"] | Shaped[np.ndarray, "n channel *spatial"],
    *,
    n_bins: int = BINS,
) -> Float64[np.ndarray, " n"]:
    """Entropy of the histogram of each map's values, in nats: 0 for a map of one value, at most the log of `n_bins`.

    Parameters
    ----------
    maps
        Maps of any size; their scale and offset do not count.
    n_bins
        Bins of equal width between a map's smallest and largest value.

    References
    ----------
    Hedström et al. 2024, Sanity checks revisited, arXiv:2401.06465, section 3.2.

    Examples
    --------
    >>> map_complexity(np.array([[[[0.0, 1.0], [0.0, 1.0]]]])).round(3)  # the log of 2
    array([0.693])
    """
    check_counts(n_bins=n_bins)
    values = as_array(maps).astype(np.float64)
    return np.array([_entropy(np.histogram(one, bins=n_bins)[0]) for one in values.reshape(len(values), -1)])


def complexity_rise(
    model: nn.Module | Network,
    images: Float[Tensor, "batch channel *spatial"] | Float[np.ndarray, "batch channel *spatial"],
    target: Target = None,
    methods: str | Sequence[str] = ("gradient",),
    *,
    n_bins: int = BINS,
    n_draws: int = 1,
    seed: int = 0,
    progress: bool | Progress = True,
    **settings: Any,
) -> pd.DataFrame:
    """Efficient model parameter randomisation test (eMPRT): how much more complex maps are when all layers are redrawn.

    Maps of a network without knowledge should be more complex than those of a trained one. Nothing is compared pixel
    by pixel, so no choice of a similarity or of an order of layers counts; noise wins nothing, as its complexity stays.

    Parameters
    ----------
    model, images, target, methods, n_draws, seed, progress, **settings
        As for :func:`~xaitools.evaluation.randomization.model_randomization`.
    n_bins
        As for :func:`map_complexity`.

    Returns
    -------
    DataFrame
        A row a method, "random" the control: `n` images with a rise; `trained` and `randomized`, the mean complexity in
        nats; `rise`, the mean over images of (randomized - trained) / trained, draws averaged first, with its bootstrap
        interval `low` to `high`; `verdict`, "passes" if the interval lies above 0, "fails" if below, else "undecided".
        A map of one value on the trained network has no rise.

    Raises
    ------
    XaitoolsError
        As :func:`~xaitools.evaluation.randomization.model_randomization` raises.

    References
    ----------
    Hedström et al. 2024, Sanity checks revisited, arXiv:2401.06465, section 3.2.
    """
    check_counts(n_bins=n_bins, n_draws=n_draws)
    images = checked_images(images)
    network = Network.of(
        model, images[:1], settings.get("precision", "float32"), settings.pop("output", None)
    )
    explainer = Explainer(network, images, target, methods, "fixed", seed, settings)
    with Teller(1 + n_draws, progress, "randomising", "network") as tell:

        def complexities(one: Network, number: int) -> dict[str, np.ndarray]:
            maps = explainer.maps(one, number, progress=lambda done, total: tell(0))
            tell(1)
            return {name: map_complexity(values, n_bins=n_bins) for name, values in maps.items()}

        trained = complexities(network, 0)
        drawn = [
            complexities(network.randomized(network.layers, seed + draw), 1 + draw) for draw in range(n_draws)
        ]
    rows = []
    for name, before in trained.items():
        found = [one[name] for one in drawn if name in one]
        after = np.mean(found, axis=0) if found else np.full(len(before), np.nan)
        rows.append({"method": name, **_rise(before, after)})
    return pd.DataFrame(rows)


def _entropy(counts: np.ndarray) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum()) + 0.0  # no -0


def _rise(before: np.ndarray, after: np.ndarray) -> dict[str, Any]:
    defined = (before > 0) & np.isfinite(after)
    before, after = before[defined], after[defined]
    rise = (after - before) / before
    row: dict[str, Any] = {"n": len(rise)}
    for name, values in (("trained", before), ("randomized", after), ("rise", rise)):
        row[name] = float(values.mean()) if len(values) else np.nan
    if len(rise) < 2:
        return {**row, "low": np.nan, "high": np.nan, "verdict": UNDECIDED}
    interval = mean_interval(rise)
    low, high = float(interval.low), float(interval.high)
    return {
        **row,
        "low": low,
        "high": high,
        "verdict": PASSES if low > 0 else FAILS if high < 0 else UNDECIDED,
    }
