"""Maps of several methods from one stream of passes."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from xaitools.attribution.names import MethodName
from xaitools.attribution.passes import Path, Row, Rule, stream
from xaitools.attribution.smoothing import SMOOTHINGS, Moments
from xaitools.errors import MethodError

Key = tuple[str, str]
"""Name of a source, and its smoothing ("" for the clean map)."""


@dataclass(frozen=True)
class Source:
    """What is computed before smoothing: the mean of the maps of some paths, under one backward rule.

    Sources that name the same path share it.

    Attributes
    ----------
    rule
        How gradients pass back through the network.
    paths
        Paths by the name under which they are shared.
    finish
        ``finish(copy, mean)`` makes the map from that mean and from the image, or noisy copy, that it belongs to.
    """

    rule: Rule
    paths: Mapping[str, Path]
    finish: Callable[[Tensor, Tensor], Tensor] = lambda copy, mean: mean


@dataclass(frozen=True)
class Request:
    """What a call to `attribute` gives to the methods, each of which makes its `Source` of it."""

    model: nn.Module
    images: Tensor
    steps: int = 50
    references: Tensor | None = None
    baselines: Mapping[str, Tensor | float] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def options_of(self, name: MethodName) -> Mapping[str, Any]:
        """Keyword arguments for a method; those for its base with the option go before those for the base."""
        return {**self.options.get(name.base, {}), **self.options.get(name.source, {})}


def checked_options(name: MethodName, request: Request, known: Sequence[str]) -> Mapping[str, Any]:
    """The request's options for a method.

    Raises
    ------
    MethodError
        If one is not `known`.
    """
    options = request.options_of(name)
    for key in options:
        if key not in known:
            raise MethodError(f"{name.source} takes no option {key!r}; it takes {', '.join(known)}.")
    return options


def count_passes(sources: Mapping[str, Source], wanted: Collection[Key], n_images: int, draws: int) -> int:
    """Number of gradients that `shared_maps` takes."""
    return n_images * sum(
        sum(path.steps for path in clean.values()) + draws * sum(path.steps for path in noisy.values())
        for _, clean, noisy in _groups(sources, wanted)
    )


def shared_maps(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | None,
    sources: Mapping[str, Source],
    wanted: Collection[Key],
    *,
    draws: int,
    noise_level: float,
    batch_size: int,
    seed: int,
    bar: Any = None,
) -> dict[Key, Tensor]:
    """Maps (batch, channel, *spatial) of all wanted combinations of source and smoothing."""
    maps = {key: torch.empty_like(images) for key in wanted}
    for rule, clean, noisy in _groups(sources, wanted):
        moments: dict[str, Moments] = {}
        rows = stream(
            model,
            images,
            targets,
            _rows(len(images), draws, clean, noisy),
            rule=rule,
            noise_level=noise_level,
            batch_size=batch_size,
            seed=seed,
            bar=bar,
        )
        for row, copy, parts in rows:
            for name, source in sources.items():
                if source.rule is not rule or not source.paths.keys() <= parts.keys():
                    continue
                mean = source.finish(copy, torch.stack([parts[path] for path in source.paths]).mean(0))
                if row.draw == 0:
                    _store(maps, (name, ""), row.image, mean)
                    continue
                if row.draw == 1:
                    moments[name] = Moments()
                moments[name].add(mean)
                if row.draw == draws:
                    for smoothing, moment in SMOOTHINGS.items():
                        _store(maps, (name, smoothing), row.image, moment(moments[name]))
    return maps


def _store(maps: dict[Key, Tensor], key: Key, image: int, value: Tensor) -> None:
    if key in maps:
        maps[key][image] = value


def _groups(
    sources: Mapping[str, Source], wanted: Collection[Key]
) -> list[tuple[Rule, dict[str, Path], dict[str, Path]]]:
    """For each backward rule, the paths that clean images need and those that noisy copies need."""
    groups = []
    for rule in dict.fromkeys(source.rule for source in sources.values()):
        clean: dict[str, Path] = {}
        noisy: dict[str, Path] = {}
        for name, smoothing in sorted(wanted):
            if sources[name].rule is rule:
                (noisy if smoothing else clean).update(sources[name].paths)
        groups.append((rule, clean, noisy))
    return groups


def _rows(
    n_images: int, draws: int, clean: dict[str, Path], noisy: dict[str, Path]
) -> Iterator[tuple[Row, dict[str, Path]]]:
    for image in range(n_images):
        if clean:
            yield Row(image, 0), clean
        if noisy:
            for draw in range(1, draws + 1):
                yield Row(image, draw), noisy
