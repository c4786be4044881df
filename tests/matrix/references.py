"""What each method should give: from the user's own network in float64, and of the package no more than its draws."""

import copy
import warnings
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tests.matrix.relevance import NoReference, relevance
from xaitools.attribution import default_layer
from xaitools.attribution._stream import seed_of
from xaitools.attribution.xrai import Segments, xrai
from xaitools.models import Network

STEPS, DRAWS, NOISE = 3, 2, 0.15


class Reference:
    """References of one network on two images.

    Parameters
    ----------
    model
        The plain network in float64 and evaluation mode.
    images
        As the user gives them.
    target
        Class of each image, or None.
    pick
        The scores among what the network returns.
    patch
        Pixels of an occluding window.
    bounds
        Least and greatest value of a pixel.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        target: Tensor | None,
        pick: Callable,
        patch: int,
        bounds: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self.model, self.given, self.target, self.pick, self.patch = model, images, target, pick, patch
        self.images, self.bounds = images.double(), bounds

    def scores(self, points: Tensor, owner: int) -> Tensor:
        """The outputs to explain of points that belong to one image, (n,)."""
        if self._together:
            outputs = self._outputs(points)
        else:
            outputs = torch.cat([self._outputs(point[None]) for point in points])
        return outputs[:, 0] if self.target is None else outputs[:, self.target[owner]]

    def _outputs(self, images: Tensor) -> Tensor:
        return self.pick(self.model(images.clone())).reshape(len(images), -1)

    @cached_property
    def _together(self) -> bool:
        """Whether images may be asked in one batch, as they do not depend on one another."""
        with torch.no_grad():
            alone = torch.cat([self._outputs(image[None]) for image in self.images])
            return torch.allclose(self._outputs(self.images), alone, rtol=1e-12, atol=1e-12)

    def gradient_at(self, points: Tensor, owner: int) -> Tensor:
        """Gradient of the output at each point.

        A point is never asked alone: there batch normalisation's own backward pass in PyTorch 2.14 can be wrong.
        """
        if len(points) == 1 and self._together:
            return self.gradient_at(points.repeat(2, *[1] * (points.ndim - 1)), owner)[:1]
        points = points.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self.scores(points, owner).sum(), points)[0]

    def check_gradient(self) -> None:
        """Central differences along random directions agree with autograd, whose word is taken from here on."""
        generator = torch.Generator().manual_seed(5)
        for owner, (image, gradient) in enumerate(zip(self.images, self["gradient"], strict=True)):
            for _ in range(2):
                way = (
                    torch.randn(image.shape, generator=generator, dtype=torch.float64)
                    * gradient.norm().sign()
                )
                way = way / way.norm() + gradient / gradient.norm()
                step = 1e-6 * float(image.abs().max())
                with torch.no_grad():
                    ahead, behind = self.scores(torch.stack([image + step * way, image - step * way]), owner)
                slope = float((ahead - behind) / (2 * step))
                torch.testing.assert_close(slope, float((gradient * way).sum()), rtol=1e-3, atol=1e-9)

    def sensitivity(self, name: str) -> float:
        """How far the map moves if the rounding of float32 moves what stands below, a fraction of its largest value.

        The images; the weights, since a layer into which a normalisation is folded rounds otherwise; and what comes to
        max pools, of which each may take another one of equal values.
        """
        found, generator = self[name], torch.Generator().manual_seed(6)
        moved = 0.0
        for _ in range(4):
            model = copy.deepcopy(self.model)
            for weight in model.parameters():
                weight.data *= 1 + 1e-6 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
            other = Reference(model, self.given, self.target, self.pick, self.patch, self.bounds)
            noise = torch.randn(self.images.shape, generator=generator, dtype=torch.float64)
            other.images = self.images * (1 + 1e-6 * noise)
            with _Ties(generator):
                moved_map = other[name]
            moved = max(moved, float((moved_map - found).abs().max() / found.abs().max()))
        return moved

    @cached_property
    def layer(self) -> str:
        """The layer that methods of layers take."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return default_layer(Network(self.model, self.images[:1], output=self.pick))

    @cached_property
    def _maps(self) -> dict[str, Tensor]:
        return {}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._maps:
            maps = [METHODS[name](self, i, image) for i, image in enumerate(self.images)]
            self._maps[name] = torch.stack(maps).detach()
        return self._maps[name]

    def __contains__(self, name: str) -> bool:
        return name in METHODS


def gradient(of: Reference, owner: int, image: Tensor) -> Tensor:
    return of.gradient_at(image[None], owner)[0]


def input_x_gradient(of: Reference, owner: int, image: Tensor) -> Tensor:
    return image * of["gradient"][owner]


def integrated_gradients(of: Reference, owner: int, image: Tensor) -> Tensor:
    nodes, weights = np.polynomial.legendre.leggauss(STEPS)
    points = torch.stack([image * (node + 1) / 2 for node in nodes])
    shares = torch.from_numpy(weights / 2).view(-1, *[1] * image.ndim)
    return image * (shares * of.gradient_at(points, owner)).sum(0)


def expected_gradients(of: Reference, owner: int, image: Tensor) -> Tensor:
    """The images are the references."""
    generator = torch.Generator().manual_seed(seed_of(of.given[owner], 0) + 1)
    chosen = torch.randint(len(of.images), (STEPS,), generator=generator)
    position = torch.rand(STEPS, generator=generator).double().view(-1, *[1] * image.ndim)
    ways = image - of.images[chosen]
    return (ways * of.gradient_at(of.images[chosen] + position * ways, owner)).mean(0)


def blur_integrated_gradients(of: Reference, owner: int, image: Tensor) -> Tensor:
    sigmas = np.linspace(50 / 224 * max(image.shape[1:]), 0, 2 * STEPS + 1)
    seen = torch.stack([_blurred(image, sigma) for sigma in sigmas])
    return (seen[2::2] - seen[:-2:2]).mul(of.gradient_at(seen[1::2], owner)).sum(0)


def _blurred(image: Tensor, sigma: float) -> Tensor:
    if sigma == 0:
        return image
    return torch.from_numpy(
        np.stack([gaussian_filter(axis, sigma, mode="constant") for axis in image.numpy()])
    )


def idgi(of: Reference, owner: int, image: Tensor) -> Tensor:
    start = dim(of.images)
    points = torch.stack([start + (image - start) * i / STEPS for i in range(STEPS + 1)])
    with torch.no_grad():
        changes = of.scores(points, owner).diff()
    total = torch.zeros_like(image)
    for change, slope in zip(changes, of.gradient_at(points[:-1], owner), strict=True):
        if slope.any():
            total += change * slope**2 / (slope**2).sum()
    return total


def guided_integrated_gradients(of: Reference, owner: int, image: Tensor) -> Tensor:
    """The code of PAIR's saliency 0.2.1, which is the paper's algorithm 1, in torch and without its checks."""
    end, start = image.flatten(), dim(of.images).flatten()
    x, total, way = start.clone(), torch.zeros_like(start), end - start
    for step in range(STEPS):
        slope = of.gradient_at(x.view(1, *image.shape), owner)[0].flatten()
        order, alpha = slope.abs(), (step + 1) / STEPS
        low, high = start + way * max(alpha - 0.02, 0), start + way * min(alpha + 0.02, 1)
        old, gamma = x.clone(), np.inf
        while gamma > 1:
            x = torch.where((x - start) / way < max(alpha - 0.02, 0), low, x)
            left, wanted = (x - end).abs().sum(), way.abs().sum() * (1 - alpha)
            if abs(left - wanted) < 1e-9 * max(left, wanted, 1):
                break
            order = torch.where(x == high, torch.inf, order)
            threshold = np.quantile(order.numpy(), 0.25, method="lower")
            chosen = (order <= threshold) & (order < torch.inf)
            gamma = float((left - wanted) / (x - high)[chosen].abs().sum())
            x = torch.where(chosen, x + (high - x) * gamma if gamma <= 1 else high, x)
        total += (x - old) * slope
    return total.view(image.shape)


def dim(images: Tensor) -> Tensor:
    """A baseline that is not constant: there largest values of pools would be equal, and gradients arbitrary."""
    return 0.5 * images[0].flip(-1)


def smoothgrad(of: Reference, owner: int, image: Tensor) -> Tensor:
    given = of.given[owner]
    spread = NOISE * (given.max() - given.min()).double()
    copies = []
    for draw in range(1, DRAWS + 1):
        generator = torch.Generator().manual_seed(seed_of(given, 0) + (draw << 12))
        copies.append(
            image + spread * torch.randn(given.shape, generator=generator, dtype=given.dtype).double()
        )
    return of.gradient_at(torch.stack(copies), owner).mean(0)


def regions(of: Reference, owner: int, image: Tensor) -> Tensor:
    map_, image = of["gradient"][owner, None], image[None]
    return xrai(map_, image, segments=[segments_of(of.given[owner])])[0]


def occlusion(of: Reference, owner: int, image: Tensor) -> Tensor:
    corners = torch.cartesian_prod(*[torch.arange(0, n, of.patch) for n in image.shape[1:]]).tolist()
    boxes = [(slice(None), *(slice(start, start + of.patch) for start in corner)) for corner in corners]
    hidden = image.repeat(len(boxes) + 1, *[1] * image.ndim)
    for hiding, box in zip(hidden[1:], boxes, strict=True):
        hiding[box] = 0
    with torch.no_grad():
        clean, *scores = of.scores(hidden, owner)
    result = torch.zeros_like(image)
    for box, score in zip(boxes, scores, strict=True):
        result[box] = clean - score
    return result


class _Rule(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, guided: bool) -> Tensor:
        ctx.save_for_backward(x)
        ctx.guided = guided
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, *incoming: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        positive = incoming[0].clamp(min=0)
        return (positive * (x > 0) if ctx.guided else positive), None


class _Ties(TorchFunctionMode):
    """Breaks ties among the values of which a max pool takes the largest."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if args and getattr(func, "__name__", "") in ("max_pool2d", "max_pool3d"):
            noise = torch.randn(args[0].shape, generator=self.generator, dtype=torch.float64)
            args = (args[0] * (1 + 1e-7 * noise), *args[1:])
        return func(*args, **(kwargs or {}))


class _Rectifiers(TorchFunctionMode):
    """Every ReLU that PyTorch is asked for, by whatever name, passes back what a rule says."""

    def __init__(self, guided: bool) -> None:
        super().__init__()
        self.guided, self.seen = guided, 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if (name := getattr(func, "__name__", "")) not in ("relu", "relu_"):
            return func(*args, **kwargs)
        self.seen += 1
        x, *rest = (*args, *([kwargs.pop("input")] if "input" in kwargs else []))
        result = _Rule.apply(x.clone(), self.guided)
        return x.copy_(result) if name == "relu_" or rest == [True] or kwargs.get("inplace") else result


def _rectified(guided: bool) -> Callable[[Reference, int, Tensor], Tensor]:
    def map_of(of: Reference, owner: int, image: Tensor) -> Tensor:
        with _Rectifiers(guided) as mode:
            found = of.gradient_at(image[None], owner)[0]
        if mode.seen == 0:
            raise NoReference("no ReLU")
        return found

    return map_of


def _relevance(rule: str) -> Callable[[Reference, int, Tensor], Tensor]:
    def map_of(of: Reference, owner: int, image: Tensor) -> Tensor:
        return relevance(lambda x: of.scores(x, owner), image[None], rule, of.bounds)[0]

    return map_of


def _saliency(of: Reference, owner: int, image: Tensor) -> Tensor:
    return of["gradient"][owner].abs()


class _Rescale(torch.autograd.Function):
    """Passes back the change of an activation over the change of its input, between two halves of a batch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x.clone())
        ctx.function = function
        return function(x.clone())

    @staticmethod
    def backward(ctx: Any, *incoming: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            value = ctx.function(leaf.clone())
            plain = torch.autograd.grad(value, leaf, incoming[0])[0]
        (a, b), (c, d) = x.chunk(2), value.detach().chunk(2)
        change = torch.cat(2 * [a - b])
        return torch.where(change.abs() < 1e-10, plain, incoming[0] * torch.cat(2 * [c - d]) / change), None


class _Largest(torch.autograd.Function):
    """captum's rule of max pooling, which is defined in its code only."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, size: Any, stride: Any, padding: Any, dilation: Any, ceil: bool
    ) -> Tensor:
        pool = getattr(nn.functional, f"max_pool{x.ndim - 2}d")
        value, indices = pool(x, size, stride, padding, dilation, ceil, return_indices=True)
        ctx.save_for_backward(x.clone(), value.clone(), indices)
        return value

    @staticmethod
    def backward(ctx: Any, *incoming: Tensor) -> Any:
        x, value, indices = ctx.saved_tensors
        (a, b), (c, d) = x.chunk(2), value.chunk(2)
        most = torch.max(c, d)
        sent = incoming[0] * torch.cat([most - d, c - most])
        back = torch.zeros_like(x).flatten(2).scatter_add_(2, indices.flatten(2), sent.flatten(2)).view_as(x)
        change = a - b
        share = torch.where(change.abs() < 1e-10, 0.0, sum(back.chunk(2)) / change)
        return torch.cat([share, share]), None, None, None, None, None


_ACTIVATIONS = (
    "relu relu_ leaky_relu prelu elu gelu silu mish hardswish tanh sigmoid softplus hardtanh relu6 clamp clamp_min "
    "threshold softshrink abs"
)


class _Rules(TorchFunctionMode):
    """DeepLift's rules for activations and max pools, whatever they are called by."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "").removeprefix("_")
        if name in _ACTIVATIONS.split():
            in_place = (
                name == "relu_" or bool(kwargs.get("inplace")) or (name == "relu" and args[1:] == (True,))
            )
            result = _Rescale.apply(args[0].clone(), lambda x: func(x, *args[1:], **kwargs))
            return args[0].copy_(result) if in_place else result
        if name in ("max_pool2d", "max_pool3d"):
            names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
            defaults = {"stride": None, "padding": 0, "dilation": 1, "ceil_mode": False}
            given = {**defaults, **dict(zip(names, args, strict=False)), **kwargs}
            return _Largest.apply(*[given[key] for key in names])
        return func(*args, **kwargs)


def deep_lift(of: Reference, owner: int, image: Tensor) -> Tensor:
    """Taken for right if it sums to the change of the output."""
    start = dim(of.images)
    if not of._together:
        raise NoReference("images depend on one another")
    pair = torch.stack([image, start]).requires_grad_()
    with torch.enable_grad(), _Rules():
        scores = of.scores(pair, owner)
    found = torch.autograd.grad(scores.sum(), pair)[0][0] * (image - start)
    change = float((scores[0] - scores[1]).detach())
    if abs(float(found.sum()) - change) > 1e-6 * float(found.abs().sum()):
        raise NoReference(
            "DeepLift with rules for activations and max pools does not sum to the change of the output"
        )
    return found


class _Attention(TorchFunctionMode):
    """Keeps the attention matrices (batch, head, token, token) of all layers."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "multi_head_attention_forward":
            seen = func(*args, **{**kwargs, "need_weights": True, "average_attn_weights": False})
            self.found.append(seen[1])
            return seen
        result = func(*args, **kwargs)
        if name == "scaled_dot_product_attention":
            q, k = args[:2]
            self.found.append((q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1))
        if name == "softmax" and result.ndim == 4 and result.shape[-1] == result.shape[-2]:
            self.found.append(result)
        return result


def attention_rollout(of: Reference, owner: int, image: Tensor) -> Tensor:
    """Of images and grids with sides of one length, to the class token or else to all tokens."""
    with _Attention() as mode, torch.enable_grad():
        of.scores(image[None].clone().requires_grad_(), owner)
    flow = torch.eye(mode.found[0].shape[-1], dtype=torch.float64) if mode.found else None
    if flow is None:
        raise NoReference("no attention")
    for attention in mode.found:
        mixed = attention[0].detach().mean(0) + torch.eye(len(flow))
        flow = mixed / mixed.sum(1, keepdim=True) @ flow
    axes = image.ndim - 1
    side = int(len(flow) ** (1 / axes) + 1e-9)
    others = len(flow) - side**axes
    seen = (flow[:others] if others else flow).mean(0)[others:].reshape(1, 1, *[side] * axes)
    mode_ = {2: "bilinear", 3: "trilinear"}[axes]
    return nn.functional.interpolate(seen, size=image.shape[1:], mode=mode_)[0].expand_as(image)


CELL = 6
"""Voxels of a cell of an optimised mask along each axis."""


def _enlarged(cells: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Cells joined by straight lines between their middles."""
    for axis, n in enumerate(shape):
        middles, places = CELL * (np.arange(cells.shape[axis]) + 0.5), np.arange(n) + 0.5
        lines = [np.interp(places, middles, unit) for unit in np.eye(cells.shape[axis])]
        cells = torch.tensordot(cells, torch.from_numpy(np.stack(lines)), ([axis], [0])).movedim(-1, axis)
    return cells


def _hidden(of: Reference, owner: int, image: Tensor, area: float | None) -> Tensor:
    """Some steps of Adam by hand, from `dim` below; the best of them, or, with an area, the last."""
    below, shape = dim(of.images), tuple(image.shape[1:])

    def outputs(mask: Tensor) -> Tensor:
        return of._outputs((below + mask * (image - below))[None].repeat(2, *[1] * image.ndim))[0]

    with torch.no_grad():
        low, high = outputs(torch.zeros(())), outputs(torch.ones(()))

    def score(mask: Tensor) -> Tensor:
        if of.target is None:
            return ((outputs(mask) - low) / (high - low).abs())[0]
        return outputs(mask).softmax(0)[of.target[owner]]

    cells = torch.ones([-(-n // CELL) for n in shape], dtype=torch.float64)
    first, second, seen = torch.zeros_like(cells), torch.zeros_like(cells), []
    hidden = max(round((area or 0) * cells.numel()), 1)
    for step in range(STEPS + 1):
        leaf = cells.clone().requires_grad_()
        with torch.enable_grad():
            found = score(_enlarged(leaf, shape))
        slope = torch.autograd.grad(found, leaf)[0]
        seen.append((float(found.detach()), cells))
        if area is not None:
            order = sorted(
                range(cells.numel()),
                key=lambda i: (round(float(cells.flatten()[i]) * 1e4), -float(slope.flatten()[i])),
            )
            wanted = torch.ones_like(cells).flatten()
            wanted[order[:hidden]] = 0
            slope = slope + 1e5 ** (step / STEPS) * 2 * (cells - wanted.view_as(cells)) / cells.numel()
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        move = first / (1 - 0.9 ** (step + 1)) / ((second / (1 - 0.999 ** (step + 1))).sqrt() + 1e-12)
        cells = (cells - (0.1 if area is None else 0.05) * move).clamp(0, 1)
    best = min(seen, key=lambda pair: pair[0])[1] if area is None else seen[-1][1]
    return (1 - _enlarged(best, shape)).expand_as(image)


def meaningful_perturbation(of: Reference, owner: int, image: Tensor) -> Tensor:
    """Without penalties, which would outweigh the answers of networks that know nothing."""
    return _hidden(of, owner, image, None)


def extremal_perturbation(of: Reference, owner: int, image: Tensor) -> Tensor:
    return _hidden(of, owner, image, 0.2)


def at_layer(of: Reference, owner: int, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Activations of the default layer, the derivatives of the output with respect to them, and the output.

    Of two equal images, for the sake of batch normalisation, as in `Reference.gradient_at`.
    """
    kept = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        kept.append(output.clone().requires_grad_())
        return kept[-1].clone()

    points = torch.stack([image, image] if of._together else [image])
    with of.model.get_submodule(of.layer).register_forward_hook(keep), torch.enable_grad():
        scores = of.scores(points, owner)
    (gradients,) = torch.autograd.grad(scores.sum(), kept)
    return kept[0].detach()[0], gradients[0], scores.detach()[0]


def on_the_grid(cells: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Straight lines between the middles of cells, constant beyond the outermost, one axis after the other."""
    values = cells.numpy()
    for axis, n in enumerate(shape):
        old = values.shape[axis]
        places, middles = (np.arange(n) + 0.5) * old / n, np.arange(old) + 0.5
        values = np.apply_along_axis(lambda line: np.interp(places, middles, line), axis, values)  # noqa: B023
    return torch.from_numpy(values)


def _cam(of_cells: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[[Reference, int, Tensor], Tensor]:
    """Map of the sum over channels of what a function gives for activations, gradients and output."""

    def map_of(of: Reference, owner: int, image: Tensor) -> Tensor:
        cells = of_cells(*at_layer(of, owner, image)).sum(0).clamp(min=0)
        return on_the_grid(cells, tuple(image.shape[1:])).expand_as(image)

    return map_of


def grad_cam_cells(activations: Tensor, gradients: Tensor, output: Tensor) -> Tensor:
    """Selvaraju et al. 2017, equations 1 and 2, a channel at a time."""
    return torch.stack([a * g.sum() / g.numel() for a, g in zip(activations, gradients, strict=True)])


def grad_cam_plus_plus_cells(activations: Tensor, gradients: Tensor, output: Tensor) -> Tensor:
    """Chattopadhay et al. 2018, equations 5 and 19 of Y = exp(output), a channel at a time; over Y in the end."""
    y, sums = output.clamp(-50, 50).exp(), []
    for a, g in zip(activations, gradients, strict=True):
        first, second, third = y * g, y * g**2, y * g**3
        below = 2 * second + a.sum() * third
        alpha = torch.where(below != 0, second / torch.where(below != 0, below, 1), 0)
        sums.append((alpha * first.clamp(min=0)).sum() * a / y)
    return torch.stack(sums)


def layer_cam_cells(activations: Tensor, gradients: Tensor, output: Tensor) -> Tensor:
    """Jiang et al. 2021, equations 5 and 6."""
    return torch.where(gradients > 0, gradients, 0) * activations


def guided_grad_cam(of: Reference, owner: int, image: Tensor) -> Tensor:
    """Selvaraju et al. 2017, section 3.2."""
    return METHODS["guided_backprop"](of, owner, image) * METHODS["grad_cam"](of, owner, image)


METHODS: Mapping[str, Callable[[Reference, int, Tensor], Tensor]] = {
    "gradient": gradient,
    "input_x_gradient": input_x_gradient,
    "integrated_gradients": integrated_gradients,
    "expected_gradients": expected_gradients,
    "blur_integrated_gradients": blur_integrated_gradients,
    "idgi[dim]": idgi,
    "guided_integrated_gradients[dim]": guided_integrated_gradients,
    "gradient+smoothgrad": smoothgrad,
    "gradient@xrai": regions,
    "occlusion": occlusion,
    "meaningful_perturbation[dim]": meaningful_perturbation,
    "extremal_perturbation[0.2]": extremal_perturbation,
    "deconvolution": _rectified(False),
    "guided_backprop": _rectified(True),
    "lrp[epsilon]": _relevance("epsilon"),
    "lrp[gamma]": _relevance("gamma"),
    "lrp[alpha1_beta0]": _relevance("alpha1_beta0"),
    "lrp[epsilon_plus_flat]": _relevance("epsilon_plus_flat"),
    "lrp[epsilon_gamma_box]": _relevance("epsilon_gamma_box"),
    "deep_taylor": _relevance("deep_taylor"),
    "attention_rollout": attention_rollout,
    "grad_cam": _cam(grad_cam_cells),
    "grad_cam_plus_plus": _cam(grad_cam_plus_plus_cells),
    "layer_cam": _cam(layer_cam_cells),
    "guided_grad_cam": guided_grad_cam,
    "captum.Saliency": _saliency,
    "captum.InputXGradient": input_x_gradient,
    "captum.DeepLift": deep_lift,
    "captum.GuidedBackprop": _rectified(True),
    "captum.Deconvolution": _rectified(False),
    "captum.Occlusion": occlusion,
}
"""The reference of each column."""

_SEGMENTS: dict[bytes, Segments] = {}


def segments_of(image: Tensor) -> Segments:
    """XRAI's regions of an image, made once for all networks that see it."""
    from xaitools.attribution.xrai import segment

    key = image.double().numpy().tobytes()
    if key not in _SEGMENTS:
        _SEGMENTS[key] = segment(image.double().mean(0).numpy())
    return _SEGMENTS[key]
