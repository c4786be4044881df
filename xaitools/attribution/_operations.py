"""What relevance propagation does at each operation of PyTorch, by its name.

Spellings of one operation (module, function, method, operator, in place or not) come here under one name. What is not
named here has no rule.
"""

from typing import Any

import torch
from torch import Tensor

from xaitools.attribution._attention_rules import DECOMPOSITIONS, group_norm, layer_norm, rms_norm
from xaitools.attribution._lrp_rules import LayerRule, Shared, own_sign
from xaitools.attribution._run import Call, Handler, Rules, Run, tensors


def _select(run: Run, call: Call) -> Any:
    """Relevance is value times gradient."""
    return call()


def _reshape(run: Run, call: Call) -> Any:
    """Relevance goes where the values came from."""
    return call()


def _activate(run: Run, call: Call) -> Tensor:
    """All relevance passes, whatever the slope."""
    return run.share(Shared(call().detach(), [(call.args[0], 1.0)], stabilizer=0.0))


def _squash(run: Run, call: Call) -> Tensor:
    """As `_activate`; but what is not 0 for 0 has no rule where the network ends with it."""
    return run.ending(call, _activate(run, call))


def _softmax(run: Run, call: Call) -> Tensor:
    """Expanded at its input: x_i (R_i - s_i sum_j R_j), which is value times gradient."""
    if run.composite.own_sign_sums:
        return run.refused(call, _UNSIGNED)
    return run.ending(call, call())


def _average(run: Run, call: Call) -> Tensor:
    """Shares in proportion to contributions."""
    value = call()
    if not run.composite.own_sign_sums:
        return run.share(Shared(value.detach(), [(value, 1.0)]))
    x, *rest = call.args
    positive, negative = (call.run(part, *rest, **call.kwargs) for part in (x.clamp(min=0), x.clamp(max=0)))
    return run.share(Shared(value.detach(), own_sign(value.detach(), positive, negative)))


def _sum(run: Run, call: Call) -> Tensor:
    """Shares in proportion to the summands; a constant takes its share, as a bias does."""
    one, other = given = _pair(call)
    if not run.composite.own_sign_sums:
        if not (_depends(one) and _depends(other)):
            return call()
        value = call()
        return run.share(Shared(value.detach(), [(value, 1.0)]))
    value = call().detach()
    terms = [
        _with(call, [x if i == j else _zero(x) for j, x in enumerate(given)]).expand_as(value)
        for i in range(2)
        if _depends(given[i])
    ]
    positive = torch.stack([term.clamp(min=0) for term in terms]).sum(0)
    negative = torch.stack([term.clamp(max=0) for term in terms]).sum(0)
    return run.share(Shared(value, own_sign(value, positive, negative)))


def _multiply(run: Run, call: Call) -> Any:
    """Products with constants or gates pass all relevance to the other factor; of other two values each gets half."""
    one, other = _pair(call)
    if not (_depends(one) and _depends(other)):
        return call()
    if run.composite.own_sign_sums or call.step.gate is None:
        return _product(run, call, 2, one)
    return _with(call, [one.detach(), other] if call.step.gate == 0 else [one, other.detach()])


def _divide(run: Run, call: Call) -> Any:
    """What is divided by passes all relevance, its denominator none, as in a normalisation."""
    one, other = _pair(call)
    if not _depends(other):
        return call()
    if not _depends(one) or call.kwargs.get("rounding_mode"):
        return run.refused(call, "by a value that depends on the image")
    if run.is_first(one):
        return run.refused(call, "by a value that depends on the image, in front of the first layer")
    return _with(call, [one, other.detach()])


def _product(run: Run, call: Call, factors: int, x: Tensor) -> Tensor:
    """Each factor gets an equal part, shared out in proportion to contributions."""
    if run.composite.own_sign_sums:
        return run.refused(call, _UNSIGNED)
    if run.is_first(x):
        return run.refused(call, "of values that all depend on the image, in front of the first layer")
    value = call()
    return run.share(Shared(value.detach(), [(value, 1.0 / factors)]))


def _batch_norm(run: Run, call: Call) -> Tensor:
    """One that could not be merged: a diagonal layer."""
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given = call.arguments(*names)
    if given.get("training") or given["running_mean"] is None:
        return run.refused(call, "by statistics of the batch")
    return _diagonal(run, call, given)


def _instance_norm(run: Run, call: Call) -> Tensor:
    names = ("input", "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps")
    given = call.arguments(*names)
    if not given.get("use_input_stats", True):
        return _diagonal(run, call, given)
    x = call.args[0]
    return _normalise(
        run, call, group_norm(x, x.shape[1], given.get("weight"), given.get("bias"), given.get("eps", 1e-5))
    )


def _diagonal(run: Run, call: Call, given: dict[str, Any]) -> Tensor:
    """A normalisation by statistics of the training."""
    x, mean, variance = call.args[0], given["running_mean"], given["running_var"]
    if call.step.merged:
        return x.view_as(x)
    scale = (variance + given.get("eps", 1e-5)).rsqrt()
    scale = scale if given.get("weight") is None else scale * given["weight"]
    shift = -mean * scale if given.get("bias") is None else given["bias"] - mean * scale
    if run.recording:
        call.step.norm = scale, shift
    shape, rule = (1, -1, *[1] * (x.ndim - 2)), run.composite.convolution
    return run.share(rule(_scaled, x, scale.view(shape), shift.view(shape), call.step.rectified))


def _scaled(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return x * weight if bias is None else x * weight + bias


def _layer_norm(run: Run, call: Call) -> Tensor:
    return _normalise(run, call, layer_norm(*call.args, **call.kwargs))


def _rms_norm(run: Run, call: Call) -> Tensor:
    return _normalise(run, call, rms_norm(*call.args, **call.kwargs))


def _group_norm(run: Run, call: Call) -> Tensor:
    return _normalise(run, call, group_norm(*call.args, **call.kwargs))


def _normalise(run: Run, call: Call, part: Tensor) -> Tensor:
    """A normalisation by statistics of the image: as constants, they leave a linear layer, for the epsilon rule."""
    if any(_depends(tensor) for tensor in tensors((call.args[1:], call.kwargs))):
        return run.refused(call, "whose weights depend on the image")
    if run.composite.own_sign_sums:
        return run.refused(call, _UNSIGNED)
    return run.share(Shared(call().detach(), [(part, 1.0)]))


def _convolution(run: Run, call: Call) -> Tensor:
    return _layer(run, call, run.composite.convolution)


def _dense(run: Run, call: Call) -> Tensor:
    return _layer(run, call, run.composite.dense)


def _layer(run: Run, call: Call, rule: LayerRule) -> Tensor:
    """A convolution or dense layer, with the batch normalisation that is merged into it."""
    names = ("input", "weight", "bias")
    given = call.arguments(*names)
    x, weight, bias = given["input"], given["weight"], given.get("bias")
    if _depends(weight) or _depends(bias):
        return run.refused(call, "whose weights depend on the image")
    if call.step.norm is not None:
        scale, shift = call.step.norm
        weight = weight * scale.view(-1, *[1] * (weight.ndim - 1))
        bias = shift if bias is None else bias * scale + shift
    rest = {key: value for key, value in call.kwargs.items() if key not in names}
    return run.linear(call, rule, lambda x, w, b: call.run(x, w, b, *call.args[3:], **rest), x, weight, bias)


def _matmul(run: Run, call: Call) -> Tensor:
    """A dense layer, or a product of two values that depend on the image (`_product`)."""
    one, other = _pair(call)
    if _depends(one) and _depends(other):
        return _product(run, call, 2, one)
    x, weight = (one, other) if _depends(one) else (other, one)
    return run.linear(
        call,
        run.composite.dense,
        lambda x, w, _: _with(call, [x, w] if weight is other else [w, x]),
        x,
        weight,
        None,
    )


def _einsum(run: Run, call: Call) -> Tensor:
    """As `_matmul`."""
    equation, *operands = call.args
    operands = list(operands[0]) if len(operands) == 1 and not isinstance(operands[0], Tensor) else operands
    depends = [_depends(operand) for operand in operands]
    if not isinstance(equation, str):
        return run.refused(call, "of a list of axes")
    if sum(depends) > 1:
        return _product(run, call, sum(depends), operands[depends.index(True)])
    if len(operands) == 1 and not run.composite.own_sign_sums:
        value = call()
        return run.share(Shared(value.detach(), [(value, 1.0)]))
    if len(operands) != 2:
        return run.refused(call, f"of {len(operands)} operands")
    i = depends.index(True)
    return run.linear(
        call,
        run.composite.dense,
        lambda x, w, _: call.run(equation, *((x, w) if i == 0 else (w, x))),
        operands[i],
        operands[1 - i],
        None,
    )


def _addmm(run: Run, call: Call) -> Tensor:
    """A matrix product with a bias."""
    names = ("input", "batch1", "batch2") if call.name == "baddbmm" else ("input", "mat1", "mat2")
    given = call.arguments(*names)
    bias, one, other = (given.pop(name) for name in names)
    if _depends(bias) or (_depends(one) and _depends(other)) or any(factor != 1 for factor in given.values()):
        return run.refused(call, "of several values that depend on the image, or with factors")
    product = {"baddbmm": torch.bmm}.get(call.name, torch.mm)
    x, weight = (one, other) if _depends(one) else (other, one)

    def layer(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        value = product(x, w) if weight is other else product(w, x)
        return value if b is None else value + b

    return run.linear(call, run.composite.dense, layer, x, weight, bias)


def _interpolate(run: Run, call: Call) -> Tensor:
    mode = call.arguments("input", "size", "scale_factor", "mode").get("mode")
    if mode == "bicubic" and run.composite.own_sign_sums:
        return run.refused(call, "with negative weights")
    return _average(run, call)


def _depends(value: Any) -> bool:
    """Whether a value depends on the image."""
    return isinstance(value, Tensor) and value.requires_grad


def _pair(call: Call) -> tuple[Any, Any]:
    """The two values of an operation that has two."""
    if len(call.args) > 1:
        return call.args[0], call.args[1]
    return call.args[0], next(
        call.kwargs[key] for key in ("other", "mat2", "tensor2", "vec2") if key in call.kwargs
    )


def _with(call: Call, pair: list[Any]) -> Tensor:
    """The operation on other two values."""
    named = ("other", "mat2", "tensor2", "vec2") if len(call.args) < 2 else ()
    kwargs = {key: value for key, value in call.kwargs.items() if key not in named}
    return call.run(*pair, *call.args[2:], **kwargs)


def _zero(value: Any) -> Any:
    return torch.zeros_like(value) if isinstance(value, Tensor) else 0


_UNSIGNED = "under the rules of Deep Taylor, which are for positive contributions"

_SELECTIONS = (
    "relu leaky_relu prelu rrelu abs max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d "
    "adaptive_max_pool3d max_unpool1d max_unpool2d max_unpool3d amax amin max min maximum minimum fmax fmin topk sort "
    "where masked_fill gather take_along_dim"
)
_SHAPES = (
    "alpha_dropout bfloat16 broadcast_to cat channel_shuffle chunk clone concat concatenate contiguous "
    "cpu cuda diagonal double dropout dropout1d dropout2d dropout3d dsplit expand expand_as "
    "feature_alpha_dropout feature_dropout flatten flip float half hsplit hstack index_select movedim "
    "moveaxis mT narrow neg negative pad permute pixel_shuffle pixel_unshuffle positive repeat "
    "repeat_interleave reshape reshape_as roll rot90 select split split_with_sizes squeeze stack "
    "swapaxes swapdims t T tensor_split tile to transpose type type_as unbind unflatten unfold "
    "unsqueeze view view_as vsplit vstack __getitem__"
)
_SUMS = "add sub subtract rsub __rsub__"
_HANDLERS: dict[str, Handler] = {
    name: handler
    for handler, names in (
        (_dense, "linear"),
        (_convolution, "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"),
        (_matmul, "matmul mm bmm mv __rmatmul__"),
        (_einsum, "einsum"),
        (_addmm, "addmm baddbmm"),
        (_batch_norm, "batch_norm"),
        (_instance_norm, "instance_norm"),
        (_layer_norm, "layer_norm"),
        (_group_norm, "group_norm"),
        (_rms_norm, "rms_norm"),
        (_select, _SELECTIONS),
        (_reshape, _SHAPES),
        (_reshape, "__setitem__"),
        (
            _activate,
            "celu clamp clamp_max clamp_min clip elu gelu hardshrink hardswish hardtanh local_response_norm mish "
            "normalize relu6 selu silu softshrink softsign tanh tanhshrink threshold _threshold",
        ),
        (_squash, "hardsigmoid sigmoid softplus special_expit expit"),
        (_softmax, "softmax special_softmax"),
        (
            _average,
            "avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d "
            "mean sum fold",
        ),
        (_interpolate, "interpolate upsample"),
        (_sum, _SUMS),
        (_multiply, "mul multiply"),
        (_divide, "div divide true_divide"),
    )
    for name in names.split()
}
_ASKS = (
    "size dim numel nelement ndimension stride storage_offset is_contiguous is_floating_point is_complex get_device "
    "element_size __len__ __hash__ is_same_size "
    "gt lt ge le eq ne greater less greater_equal less_equal not_equal isnan isinf isfinite argmax argmin argsort "
    "new_zeros new_ones new_full new_empty new_tensor zeros_like ones_like full_like empty_like"
)

RULES = Rules(
    handlers=_HANDLERS,
    layers=frozenset({_dense, _convolution, _matmul, _einsum, _addmm}),
    views=frozenset({_reshape}),
    native=frozenset({_select}),
    scalings=frozenset(f"{_SHAPES} {_SUMS} mul multiply div divide true_divide batch_norm".split()),
    closing=frozenset({_dense, _convolution, _matmul, _einsum, _addmm, _multiply}),
    decompositions=DECOMPOSITIONS,
    asks=frozenset(_ASKS.split()),
    products=frozenset({"mul", "multiply"}),
    gates=frozenset({"sigmoid", "hardsigmoid", "expit", "special_expit"}),
    shapes=frozenset(_SHAPES.split()),
)
"""What is done at each operation."""
