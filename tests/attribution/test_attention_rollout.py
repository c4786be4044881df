"""Attention rollout against Abnar and Zuidema 2020, section 3, in loops and float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.networks.nets import ViT
from timm.models.vision_transformer import VisionTransformer as TimmViT
from torch import nn
from torchvision.models import SwinTransformer

from xaitools.attribution import METHODS, attention_rollout
from xaitools.attribution.attention_rollout import rolled_out
from xaitools.errors import TargetError, UnsupportedModelError
from xaitools.models import Network


class Transformer(nn.Module):
    """Two layers of attention among patches, read at a class token or on average."""

    def __init__(self, axes=2, token=True, fused=False):
        super().__init__()
        self.token, self.fused = token, fused
        self.patches = (nn.Conv2d if axes == 2 else nn.Conv3d)(1, 8, 4, 4)
        self.first, self.qkv = (
            nn.Parameter(torch.randn(1, 1, 8)),
            nn.ModuleList(nn.Linear(8, 24) for _ in range(2)),
        )
        self.head = nn.Linear(8, 3)

    def tokens(self, x):
        """What the layers attend to, and the last tokens."""
        x, seen = self.patches(x).flatten(2).transpose(1, 2), []
        if self.token:
            x = torch.cat([self.first.expand(len(x), -1, -1), x], 1)
        for layer in self.qkv:
            q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in (4 * layer(x)).chunk(3, -1))
            weights = (q @ k.transpose(-2, -1) / 2).softmax(-1) if not self.fused else None
            seen.append(weights)
            found = F.scaled_dot_product_attention(q, k, v) if self.fused else weights @ v
            x = x + found.transpose(1, 2).flatten(2)
        return seen, x

    def forward(self, x):
        x = self.tokens(x)[1]
        return self.head(x[:, 0] if self.token else x.mean(1))


def slow_rollout(matrices, row):
    """Attention of one image: (head, token, token) a layer."""
    flow = np.eye(matrices[0].shape[-1])
    for heads in matrices:
        layer = heads.numpy().mean(0)
        n = len(layer)
        with_identity = np.array([[layer[i, j] + (i == j) for j in range(n)] for i in range(n)])
        with_identity = np.array([r / r.sum() for r in with_identity])
        flow = np.array(
            [[sum(with_identity[i, k] * flow[k, j] for k in range(n)) for j in range(n)] for i in range(n)]
        )
    return flow.mean(0) if row is None else flow[row]


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("token", [True, False])
def test_equals_the_product_of_the_layers(axes, token) -> None:
    torch.manual_seed(0)
    net = Transformer(axes, token).double()
    shape = (8, 12, 8)[:axes]
    x = torch.randn(2, 1, *shape, dtype=torch.float64)
    seen = [layer.detach() for layer in net.tokens(x)[0]]
    maps = attention_rollout(net, x, 0)
    assert maps.shape == x.shape
    mode = "bilinear" if axes == 2 else "trilinear"
    for i in range(2):
        flow = slow_rollout([layer[i] for layer in seen], 0 if token else None)
        np.testing.assert_allclose(flow.sum(), 1)
        patches = torch.from_numpy(flow[1 if token else 0 :]).reshape(1, 1, *(n // 4 for n in shape))
        torch.testing.assert_close(maps[i : i + 1], F.interpolate(patches, shape, mode=mode))
    assert maps.amax() > 1.2 * maps.amin()


def test_attention_inside_of_functions_and_modules_is_seen() -> None:
    torch.manual_seed(0)
    net, fused = Transformer(), Transformer(fused=True)
    fused.load_state_dict(net.state_dict())
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(attention_rollout(net, x, 0), attention_rollout(fused, x, 0))


def test_it_does_not_depend_on_the_target_but_asks_for_one() -> None:
    torch.manual_seed(0)
    net, x = Transformer(), torch.randn(2, 1, 8, 8)
    assert torch.equal(attention_rollout(net, x, 0), attention_rollout(net, x, 2))
    with pytest.raises(TargetError):
        attention_rollout(net, x, 3)


def test_rows_sum_to_one() -> None:
    layers = [torch.rand(2, 3, 5, 5).softmax(-1) for _ in range(4)]
    torch.testing.assert_close(rolled_out(layers).sum(-1), torch.ones(2, 5))


class Logits(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)[0]


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_timm(pool) -> None:
    net = TimmViT(
        img_size=16, patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=3, global_pool=pool
    )
    maps = attention_rollout(net.eval(), torch.rand(2, 3, 16, 16), 0)
    assert torch.equal(maps[:, 0], maps[:, 2])
    assert maps[:, :, ::4, ::4].sum() > 0


@pytest.mark.parametrize("projection", ["conv", "perceptron"])
def test_volumes_of_monai(projection) -> None:
    vit = ViT(
        1,
        (8, 8, 4),
        4,
        12,
        16,
        2,
        2,
        proj_type=projection,
        classification=True,
        num_classes=3,
        spatial_dims=3,
    )
    maps = attention_rollout(Logits(vit.eval()), torch.rand(2, 1, 8, 8, 4), 0)
    assert maps.shape == (2, 1, 8, 8, 4)
    assert (maps > 0).all()


class Cropped(Transformer):
    """Reads its answer from one patch."""

    def forward(self, x):
        return self.head(self.tokens(x)[1][:, 2])


@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (
            lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3)),
            (1, 8, 8),
            "Sequential has no softmax attention",
        ),
        (
            lambda: SwinTransformer([2, 2], 8, [2], [2], [4, 4], num_classes=3),
            (3, 16, 16),
            "SwinTransformer attends within windows",
        ),
        (
            lambda: TimmViT(
                img_size=16, patch_size=4, embed_dim=16, depth=1, num_heads=2, num_classes=3, global_pool="map",
                class_token=False,
            ),
            (3, 16, 16),
            "VisionTransformer attends from 1 tokens to 16 others",
        ),
        (Cropped, (1, 8, 8), "neither from a class token nor from all"),
    ],
)  # fmt: skip
def test_other_networks_are_refused(make, shape, message) -> None:
    x = torch.rand(1, *shape)
    network = Network(make().eval(), x)
    with pytest.raises(UnsupportedModelError, match=message):
        attention_rollout(network, x, 0)
    assert "Use gradient, integrated_gradients or lrp" in METHODS["attention_rollout"].supports(network)
