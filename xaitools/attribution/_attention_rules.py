"""Attention written as the operations that have rules; and what it is normalised by, as constants.

The rules of AttnLRP (Achtibat et al. 2024, arXiv:2402.05602) are those of its parts: a product of two values gives each
half (equation 15), softmax is expanded at its input (equation 13), normalisation passes nothing through its denominator
(proposition 3.4).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(q k^T / sqrt(d) + mask) v, as PyTorch's function of that name."""
    if dropout_p:
        raise NotImplementedError("with dropout")
    if enable_gqa:
        key, value = (x.repeat_interleave(query.shape[-3] // x.shape[-3], -3) for x in (key, value))
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if attn_mask is not None:
        scores = scores + _added(attn_mask, scores, keep=True)
    return scores.softmax(-1) @ value


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """What `torch.nn.MultiheadAttention` does, of (token, batch, feature)."""
    if (
        bias_k is not None
        or bias_v is not None
        or add_zero_attn
        or static_k is not None
        or static_v is not None
    ):
        raise NotImplementedError("with keys or values of its own")
    if training and dropout_p:
        raise NotImplementedError("with dropout")
    if query.dim() == 2:
        query, key, value = (x.unsqueeze(1) for x in (query, key, value))
        if key_padding_mask is not None:
            key_padding_mask = key_padding_mask.unsqueeze(0)
        unbatched = True
    else:
        unbatched = False
    length, batch, features = query.shape
    if use_separate_proj_weight:
        weights: Any = (q_proj_weight, k_proj_weight, v_proj_weight)
    else:
        assert in_proj_weight is not None
        weights = in_proj_weight.chunk(3)
    biases: Any = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
    q, k, v = (
        F.linear(x, weight, bias).reshape(len(x), batch, num_heads, -1).permute(1, 2, 0, 3)
        for x, weight, bias in zip((query, key, value), weights, biases, strict=True)
    )
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if attn_mask is not None:
        if attn_mask.dim() == 3:
            attn_mask = attn_mask.view(batch, num_heads, length, -1)
        scores = scores + _added(attn_mask, scores, keep=False)
    if key_padding_mask is not None:
        scores = scores + _added(key_padding_mask[:, None, None], scores, keep=False)
    attention = scores.softmax(-1)
    out = (attention @ v).permute(2, 0, 1, 3).reshape(length, batch, features)
    out = F.linear(out, out_proj_weight, out_proj_bias)
    seen = attention.mean(1) if average_attn_weights else attention
    if unbatched:
        return out.squeeze(1), seen.squeeze(0) if need_weights else None
    return out, seen if need_weights else None


def _added(mask: Tensor, scores: Tensor, keep: bool) -> Tensor:
    """What a mask adds to the scores; one of booleans is True where they are kept, or where not."""
    if mask.dtype != torch.bool:
        return mask
    left_out = ~mask if keep else mask
    return torch.zeros_like(mask, dtype=scores.dtype).masked_fill(left_out, float("-inf"))


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """One half, gated by the sigmoid of the other."""
    value, gate = input.chunk(2, dim)
    return value * gate.sigmoid()


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Layer normalisation whose standard deviation is a constant."""
    axes = tuple(range(-len(normalized_shape), 0))
    deviation = (input.var(axes, unbiased=False, keepdim=True) + eps).sqrt().detach()
    return _affine((input - input.mean(axes, keepdim=True)) / deviation, weight, bias)


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Root mean square normalisation whose denominator is a constant."""
    axes = tuple(range(-len(normalized_shape), 0))
    square = input.square().mean(axes, keepdim=True) + (torch.finfo(input.dtype).eps if eps is None else eps)
    return _affine(input / square.sqrt().detach(), weight, None)


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor:
    """Group normalisation, instance normalisation with a channel a group, whose standard deviation is a constant."""
    groups = input.reshape(len(input), num_groups, -1)
    normalised = layer_norm(groups, groups.shape[-1:], eps=eps).reshape(input.shape)
    shape = (-1, *[1] * (input.ndim - 2))
    return _affine(normalised, *(None if tensor is None else tensor.view(shape) for tensor in (weight, bias)))


def _affine(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


DECOMPOSITIONS: dict[str, Callable[..., Any]] = {
    "scaled_dot_product_attention": scaled_dot_product_attention,
    "multi_head_attention_forward": multi_head_attention_forward,
    "glu": glu,
}
