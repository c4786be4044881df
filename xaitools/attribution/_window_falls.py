"""How far hiding each window lowers the output of one image: from what changes in each layer, or by full passes."""

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain, islice

import torch
from jaxtyping import Float64
from torch import Tensor, nn

from xaitools.attribution._boxes import Change, table_of
from xaitools.attribution._incremental import IncrementalNetwork, layout_of
from xaitools.attribution._stream import Tell
from xaitools.attribution._windows import Windows, change_of, picked
from xaitools.errors import UnsupportedModelError
from xaitools.models.network import select

logger = logging.getLogger(__name__)

ALGORITHMS = ("auto", "incremental", "full")

PROBED, LARGEST, RANDOM = 8, 2, 2
"""Windows computed before the others, of which a full pass checks the one with the largest fall; of all, those with the
largest falls that full passes check, and others that they check."""

MOVES = 3
"""Passes that measure rounding."""

ROUNDINGS = 10
"""How many times the rounding of a full pass incremental and full falls may differ by; and the square root of the
floating point format's precision, as a fraction of the largest checked fall."""

MOST_ROUNDING = 1e3
"""Most that is taken for rounding, in units of the last place of the largest output, or of the largest activation where
all are moved: beyond, a network jumps."""

SAMPLED, PUSH = 32, 1 / 16
"""Windows on which the rounding of incremental passes is measured, and by which fraction more and less is hidden."""

_ELEMENTS = 2**22
_MOST_WINDOWS = 4096


class _Differs(UnsupportedModelError):
    """Incremental outputs are not those of full passes."""


class WindowFalls:
    """Falls of one image's output, by the algorithm asked for.

    Attributes
    ----------
    below_rounding
        Share of the windows asked for last whose fall is not 0, and no larger than what rounding makes.
    """

    def __init__(
        self,
        network: nn.Module,
        image: Tensor,
        missing: Tensor,
        target: Tensor | None,
        batch_size: int,
        algorithm: str,
        tell: Tell,
        n_told: int,
    ) -> None:
        """`missing` is the baseline less the image; `tell` hears of `n_told` windows in all, whatever happens."""
        self.below_rounding = 0.0
        self._network, self._image, self._target = network, image, target
        self._batch_size, self._algorithm = batch_size, algorithm
        self._tell, self._left = tell, n_told
        self._stopped: Exception | None = None
        self._table = table_of(missing)
        self._layout = layout_of(network, image)
        self._clean: Tensor | None = None

    def of(self, groups: Sequence[Windows], n_results: int) -> Float64[Tensor, " result"]:
        """The fall for each window, at its place in the result."""
        falls = self._image.new_zeros(n_results, dtype=torch.float64)
        if groups:
            values = self._followed(groups)
            if values is None:
                values = self._full(groups, self._told)
                self.below_rounding = self._share(values, groups)
            falls[torch.cat([windows.number for windows in groups])] = values
        self._told(self._left)
        return falls

    def _told(self, done: int) -> None:
        """Tell of windows that are done, but of no more than there are: some may be computed twice."""
        done = min(done, self._left)
        self._left -= done
        try:
            self._tell(done)
        except Exception as error:
            self._stopped = error
            raise

    def _select(self, outputs: Tensor) -> Tensor:
        return select(outputs, None if self._target is None else self._target.expand(len(outputs)))

    # --- incremental passes

    def _followed(self, groups: Sequence[Windows]) -> Tensor | None:
        """The falls by incremental passes, checked; None if there have to be full ones, and the reason is logged."""
        demanded = self._algorithm == "incremental"
        n = sum(map(len, groups))
        if self._algorithm == "full":
            return None
        if n <= 2 * LARGEST + RANDOM and not demanded:
            logger.info("Occlusion by full passes: %d windows are too few to follow their changes.", n)
            return None
        try:
            engine = IncrementalNetwork(
                self._network, self._image, batch_size=self._batch_size, pulse=lambda: self._told(0)
            )
            engine.require_local()
            probed = self._probe(engine, groups, n)
            if probed is None:
                return None
            values = self._incremental(engine, groups, self._told)
            self._check(engine, groups, self._telling(values, probed), values)
            self.below_rounding = self._share(values, groups, engine)
            return values
        except Exception as error:  # the network's own code runs in there
            if error is self._stopped:
                raise
            if demanded and isinstance(error, UnsupportedModelError):
                raise
            if demanded:
                raise UnsupportedModelError(
                    f"Changes cannot be followed through {type(self._network).__name__} ({type(error).__name__}: "
                    f"{error}); use algorithm='full'."
                ) from error
            if isinstance(error, _Differs):
                logger.warning("%s: occlusion goes on by full passes.", error)
            else:
                logger.info("Occlusion by full passes: %s", error)
            return None

    def _probe(self, engine: IncrementalNetwork, groups: Sequence[Windows], n: int) -> Tensor | None:
        """Try a few windows; the number of the one that was checked, (1,), or None if full passes are less work."""
        probed = _sample(n, PROBED)
        windows = picked(groups, probed)
        values = self._incremental(engine, windows)
        share = engine.work / (len(probed) * engine.full_work)
        use = share < 1 or self._algorithm == "incremental"
        logger.info(
            "Occlusion of %d windows of %s by %s: a window's changes take %.2g of the work of a full pass.",
            *(n, "x".join(map(str, groups[0].size)), "incremental passes" if use else "full passes", share),
        )
        if not use:
            return None
        largest = values.abs().argmax()[None].cpu()
        self._check(engine, windows, largest, values)
        engine.check(self._outputs)
        return probed[largest]

    def _incremental(
        self,
        engine: IncrementalNetwork,
        groups: Sequence[Windows],
        tell: Tell = lambda done: None,
        push: float = 1.0,
    ) -> Tensor:
        """Falls where `push` times the missing is added: 1 hides."""
        falls = []
        for windows in groups:
            size = max(1, min(_ELEMENTS // engine.widest, _MOST_WINDOWS))
            for first in range(0, len(windows), size):
                part = windows[first : first + size]
                change = change_of(self._table, part)
                outputs = engine.outputs(Change(change.values * push, change.start))
                falls.append(-self._select(outputs).double())
                tell(len(part))
        return torch.cat(falls)

    def _telling(self, values: Tensor, checked: Tensor) -> Tensor:
        """Windows whose check tells most, those with the largest falls, and a few others."""
        size = values.abs().cpu()
        size[checked] = -1
        largest = size.topk(min(LARGEST, len(values))).indices
        return torch.cat([largest, _sample(len(values), RANDOM)]).unique()

    def _check(
        self, engine: IncrementalNetwork, groups: Sequence[Windows], chosen: Tensor, values: Tensor
    ) -> None:
        """Compare the windows `chosen` with full passes, up to the rounding of these."""
        found, expected = values[chosen], self._full(picked(groups, chosen))
        gap = float((found - expected).abs().max())
        precision = torch.finfo(self._outputs.dtype).eps
        least = allowed = precision**0.5 * float(expected.abs().max()) + self._unit
        roundings = self._roundings(engine)
        while not gap <= allowed and (rounding := next(roundings, None)) is not None:
            allowed = max(allowed, least + ROUNDINGS * rounding)
        if not gap <= allowed:
            raise _Differs(
                f"The incremental falls of {type(self._network).__name__} differ from full passes by {gap:.2g}, where "
                f"{allowed:.2g} is allowed and the largest checked fall is {float(expected.abs().max()):.2g}; use "
                "algorithm='full'"
            )

    # --- full passes

    def _full(self, groups: Sequence[Windows], tell: Tell = lambda done: None) -> Tensor:
        """Falls by full passes; the first ever has the clean image with it."""
        images = chain([self._image] if self._clean is None else [], self._occluded(groups))
        falls = []
        while part := list(islice(images, self._batch_size)):
            outputs = self._passed(torch.cat(part))
            if self._clean is None:
                self._clean, outputs = outputs[:1].clone(), outputs[1:]
            falls.append(self._score - self._select(outputs).double())
            tell(len(outputs))
        return torch.cat(falls)

    @property
    def _outputs(self) -> Tensor:
        """Those of the clean image, once there were full passes."""
        assert self._clean is not None
        return self._clean

    @property
    def _score(self) -> Tensor:
        return self._select(self._outputs).double()

    def _occluded(self, groups: Sequence[Windows]) -> Iterator[Tensor]:
        """The image with one window after the other hidden."""
        for windows in groups:
            for first in range(0, len(windows), self._batch_size):
                change = change_of(self._table, windows[first : first + self._batch_size])
                for start, values in zip(change.start.tolist(), change.values, strict=True):
                    box = tuple(slice(a, a + n) for a, n in zip(start, change.size, strict=True))
                    image = self._image.clone()
                    image[0][(slice(None), *box)] += values.movedim(-1, 0)
                    yield image

    def _passed(self, images: Tensor) -> Tensor:
        return self._network(images.contiguous(memory_format=self._layout))

    # --- rounding

    def _share(
        self, falls: Tensor, groups: Sequence[Windows], engine: IncrementalNetwork | None = None
    ) -> float:
        """Share of falls below rounding; of a sample of windows, if they were followed as changes to the end."""
        sizes = falls.abs()
        sizes = sizes[sizes > 0]
        if len(sizes) == 0 or float(sizes.min()) > MOST_ROUNDING * self._unit:
            return 0.0
        if engine is None or engine.whole:
            return float((sizes <= self._rounding).double().mean())
        changed = falls.nonzero()[:, 0].cpu()
        chosen = changed[_sample(len(changed), SAMPLED)]
        found = falls[chosen]
        return float((found.abs() <= self._noise(engine, picked(groups, chosen), found)).double().mean())

    def _noise(self, engine: IncrementalNetwork, groups: Sequence[Windows], falls: Tensor) -> Tensor:
        """Rounding of incremental falls: what does not move in proportion when a little more or less is hidden."""
        more, less = (self._incremental(engine, groups, push=push) for push in (1 + PUSH, 1 - PUSH))
        return (more - 2 * falls + less).abs() / 6**0.5

    @property
    def _unit(self) -> float:
        """The largest output's last place."""
        return torch.finfo(self._outputs.dtype).eps * self._largest

    @property
    def _largest(self) -> float:
        return float(self._outputs.abs().max())

    @cached_property
    def _rounding(self) -> float:
        """How far the score moves when the image does by one unit in the last place, at random; of two passes."""
        generator = torch.Generator().manual_seed(0)
        precision = torch.finfo(self._image.dtype).eps
        moves = [self._image * (1 + precision * self._signs(generator)) for _ in range(MOVES)]
        moved = [
            self._passed(torch.cat(moves[i : i + self._batch_size]))
            for i in range(0, MOVES, self._batch_size)
        ]
        measured = float((self._select(torch.cat(moved)).double() - self._score).abs().max())
        return 2 * min(max(measured, self._unit), MOST_ROUNDING / 2 * self._unit)

    def _roundings(self, engine: IncrementalNetwork) -> Iterator[float]:
        """How far the score moves when every activation does by half a unit in the last place, at random; or the image.

        Moves of the image alone do not tell: where activations are a thousand and cancel to a score of one, they are
        lost in the first layer, while the score is rounded as thousands are. Move by move, as one may be enough.
        """
        generator = torch.Generator().manual_seed(0)
        most = MOST_ROUNDING * torch.finfo(self._outputs.dtype).eps * max(engine.largest, self._largest)
        for _ in range(MOVES):
            moved = self._select(engine.shaken(self._image, generator))
            yield min(float((moved.double() - self._score).abs().max()), most) / 2
        yield self._rounding

    def _signs(self, generator: torch.Generator) -> Tensor:
        """1 or -1 for each element of the image."""
        return torch.randint(2, self._image.shape, generator=generator).to(self._image) * 2 - 1


def _sample(n: int, size: int) -> Tensor:
    """At most `size` of n numbers, sorted."""
    return torch.randperm(n, generator=torch.Generator().manual_seed(0))[:size].sort().values
