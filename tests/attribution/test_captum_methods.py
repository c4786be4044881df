import pytest
import torch

from xaitools.attribution import attribute
from xaitools.errors import MethodError, UnsupportedModelError


def test_input_x_gradient(residual_net, images, targets) -> None:
    maps = attribute(residual_net, images, targets, ["captum.InputXGradient", "gradient"])
    torch.testing.assert_close(maps["captum.InputXGradient"], images * maps["gradient"], rtol=1e-3, atol=1e-6)


def test_options_reach_the_class_and_smoothing_works(residual_net, images, targets) -> None:
    name = "captum.Occlusion+smoothgrad"
    maps = attribute(
        residual_net,
        images,
        targets,
        [name, "captum.Occlusion"],
        draws=2,
        options={"captum.Occlusion": {"sliding_window_shapes": (1, 12, 10)}},
    )
    assert maps[name].shape == images.shape
    with torch.no_grad():
        drop = residual_net(images) - residual_net(torch.zeros_like(images))
    torch.testing.assert_close(maps["captum.Occlusion"][:, 0, 0, 0], drop.gather(1, targets[:, None])[:, 0])


def test_unknown_names_and_options(residual_net, images, targets) -> None:
    with pytest.raises(MethodError, match=r"no attribution class 'Nonsense'; it has .*DeepLift"):
        attribute(residual_net, images, targets, ["captum.Nonsense"])
    options = {"captum.Occlusion": {"window": 3}}
    with pytest.raises(MethodError, match=r"no option 'window'; it takes .*sliding_window_shapes"):
        attribute(residual_net, images, targets, ["captum.Occlusion"], options=options)


def test_what_captum_cannot_do_is_said(residual_net, images, targets) -> None:
    with pytest.raises(UnsupportedModelError, match=r"captum.Occlusion does not run here"):
        attribute(residual_net, images, targets, ["captum.Occlusion"])
