"""Does a map change when what the network has learned is destroyed? The model randomisation of Adebayo et al."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from xaitools.attribution import Maps, MethodName, attribute, parse, parse_all
from xaitools.checks import Target, check_choice, check_counts, checked_images
from xaitools.errors import ParameterError, XaitoolsError
from xaitools.evaluation._checks import SAME_RANKS
from xaitools.evaluation.bootstrap import Interval, mean_interval
from xaitools.evaluation.similarity import SIMILARITIES, Prepared, check_size, compared, prepared
from xaitools.models import Network
from xaitools.progress import Progress, Teller

ORDERS = ("cascading", "independent")
DIRECTIONS = ("top-down", "bottom-up")
EXPLAINED = ("fixed", "argmax")

CONTROL = "random"
"""The row of a map of noise, drawn anew whenever a map is asked for."""

PASSES, FAILS, NOISE, UNDECIDED = "passes", "fails", "noise", "undecided"

WARNING = (
    "A map that changes has passed this test and no other: a map of noise changes most and explains nothing, so do not "
    "rank methods by how little similarity is left. From the top down the activations below the redrawn layers stay, "
    "and maps that are bound to them stay alike for that reason alone, while noise in maps lowers every similarity "
    "(Binder et al. 2023); how far maps can differ at all also depends on the task and the images, so that a map may "
    "stay the same and be right in both networks (Yona and Greenfeld 2021)."
)
"""What a verdict does not say; shown with it."""

_POINT = ["method", "order", "direction", "explained", "k", "layer", "similarity", "absolute"]
_CURVE = ["method", "similarity", "absolute"]
COLUMNS = (*_POINT, "draw", "image", "value")

Row = dict[str, Any]

Step = dict[str, Any]
"""What is known after a step, plain values: its `rows`, and of the trained network `errors` too."""

Keep = Callable[[str, Callable[[], Step]], Step]
"""``keep(name, make)`` returns what `make` makes, or what it made when it was called under that name before."""


@dataclass(frozen=True, eq=False)
class Randomization:
    """Similarity of maps to those of networks whose weights were drawn anew; prints its verdicts, in a notebook too.

    Attributes
    ----------
    table
        A row a method, redrawn layer, similarity, draw and image: `method` ("random" is the control), `order`,
        `direction`, `explained`; `k`, the number of the step from 1, and `layer`, what was redrawn in it; `similarity`,
        `absolute`; `draw` of the weights, `image`; `value`, NaN where a map has one value only. Rows of ``k = 0``
        compare the map with a repetition on the same network, with another seed; no mean takes them in.
    errors
        What went wrong with methods that failed on the network itself, by name, with ``on_error="keep"``. Where a
        method fails on a redrawn network only, its value is NaN.
    warning
        What the verdicts do not say.
    """

    table: pd.DataFrame
    errors: dict[str, Exception]
    warning: str = WARNING

    def summary(self, *, confidence: float = 0.95, n_resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
        """Mean over images of each point of the curves, with its bootstrap interval over images.

        Returns
        -------
        DataFrame
            A row a point: `method` to `absolute` as in `table`; `n`, the images that have a value; `mean`, `low` and
            `high`. Draws are averaged first, image by image. Of fewer than two images there is no interval: NaN.
        """
        points = self.table.pivot_table(
            index=_POINT, columns="image", values="value", aggfunc="mean", sort=False, dropna=False
        )
        points = points[points.index.isin(self.table.set_index(_POINT).index)]
        rows = [
            _interval(values, confidence=confidence, n_resamples=n_resamples, seed=seed)
            for values in points.to_numpy()
        ]
        found = pd.DataFrame(rows, columns=["n", "mean", "low", "high"])
        return pd.concat([points.index.to_frame(index=False), found], axis=1)

    def verdicts(
        self,
        *,
        last: int | None = None,
        bound: float = SAME_RANKS,
        confidence: float = 0.95,
        n_resamples: int = 2000,
        seed: int = 0,
    ) -> pd.DataFrame:
        """Who passes: whose maps change with the weights, beyond what they change by themselves.

        Parameters
        ----------
        last
            The step up to which is counted; None for all. Of a cascade from the top down, 1 asks whether maps depend on
            the uppermost layer.
        bound
            Share of a map's similarity to its own repetition that may be left after randomisation. 0.71 by default:
            of a correlation its square, one half, is the share of the ranking that does not come from the weights.
        confidence, n_resamples, seed
            As for :func:`~xaitools.evaluation.bootstrap.mean_interval`; images are resampled.

        Returns
        -------
        DataFrame
            A row a method, similarity and absolute: `n` images; `repeated`, the mean similarity to a repetition on the
            same network; `randomized`, that after the last step, for independent layers the mean over them,
            with its interval `low` to `high`; `average`, that over all steps; `verdict`:
            "noise" if the repetition is less similar than `bound` beyond doubt: then a change says nothing;
            "passes" if less than `bound` of the repetition's similarity is left beyond doubt, "fails" if more,
            "undecided" if the interval of the difference holds 0, or of fewer than two images.
            See `warning` for what it does not say.
        """
        options = {"confidence": confidence, "n_resamples": n_resamples, "seed": seed}
        rows = []
        counted = self.table if last is None else self.table[self.table["k"] <= last]
        for key, part in counted.groupby(_CURVE, sort=False):
            repeated, randomized, average = _of_images(part)
            n, mean, low, high = _interval(randomized, **options)
            rows.append(
                {
                    **dict(zip(_CURVE, key, strict=True)),
                    "n": n,
                    "repeated": float(np.mean(repeated)) if len(repeated) else np.nan,
                    "randomized": mean,
                    "low": low,
                    "high": high,
                    "average": float(np.mean(average)) if len(average) else np.nan,
                    "verdict": _verdict(repeated, randomized, bound, options),
                }
            )
        return pd.DataFrame(rows)

    def __repr__(self) -> str:
        return f"{self.verdicts().round(3).to_string(index=False)}\n\n{self.warning}"

    def _repr_html_(self) -> str:
        return f"{self.verdicts().round(3).to_html(index=False)}<p>{self.warning}</p>"


def model_randomization(
    model: nn.Module | Network,
    images: Float[Tensor, "batch channel *spatial"] | Float[np.ndarray, "batch channel *spatial"],
    target: Target = None,
    methods: str | Sequence[str] = ("gradient",),
    *,
    order: str = "cascading",
    direction: str = "top-down",
    layers: Sequence[str | Sequence[str]] | None = None,
    similarities: Sequence[str] = ("spearman", "ssim", "hog"),
    absolute: Sequence[bool] = (True, False),
    explained: str = "fixed",
    n_draws: int = 1,
    seed: int = 0,
    keep: Keep | None = None,
    progress: bool | Progress = True,
    **settings: Any,
) -> Randomization:
    """Draw the weights of a network anew, layer by layer, and compare its maps with those of the trained network.

    The network's own maps are computed once, those of a redrawn network by one `attribute` call for all methods. Layers
    are redrawn as their own initialiser does, running statistics with them, on copies: the model stays as it is,
    also when this is interrupted. See :meth:`xaitools.models.Network.randomized`.

    Parameters
    ----------
    model
        Network that returns (batch, classes) or (batch,), or a prepared `xaitools.models.Network`; it is not changed.
    images
        Images or volumes (batch, channel, *spatial); the intervals are over them.
    target
        Class to explain: one for all images, or one for each. None for the single output of a regression.
    methods
        Names as for `xaitools.attribute`; a control of noise, "random", is added.
    order
        "cascading": all layers up to this one are redrawn; "independent": this layer only.
    direction
        "top-down": from the output's layer to the image's; "bottom-up": the other way round.
    layers
        Names of layers, or of modules, all of whose layers are redrawn in one step, as are those of several names in a
        list; None for each layer by itself. They are taken in the order in which they run.
    similarities, absolute
        How maps are compared, see :func:`~xaitools.evaluation.similarity.map_similarity`.
    explained
        "fixed": `target` in every network; "argmax": the class that each network itself predicts, as in Adebayo's
        public code, where a map may change because another class is explained. Leave `target` out for it.
    n_draws
        How often weights are drawn.
    seed
        Of the weights, the control and the methods.
    keep
        What keeps the rows of each network, so that none is redrawn twice: ``keep(name, make)`` is called with the
        name of a step and a function that takes it and returns plain values; it may return what it has kept instead.
    progress
        Whether to show a bar if it takes more than two seconds; or a function that is called with the number of
        networks done and their total, and stops the work by raising.
    **settings
        Further keyword arguments of `xaitools.attribute`: steps, draws, options, precision, batch_size, on_error.

    Returns
    -------
    Randomization
        The table of similarities; `summary()` has the curves with intervals, `verdicts()` who passes.

    Raises
    ------
    ParameterError
        If an option, a similarity or a layer is unknown, or `target` is given with "argmax".
    ShapeError
        If images are too small for a similarity.
    XaitoolsError
        As `xaitools.attribute` raises.

    References
    ----------
    Adebayo et al. 2018, Sanity checks for saliency maps, arXiv:1810.03292, section 4. Binder et al. 2023, Shortcomings
    of top-down randomization-based sanity checks, arXiv:2211.12486. Yona and Greenfeld 2021, Revisiting sanity checks
    for saliency maps, arXiv:2110.14297.
    """
    check_choice(order=(order, ORDERS), direction=(direction, DIRECTIONS), explained=(explained, EXPLAINED))
    check_counts(n_draws=n_draws)
    images = checked_images(images)
    check_similarities(similarities, tuple(images.shape[2:]))
    network = Network.of(
        model, images[:1], settings.get("precision", "float32"), settings.pop("output", None)
    )
    explainer = Explainer(network, images, target, methods, explained, seed, settings)
    steps = _steps(network, layers, order, direction)
    fixed = {"order": order, "direction": direction, "explained": explained}
    kept = keep or (lambda _, make: make())
    rows: list[Row] = []
    with Teller(2 + n_draws * len(steps), progress, "randomising", "network") as tell:
        comparison = Comparison(explainer, similarities, absolute, tell)
        itself = kept("trained", comparison.itself)
        rows += [{**fixed, "k": 0, "layer": "", "draw": 0, **row} for row in itself["rows"]]
        tell(2)
        for draw in range(n_draws):
            twins = Twins(network, seed + draw)
            for k, (layer, names) in enumerate(steps, start=1):
                redrawn = partial(twins.of, names)
                make = partial(comparison.of, redrawn, 1 + draw * len(steps) + k)
                step = {**fixed, "k": k, "layer": layer, "draw": draw}
                rows += [{**step, **row} for row in kept(f"draw-{draw}_step-{k}", make)["rows"]]
                tell(1)
    errors: dict[str, Exception] = {name: XaitoolsError(text) for name, text in itself["errors"].items()}
    return Randomization(
        pd.DataFrame(rows, columns=list(COLUMNS)), comparison.errors if keep is None else errors
    )


def smooth_model_randomization(
    model: nn.Module | Network,
    images: Float[Tensor, "batch channel *spatial"] | Float[np.ndarray, "batch channel *spatial"],
    target: Target = None,
    methods: str | Sequence[str] = ("gradient",),
    *,
    draws: int = 50,
    noise_level: float = 0.1,
    direction: str = "bottom-up",
    similarities: Sequence[str] = ("spearman",),
    **options: Any,
) -> Randomization:
    """Smooth model parameter randomisation test (sMPRT): maps are averaged over noisy images before they are compared.

    Noise in a map lowers its similarity to any other, so that noisy methods pass the plain test more easily; averaging
    takes that advantage away. Each method is given "+smoothgrad", but for those that smooth by themselves.

    Parameters
    ----------
    model, images, target, methods, direction, similarities
        As for :func:`model_randomization`; from the bottom up and by rank correlation, as the authors advise.
    draws
        Noisy copies that are averaged.
    noise_level
        Standard deviation of the noise as a fraction of each image's range.
    **options
        Further keyword arguments of :func:`model_randomization`.

    References
    ----------
    Hedström et al. 2024, A fresh look at sanity checks for saliency maps, arXiv:2405.02383, and Sanity checks
    revisited, arXiv:2401.06465, section 3.
    """
    smooth = [smooth_name(text) for text in parse_all(methods)]
    return model_randomization(
        model,
        images,
        target,
        smooth,
        direction=direction,
        similarities=similarities,
        draws=draws,
        noise_level=noise_level,
        **options,
    )


def smooth_name(text: str) -> str:
    """The name of a method with "+smoothgrad", unless it smooths already."""
    name = parse(text)
    return str(
        MethodName(name.base, name.option, name.smoothing or "smoothgrad", name.absolute, name.regions)
    )


class Twins:
    """Networks redrawn with one seed, one after the other; of a cascade only what the last one has not drawn yet."""

    def __init__(self, network: Network, seed: int) -> None:
        self._network, self._seed = network, seed
        self._last: tuple[Network, list[str]] = network, []

    def of(self, layers: Sequence[str]) -> Network:
        """The network in which these layers are redrawn."""
        base, drawn = self._last
        if drawn != list(layers[: len(drawn)]):
            base, drawn = self._network, []
        twin = base.randomized(layers[len(drawn) :], self._seed)
        self._last = twin, list(layers)
        return twin


@dataclass
class Explainer:
    """Explains images by all methods and the control, on one network or another.

    Attributes
    ----------
    network
        The trained one.
    methods
        Names of the maps.
    """

    network: Network
    images: Tensor
    target: Target
    methods: str | Sequence[str]
    explained: str
    seed: int
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.explained == "argmax" and self.target is not None:
            raise ParameterError(
                "target is given with explained='argmax'; expected None, since each network's own prediction is "
                "explained: leave it out."
            )
        if self.explained == "argmax" and self.network.n_outputs == 1:
            raise ParameterError(
                "explained='argmax' with a network of a single output; expected several: use explained='fixed'."
            )

    def maps(
        self,
        network: Network,
        number: int,
        methods: Sequence[str] | None = None,
        *,
        other_seed: int = 0,
        **settings: Any,
    ) -> Maps:
        """Maps by name, and the control's, (batch, 1, *spatial), which is drawn anew for each number of a network."""
        methods = self.methods if methods is None else methods
        target = self.target if self.explained == "fixed" else _predicted(network, self.images)
        options = {
            "precision": network.precision,
            **self.settings,
            **settings,
            "seed": self.seed + other_seed,
        }
        maps = (
            Maps()
            if self.methods and not methods
            else attribute(network, self.images, target, methods, **options)
        )
        generator = torch.Generator().manual_seed(CONTROL_SEED + 1_000_003 * self.seed + number)
        maps[CONTROL] = torch.randn(len(self.images), 1, *self.images.shape[2:], generator=generator)
        return maps


CONTROL_SEED = 0xC0FFEE


class Comparison:
    """Maps of a network, prepared once when they are first needed, and their similarity to those of others."""

    def __init__(
        self, explainer: Explainer, similarities: Sequence[str], absolute: Sequence[bool], tell: Teller
    ) -> None:
        self._explainer, self._tell = explainer, tell
        self._ways = [(name, flag) for name in similarities for flag in absolute]

    @cached_property
    def errors(self) -> dict[str, Exception]:
        """What went wrong with methods that failed on the network itself."""
        return dict(self._own.errors)

    @cached_property
    def _own(self) -> Maps:
        return self._maps(self._explainer.network, 0)

    @cached_property
    def _kept(self) -> dict[str, list[list[Prepared]]]:
        return {name: self._prepared(values) for name, values in self._own.items()}

    def itself(self) -> Step:
        """The same network with another seed; maps of methods that draw nothing are not computed again."""
        drawn = [name for name in self._kept if name != CONTROL and _draws(name)]
        maps = self._maps(self._explainer.network, 1, drawn, other_seed=1)
        rows = self._rows(
            {name: self._prepared(maps[name]) if name in maps else kept for name, kept in self._kept.items()}
        )
        return {"rows": rows, "errors": {name: str(error) for name, error in self.errors.items()}}

    def of(self, network: Callable[[], Network], number: int) -> Step:
        """Another network, which is number `number`."""
        maps = self._maps(network(), number, [name for name in self._kept if name != CONTROL])
        return {
            "rows": self._rows(
                {
                    name: self._prepared(maps[name]) if name in maps else [[None] * len(row) for row in kept]
                    for name, kept in self._kept.items()
                }
            )
        }

    def _maps(
        self, network: Network, number: int, methods: Sequence[str] | None = None, other_seed: int = 0
    ) -> Maps:
        return self._explainer.maps(
            network, number, methods, other_seed=other_seed, progress=lambda done, total: self._tell(0)
        )

    def _prepared(self, maps: Tensor) -> list[list[Prepared]]:
        """What is compared of each map: a list over the ways of lists over images."""
        values = maps.detach().cpu().double().numpy()
        return [
            [prepared(SIMILARITIES[name], one, absolute) for one in values] for name, absolute in self._ways
        ]

    def _rows(self, found: Mapping[str, list[list[Prepared]]]) -> list[Row]:
        return [
            {
                "method": method,
                "similarity": name,
                "absolute": absolute,
                "image": image,
                "value": compared(SIMILARITIES[name], one, other),
            }
            for method, others in found.items()
            for (name, absolute), mine, theirs in zip(self._ways, self._kept[method], others, strict=True)
            for image, (one, other) in enumerate(zip(mine, theirs, strict=True))
        ]


def check_similarities(similarities: Sequence[str], spatial: tuple[int, ...]) -> None:
    """Raise unless all similarities are known, and maps of this size are large enough for them."""
    for name in similarities:
        check_choice(similarity=(name, SIMILARITIES))
        check_size(name, spatial)


def _steps(
    network: Network, layers: Sequence[str | Sequence[str]] | None, order: str, direction: str
) -> list[tuple[str, list[str]]]:
    """What each step is called, and the layers that are redrawn for it."""
    known = network.layers
    around = [name.rsplit(".", depth)[0] for name in known for depth in range(1, name.count(".") + 1)]
    chosen = [
        (name,) if isinstance(name, str) else tuple(name) for name in (known if layers is None else layers)
    ]
    for name in [one for names in chosen for one in names]:
        check_choice(layer=(name, dict.fromkeys([*known, *around])))
    groups = {
        " + ".join(names): [
            own
            for own in known
            if own in names or (layers is not None and own.startswith(tuple(f"{name}." for name in names)))
        ]
        for names in chosen
        if names
    }
    if not groups:
        raise ParameterError("layers is empty; expected one name or more, or None for all layers.")
    run = sorted(groups, key=lambda name: known.index(groups[name][0]), reverse=direction == "top-down")
    if order == "independent":
        return [(name, groups[name]) for name in run]
    return [
        (name, list(dict.fromkeys(own for one in run[: k + 1] for own in groups[one])))
        for k, name in enumerate(run)
    ]


def _predicted(network: Network, images: Tensor) -> Tensor:
    """The class that the network itself predicts for each image."""
    with torch.no_grad():
        parts = network.place(images).split(16)
        return torch.cat([network.plain(part.clone()).argmax(1) for part in parts])


def _draws(text: str) -> bool:
    """Whether a map may depend on the seed; all may but those of fixed paths and rules."""
    name = parse(text)
    fixed = name.method.kind in ("path", "rule") and "references" not in name.method.keywords
    return bool(name.smoothing) or not fixed or "." in name.base


def _of_images(part: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Similarity of one curve's images to the repetition, at the end, and over all steps, where all are defined."""
    curve = part.pivot_table(index="image", columns="k", values="value", aggfunc="mean", dropna=False)
    steps = curve.drop(columns=0)
    end = steps.mean(axis=1) if (part["order"] == "independent").all() else steps[steps.columns.max()]
    found = pd.DataFrame({"repeated": curve[0], "end": end, "average": steps.mean(axis=1)}).dropna()
    return found["repeated"].to_numpy(), found["end"].to_numpy(), found["average"].to_numpy()


def _interval(values: np.ndarray, **options: Any) -> tuple[int, float, float, float]:
    """Number of values that are defined, their mean, and its interval."""
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return len(values), float(values[0]) if len(values) else np.nan, np.nan, np.nan
    found = mean_interval(values, **options)
    return len(values), float(found.mean), float(found.low), float(found.high)


def _verdict(repeated: np.ndarray, randomized: np.ndarray, bound: float, options: Mapping[str, Any]) -> str:
    if len(repeated) < 2:
        return UNDECIDED
    if mean_interval(repeated, **options).high < bound:
        return NOISE
    left: Interval = mean_interval(randomized - bound * repeated, **options)
    if left.high < 0:
        return PASSES
    return FAILS if left.low > 0 else UNDECIDED
