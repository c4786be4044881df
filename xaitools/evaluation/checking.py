"""Can a map be trusted on this network? What a user runs on a model of their own."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from torch import Tensor, nn

from xaitools.attribution import parse_all
from xaitools.checks import Target, checked_images
from xaitools.errors import UnsupportedModelError
from xaitools.evaluation._checks import CHECKS, FAILS, HOLDS, NOT_APPLICABLE, Bench, Subject, row_of
from xaitools.evaluation._checks import Check as Check
from xaitools.models import Network
from xaitools.progress import Progress, Teller

COLUMNS = ("method", "check", "measured", "value", "bound", "verdict", "meaning")


@dataclass(frozen=True)
class Checks:
    """Table of checks; prints itself, in a notebook too.

    Attributes
    ----------
    rows
        One a method and check.
    """

    rows: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """Whether no check failed; those that do not apply count for nothing."""
        return all(row.verdict != FAILS for row in self.rows)

    @property
    def frame(self) -> pd.DataFrame:
        """The rows as a table: method, check, measured, value, bound, verdict and meaning."""
        return pd.DataFrame([asdict(row) for row in self.rows], columns=list(COLUMNS))

    def __getitem__(self, key: str | tuple[str, str]) -> Check:
        """The row of a check, or of a method and a check: ``checks["gradient", "determinism"]``."""
        method, check = key if isinstance(key, tuple) else (self.rows[0].method, key)
        return next(row for row in self.rows if (row.method, row.check) == (method, check))

    def __repr__(self) -> str:
        lines = [_summary(self.rows)]
        for method in dict.fromkeys(row.method for row in self.rows):
            own = [row for row in self.rows if row.method == method]
            lines += ["", method, *map(_line, (row for row in own if row.verdict != NOT_APPLICABLE))]
            for reason in dict.fromkeys(row.meaning for row in own if row.verdict == NOT_APPLICABLE):
                which = [row.check for row in own if row.meaning == reason]
                lines.append(f"  {NOT_APPLICABLE}: {', '.join(which)}. {reason}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<p>{_summary(self.rows)}</p>{_cells(self.rows).to_html(index=False)}"


def check_attribution(
    model: nn.Module | Network,
    images: Float[Tensor, "batch channel *spatial"] | Float[np.ndarray, "batch channel *spatial"],
    target: Target = None,
    methods: str | Sequence[str] = ("gradient",),
    *,
    progress: bool | Progress = True,
    **settings: Any,
) -> Checks:
    """Check one method or several on a network and a few of its images, before their maps are believed.

    Each check is a measurement with a bound:

    - *explains the network*: the method accepts the network, and no map is 0 everywhere. A method that refuses says
      why here, and its other checks do not apply.
    - *completeness*, of integrated gradients and relatives: what the map's sum misses of the output's change from the
      baseline, as a share of that change. Up to 5 %, as Sundararajan et al. recommend for choosing the steps.
    - *conservation*, of LRP and Deep Taylor: what the map's sum misses of the output, as a share of it. Up to 5 % too,
      so that values can be read as parts of the output. Biases may rightly keep more.
    - *conservation without biases*: the same with all biases 0, where the rules promise equality. Up to 1 %, for
      rounding and the stabiliser.
    - *finite differences*, of methods that add up gradients: the products of gradient and random directions against
      central differences of the output in float64, a reference that takes no part of autograd. The root mean square of
      the differences over that of the derivatives estimates the gradient's relative error, since a random direction
      with independent normal entries has E (e d)^2 = |e|^2. This is done a thousandth of the image's range beside the
      image, since a black background puts ReLUs and max pools on their kinks. Up to 1 %: rounding to float32 makes up
      to 0.5 % in the trained networks of our tests, a wrong or missing backward pass is off by the share of its layer,
      mostly above 10 %, and eight directions tell the error within a factor of 2.
    - *brute force*, of occlusion: some voxels of the first image against full passes in float64. Up to 1 % of their
      norm.
    - *falls above rounding*, of occlusion: the share of those windows whose fall is less than the error just measured.
      Up to a tenth, by convention: the ranks of that share are drawn by lot.
    - *determinism*: a second call, bit by bit.
    - *batch independence*: the first image alone and beside another, of half its contrast. Up to 1 %, as another batch
      size rounds otherwise.
    - *depends on the last layer*, *depends on the weights*: Spearman's correlation of the absolute map with that of a
      twin whose last layer, or all of it, is drawn anew (the sanity check of Adebayo et al.), over pixels that are not
      0 in both. Up to 0.71: its square, one half, is the share of the ranking that does not come from what was
      learned.

    Parameters
    ----------
    model
        Network that returns (batch, classes) or (batch,), or a prepared `xaitools.models.Network`; it is not changed.
    images
        Images or volumes (batch, channel, *spatial) of the kind to be explained; two or three are enough.
    target
        Class to explain: one for all images, or one for each. None for the single output of a regression.
    methods
        A name, or several, as for `xaitools.attribute`.
    progress
        Whether to show a bar if it takes more than two seconds; or a function that is called with the number of checks
        done and their total, and stops the work by raising.
    **settings
        Further keyword arguments of `xaitools.attribute`, as the maps are made with them: steps, draws, noise_level,
        references, baselines, options, output, precision, batch_size, seed.

    Returns
    -------
    Checks
        A row for each method and check: what was measured, value, bound, verdict ("holds", "does not hold" or "does not
        apply") and what that means.

    Raises
    ------
    MethodError
        If a name is unknown, or none is given.
    DataError, ShapeError, TargetError
        If images or targets are not what they should be.

    References
    ----------
    Sundararajan et al. 2017, arXiv:1703.01365, section 5. Adebayo et al. 2018, arXiv:1810.03292. Hutchinson 1990,
    Communications in Statistics 19, 433-450, for the random directions.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> checks = check_attribution(net, torch.rand(2, 1, 8, 8), 1, "gradient", progress=False)
    >>> checks["finite differences"].verdict
    'holds'
    """
    texts = list(parse_all(methods))
    images = checked_images(images)
    with Teller(len(texts) * len(CHECKS), progress, "checking", "check") as tell:
        precision, output = settings.get("precision", "float32"), settings.pop("output", None)
        try:
            network, inputs, classes = Network.entered(model, images, target, precision, output)
        except UnsupportedModelError as error:
            return Checks(tuple(_refused(text, error) for text in texts))
        bench = Bench(network, inputs, classes, settings, lambda done, total: tell(0))
        return Checks(tuple(row for text in texts for row in _rows(bench, text, tell)))


def _rows(bench: Bench, text: str, tell: Teller) -> Iterator[Check]:
    """All rows of a method."""
    maps = bench.maps(text, bench.images, target=bench.target, keep=True)
    if text in maps.errors:
        yield _refused(text, maps.errors[text])
        tell(len(CHECKS))
        return
    subject = Subject(bench, text, maps)
    for check in CHECKS:
        yield row_of(subject, check)
        tell(1)


def _refused(method: str, error: Exception) -> Check:
    """The row of a method that has no map: why."""
    first = next(iter(CHECKS))
    return Check(method, first, "Whether there are maps", None, None, FAILS, f"It refuses: {error}")


def _summary(rows: Sequence[Check]) -> str:
    counts = [sum(row.verdict == verdict for row in rows) for verdict in (HOLDS, FAILS, NOT_APPLICABLE)]
    hold, fail, other = counts
    return f"{hold} hold, {fail} {'does' if fail == 1 else 'do'} not hold, {other} do not apply"


def _line(row: Check) -> str:
    compared = "" if row.value is None else f"{_number(row.value)} (up to {_number(row.bound)})"
    return f"  {row.check:27}  {row.verdict:13}  {compared:21}  {row.meaning}".rstrip()


def _cells(rows: Sequence[Check]) -> pd.DataFrame:
    """The table with numbers of two digits, as text."""
    numbers = {name: [_number(getattr(row, name)) for row in rows] for name in ("value", "bound")}
    return Checks(tuple(rows)).frame.assign(**numbers)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}"
