"""AttnLRP (Achtibat et al. 2024, arXiv:2402.05602) against its equations, written as sums in float64."""

import math

import pytest
import timm
import torch
import torch.nn.functional as F
from monai.networks.nets import ViT
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import nn
from torchvision.models import SwinTransformer, VisionTransformer
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2

from xaitools.attribution import attribute, deep_taylor, lrp
from xaitools.attribution._attention_rules import multi_head_attention_forward, scaled_dot_product_attention
from xaitools.attribution._lrp_rules import composite
from xaitools.attribution._relevance import relevance_plan
from xaitools.attribution._stream import Batch
from xaitools.attribution.registry import Setting
from xaitools.errors import UnsupportedModelError
from xaitools.models import Network

STABILIZER = 1e-6


class Calling(nn.Module):
    """A function of the image, whose values are scored: relevance of value number k is score k times the value."""

    def __init__(self, function, scores):
        super().__init__()
        self.function, self.scores = function, scores

    def forward(self, x):
        return (self.function(x) * self.scores).flatten(1).sum(1)


def relevance_of(net, images, target=None, **options):
    rules = composite(options.pop("rule", "epsilon"), **options)
    plan = relevance_plan(Setting(Network(net, images[:1]), images, target, "rules"), rules)
    return plan.passes.run(Batch(images, target, list(range(len(images))), lambda passes: None))


def stable(z):
    return z + (STABILIZER if z >= 0 else -STABILIZER)


@pytest.fixture
def matrix():
    """Images of one channel and 4 x 3."""
    return torch.randn(2, 1, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def scores_like(values, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(values.shape[1:], generator=generator, dtype=torch.float64)


def check(function, x, slow):
    """The relevance of `x` against `slow(image, relevance of the values)`, image by image."""
    scores = scores_like(function(x))
    maps = relevance_of(Calling(function, scores), x)
    for image, found in zip(x, maps, strict=True):
        relevance = function(image[None])[0] * scores
        torch.testing.assert_close(found, slow(image, relevance), rtol=1e-4, atol=1e-6)
    return maps, (function(x) * scores).flatten(1).sum(1)


def test_softmax(matrix) -> None:
    """Equation 13: R_i = x_i (R_i - s_i sum_j R_j)."""

    def slow(image, relevance):
        found = torch.zeros_like(image)
        for row in range(4):
            s = [math.exp(v) / sum(math.exp(u) for u in image[0, row]) for v in image[0, row]]
            for i in range(3):
                total = sum(float(relevance[0, row, j]) for j in range(3))
                found[0, row, i] = image[0, row, i] * (relevance[0, row, i] - s[i] * total)
        return found

    # the product behind it passes all relevance to the softmax, once it is a constant's
    weight = torch.eye(3, dtype=torch.float64)
    maps, output = check(lambda x: x.softmax(-1) @ weight, matrix, slow)
    assert not torch.allclose(
        maps.flatten(1).sum(1), output, rtol=0.1
    )  # the constant term of the expansion keeps some


def test_a_product_of_two_values(matrix) -> None:
    """Equation 15: R_ji = sum_p A_ji V_ip R_jp / (2 O_jp), and likewise for V."""

    def slow(image, relevance):
        a, v, found = image[0], 1 - image[0].T, torch.zeros_like(image)
        for j in range(4):
            for p in range(4):
                o = sum(a[j, i] * v[i, p] for i in range(3))
                for i in range(3):
                    share = 0.5 * a[j, i] * v[i, p] / stable(o) * relevance[0, j, p]
                    found[0, j, i] += share
                    found[0, p, i] += share * -image[0, p, i] / v[i, p]  # v = 1 - x: the one takes its share
        return found

    check(lambda x: x @ (1 - x).transpose(-2, -1), matrix, slow)
    check(lambda x: torch.einsum("bcji,bcpi->bcjp", x, 1 - x), matrix, slow)


def test_an_elementwise_product_gives_each_half(matrix) -> None:
    weight = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    maps, output = check(lambda x: x * (x.sum(-1, keepdim=True) * weight), matrix, slow_product)
    torch.testing.assert_close(maps.flatten(1).sum(1), output, rtol=1e-3, atol=1e-5)


def slow_product(image, relevance):
    found = 0.5 * relevance
    for row in range(4):
        total = sum(image[0, row, i] for i in range(3))
        for i in range(3):
            found[0, row, i] += 0.5 * image[0, row, i] / stable(total) * relevance[0, row].sum()
    return found


@pytest.mark.parametrize("gate", [torch.sigmoid, F.hardsigmoid, lambda x: torch.sigmoid(x).reshape_as(x)])
def test_what_a_sigmoid_gates_takes_all(matrix, gate) -> None:
    check(lambda x: (2 * x) * gate(x.flip(-1)), matrix, lambda image, relevance: relevance)
    check(lambda x: gate(x.flip(-1)) * x, matrix, lambda image, relevance: relevance)


def test_glu_is_a_gate(matrix) -> None:
    x = torch.cat([matrix, matrix + 1], -1)

    def slow(image, relevance):
        return torch.cat([relevance, torch.zeros_like(relevance)], -1)

    check(lambda x: F.glu(x, -1), x, slow)


@pytest.mark.parametrize(
    "function", [F.gelu, F.silu, F.mish, F.hardswish, nn.GELU("tanh"), F.relu6, torch.tanh]
)
def test_activations_pass_all(matrix, function) -> None:
    """Equation 9."""
    maps, output = check(function, matrix, lambda image, relevance: relevance)
    torch.testing.assert_close(maps.flatten(1).sum(1), output, rtol=1e-4, atol=1e-6)


def slow_norm(members, gamma=1.0, beta=0.0, eps=1e-5, centred=True):
    """Proposition 3.4: sigma is a constant, so y_j = gamma_j (x_j - mean) / sigma + beta_j is linear; equation 8.

    `members` gives lists of places that are normalised together.
    """

    def slow(image, relevance):
        found = torch.zeros_like(image).flatten()
        x, r = image.flatten(), relevance.flatten()
        g, b = (torch.as_tensor(v, dtype=torch.float64).expand_as(image).flatten() for v in (gamma, beta))
        for places in members(image):
            mean = sum(x[i] for i in places) / len(places) if centred else 0.0
            sigma = math.sqrt(sum((x[i] - mean) ** 2 for i in places) / len(places) + eps)
            for j in places:
                y = g[j] * (x[j] - mean) / sigma + b[j]
                for i in places:
                    w = g[j] / sigma * ((1.0 if i == j else 0.0) - (1 / len(places) if centred else 0.0))
                    found[i] += x[i] * w / stable(y) * r[j]
        return found.reshape(image.shape)

    return slow


def rows(image):
    width = image.shape[-1]
    return [list(range(start, start + width)) for start in range(0, image.numel(), width)]


def everything(image):
    return [list(range(image.numel()))]


def test_layer_norm(matrix) -> None:
    gamma = torch.tensor([0.5, 2.0, -1.0], dtype=torch.float64)
    beta = torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)
    check(lambda x: F.layer_norm(x, (3,), gamma, beta), matrix, slow_norm(rows, gamma, beta))
    check(lambda x: F.layer_norm(x, (1, 4, 3), eps=0.1), matrix, slow_norm(everything, eps=0.1))


def test_group_and_instance_norm(matrix) -> None:
    x = torch.cat([matrix, matrix.flip(2) * 2], 1)
    gamma, beta = (
        torch.tensor([0.5, -2.0], dtype=torch.float64),
        torch.tensor([0.1, -0.2], dtype=torch.float64),
    )
    shaped = gamma[:, None, None], beta[:, None, None]
    check(lambda x: F.group_norm(x, 1, gamma, beta), x, slow_norm(everything, *shaped))
    channels = lambda image: [list(range(12)), list(range(12, 24))]  # noqa: E731
    check(lambda x: F.group_norm(x, 2, gamma, beta), x, slow_norm(channels, *shaped))
    check(lambda x: F.instance_norm(x, None, None, gamma, beta), x, slow_norm(channels, *shaped))


def test_root_mean_square_norm(matrix) -> None:
    gamma = torch.tensor([0.5, 2.0, -1.0], dtype=torch.float64)
    check(lambda x: F.rms_norm(x, (3,), gamma, 1e-3), matrix, slow_norm(rows, gamma, eps=1e-3, centred=False))
    check(lambda x: F.normalize(x, dim=-1), matrix, lambda image, relevance: relevance)


def test_by_hand_as_by_name(matrix) -> None:
    def by_hand(x):
        mean = x.mean(-1, keepdim=True)
        return (x - mean) / torch.sqrt((x - mean).pow(2).mean(-1, keepdim=True) + 1e-5)

    scores = scores_like(matrix)
    one, other = (
        relevance_of(Calling(f, scores), matrix) for f in (by_hand, lambda x: F.layer_norm(x, (3,)))
    )
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", [None, "bool", "float"])
def test_attention_as_pytorch_computes_it(causal, mask) -> None:
    if causal and mask:
        return
    q, k, v = torch.randn(3, 2, 4, 5, 8, dtype=torch.float64)
    masks = {"bool": torch.rand(5, 5) < 0.7, "float": torch.randn(5, 5, dtype=torch.float64), None: None}
    given = masks[mask]
    if mask == "bool":
        given |= torch.eye(5, dtype=torch.bool)
    expected = F.scaled_dot_product_attention(q, k, v, given, is_causal=causal, scale=0.3)
    found = scaled_dot_product_attention(q, k, v, given, is_causal=causal, scale=0.3)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("unbatched", [False, True])
@pytest.mark.parametrize("masked", ["", "bool", "float", "heads", "padding"])
@pytest.mark.parametrize("separate", [False, True])
def test_multi_head_attention_as_pytorch_computes_it(separate, masked, unbatched, monkeypatch) -> None:
    sizes = {"kdim": 6, "vdim": 7} if separate else {}
    layer = nn.MultiheadAttention(8, 2, **sizes).double().eval()
    nn.init.normal_(layer.out_proj.bias)
    if layer.in_proj_bias is not None:
        nn.init.normal_(layer.in_proj_bias)
    batch = () if unbatched else (3,)
    sides = ((5, 8), (4, sizes.get("kdim", 8)), (4, sizes.get("vdim", 8)))
    q, k, v = (torch.randn(length, *batch, n, dtype=torch.float64) for length, n in sides)
    masks = {
        "bool": {"attn_mask": torch.eye(5, 4, dtype=torch.bool)},
        "float": {"attn_mask": torch.randn(5, 4, dtype=torch.float64)},
        "heads": {"attn_mask": torch.randn(2 if unbatched else 6, 5, 4, dtype=torch.float64)},
        "padding": {"key_padding_mask": torch.tensor([False, True, False, False]).expand(*batch, 4)},
        "": {},
    }[masked]
    expected = layer(q, k, v, **masks)
    monkeypatch.setattr(F, "multi_head_attention_forward", multi_head_attention_forward)
    found = layer(q, k, v, **masks)
    torch.testing.assert_close(found, expected)


class Half(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient / 2


class PlainViT(nn.Module):
    """A vision transformer; `ruled`, its gradient times the image is AttnLRP for a vanishing epsilon.

    The authors' own reading of their rules (their "efficient" implementation): halve the gradient behind products, pass
    activations by secants, hold denominators fixed.
    """

    def __init__(self, ruled):
        super().__init__()
        self.ruled = ruled
        self.patches, self.token = nn.Conv2d(1, 8, 4, 4), nn.Parameter(torch.randn(1, 1, 8))
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(5))
        self.qkv = nn.ModuleList(nn.Linear(8, 24) for _ in range(2))
        self.out = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))
        self.wide = nn.ModuleList(nn.Linear(8, 16) for _ in range(2))
        self.thin = nn.ModuleList(nn.Linear(16, 8) for _ in range(2))
        self.head = nn.Linear(8, 3)

    def product(self, a, b):
        return Half.apply(a @ b) if self.ruled else a @ b

    def norm(self, i, x):
        layer = self.norms[i]
        if not self.ruled:
            return layer(x)
        centred = x - x.mean(-1, keepdim=True)
        return (
            centred / (centred.square().mean(-1, keepdim=True) + layer.eps).sqrt().detach() * layer.weight
            + layer.bias
        )

    def gelu(self, x):
        return x * (F.gelu(x) / x).detach() if self.ruled else F.gelu(x)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        for i in range(2):
            q, k, v = self.qkv[i](self.norm(2 * i, x)).chunk(3, -1)
            q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in (q, k, v))
            attention = (self.product(q, k.transpose(-2, -1)) / 2).softmax(-1)
            x = x + self.out[i](self.product(attention, v).transpose(1, 2).flatten(2))
            x = x + self.thin[i](self.gelu(self.wide[i](self.norm(2 * i + 1, x))))
        return self.head(self.norm(4, x)[:, 0])


@pytest.fixture
def slices():
    return torch.randn(2, 1, 8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_a_vision_transformer_is_as_its_authors_compute_it(slices) -> None:
    torch.manual_seed(1)
    plain, ruled = PlainViT(False).double(), PlainViT(True).double()
    ruled.load_state_dict(plain.state_dict())
    torch.testing.assert_close(ruled(slices), plain(slices))
    target = torch.tensor([2, 0])
    x = slices.clone().requires_grad_()
    ruled(x).gather(1, target[:, None]).sum().backward()
    expected = x.grad * slices
    found = lrp(plain, slices, target, epsilon=1e-12)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


def test_relevance_is_conserved_but_for_the_constants_of_softmax(slices) -> None:
    """Without biases, and without softmax, all products, norms and activations hand on what they get."""

    class Linear(PlainViT):
        def forward(self, x):
            x = self.patches(x).flatten(2).transpose(1, 2)
            for i in range(2):
                q, k, v = self.qkv[i](self.norms[2 * i](x)).chunk(3, -1)
                x = x + self.out[i]((q @ k.transpose(-2, -1)) @ v)
                x = x + self.thin[i](F.gelu(self.wide[i](self.norms[2 * i + 1](x))))
            return self.head(self.norms[4](x).mean(1))

    torch.manual_seed(2)
    net = Linear(False).double()
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            parameter.data.zero_()
    maps = lrp(net, slices, 1, epsilon=1e-9)
    torch.testing.assert_close(maps.flatten(1).sum(1), net(slices)[:, 1].detach(), rtol=1e-2, atol=1e-4)


def test_what_softmax_keeps_is_its_expansions_constant() -> None:
    """A layer of attention by itself: output = relevance of the image + sum_i (s_i - (J x)_i) relevance's signal."""
    torch.manual_seed(3)
    x = torch.randn(1, 1, 3, 3, dtype=torch.float64)
    value = torch.randn(3, 2, dtype=torch.float64)
    maps = relevance_of(Calling(lambda x: x.softmax(-1) @ value, torch.ones(2, dtype=torch.float64)), x)
    s = x.softmax(-1)
    constant = s - s * (x - (s * x).sum(-1, keepdim=True))
    torch.testing.assert_close(maps.sum() + (constant @ value).sum(), (s @ value).sum(), rtol=1e-4, atol=1e-5)


class First(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)[0]


NETWORKS = {
    "torchvision ViT": (lambda: VisionTransformer(16, 8, 2, 2, 16, 32, num_classes=3), (3, 16, 16)),
    "torchvision Swin": (
        lambda: SwinTransformer([2, 2], 8, [2, 2], [2, 2], [4, 4], num_classes=3), (3, 16, 16)),
    "torchvision Swin v2": (
        lambda: SwinTransformer(
            [2, 2], 8, [2], [2], [4, 4], num_classes=3, block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2
        ), (3, 16, 16)),
    "timm ViT": (
        lambda: TimmViT(img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2, num_classes=3), (3, 16, 16)),
    "timm Swin": (
        lambda: timm.models.swin_transformer.SwinTransformer(
            img_size=16, patch_size=2, embed_dim=8, depths=(2, 2), num_heads=(2, 2), window_size=4, num_classes=3
        ), (3, 16, 16)),
    "timm ConvNeXt": (
        lambda: timm.models.convnext.ConvNeXt(depths=(1,) * 4, dims=(8,) * 4, num_classes=3), (3, 32, 32)),
    "MONAI ViT": (
        lambda: First(ViT(1, (8, 8, 8), (4, 4, 4), 12, 16, 2, 2, num_classes=3, classification=True, spatial_dims=3)),
        (1, 8, 8, 8)),
    "encoder layers": (
        lambda: nn.Sequential(
            nn.Flatten(2), nn.Linear(64, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Flatten(),
            nn.Linear(24, 3),
        ), (3, 8, 8)),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_that_people_bring(name) -> None:
    """They have a map, and no image's depends on another."""
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    net = make().double().eval()
    for parameter in net.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    x = torch.rand(3, *shape, dtype=torch.float64)
    network = Network(net, x[:1])
    found = attribute(network, x, [2, 0, 1], ["lrp[epsilon_gamma_box]"])
    maps = found["lrp[epsilon_gamma_box]"]
    assert torch.isfinite(found.relevance_gap["lrp[epsilon_gamma_box]"]).all()
    assert maps.flatten(1).any(1).all()
    alone = lrp(network, x[1:2], 0, rule="epsilon_gamma_box")
    torch.testing.assert_close(maps[1:2], alone, rtol=1e-3, atol=1e-4 * float(alone.abs().max()))


def test_deep_taylor_has_no_rule_for_attention(slices) -> None:
    with pytest.raises(UnsupportedModelError, match=r"under the rules of Deep Taylor.*in layer 'norms.4'"):
        deep_taylor(PlainViT(False).double(), slices, 1, low=-5.0, high=5.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"add_zero_attn": True}, "with keys or values of its own"), ({"add_bias_kv": True}, "own")],
)
def test_attention_to_what_is_no_token(options, message) -> None:
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.MultiheadAttention(4, 2, batch_first=True, **options)

        def forward(self, x):
            return self.layer(x[:, 0], x[:, 0], x[:, 0])[0].mean((1, 2))

    with pytest.raises(UnsupportedModelError, match=f"{message}.* in layer 'layer'"):
        relevance_of(Attending().eval(), torch.rand(1, 1, 3, 4))
