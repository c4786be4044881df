"""Batch normalisation on one thread where several are slower.

PyTorch sums channels-last images by one row of channels a thread. Where the rows do not fill whole lines of the
processor's cache, the threads write to the same lines and wait for each other: the backward pass of 8 channels
(8 x 44 x 53 x 44) took 64 ms on two threads, 10 ms on one, and that of 16 channels 14 and 25.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

_LINE = 16  # sums of float32 in a line of the cache


class NarrowNorm(TorchFunctionMode):
    """Within it, training normalises batches of channels that are no multiple of 16 on one thread, wherever it does."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if function is F.batch_norm:
            return _batch_norm(*args, **kwargs)
        return function(*args, **kwargs)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """PyTorch's function of that name, its arguments and errors."""
    if training and eps > 0 and _is_narrow(input):
        return _OnOneThread.apply(input, weight, bias, running_mean, running_var, momentum, eps)
    return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


def _is_narrow(images: Tensor) -> bool:
    """Whether these are images on the processor, channels-last, whose threads would share lines of the cache."""
    if images.ndim not in (4, 5) or images.device.type != "cpu" or torch.get_num_threads() == 1:
        return False
    last = torch.channels_last if images.ndim == 4 else torch.channels_last_3d
    is_last = images.is_contiguous(memory_format=last) and not images.is_contiguous()
    return is_last and images.shape[1] % _LINE != 0


class _OnOneThread(torch.autograd.Function):
    """PyTorch's own forward and backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
    ) -> Tensor:
        with _one_thread():
            normed, mean, inverse = torch.native_batch_norm(
                images, weight, bias, running_mean, running_var, True, momentum, eps
            )
        ctx.save_for_backward(images, weight, running_mean, running_var, mean, inverse)
        ctx.eps = eps
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, running_mean, running_var, mean, inverse = ctx.saved_tensors
        with _one_thread():
            gradients = torch.ops.aten.native_batch_norm_backward(
                gradient, images, weight, running_mean, running_var, mean, inverse, True, ctx.eps,
                ctx.needs_input_grad[:3],
            )  # fmt: skip
        return *gradients, None, None, None, None


@contextmanager
def _one_thread() -> Iterator[None]:
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(usual)
