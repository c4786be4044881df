import json

import numpy as np
import pytest
import torch

from xaitools.data.fetal import contour_band
from xaitools.errors import ParameterError
from xaitools.phantoms.fetal import fetal_heads, render
from xaitools.phantoms.fetal_head import Head, draw_head
from xaitools.phantoms.ultrasound import PICTURE

HEAD = Head((410.0, 260.0), (240.0, 185.0), 0.3, 0.13)


def heads(n, seed=0):
    return [
        draw_head(np.random.default_rng((seed, i)), np.random.default_rng((seed, i, 0))) for i in range(n)
    ]


@pytest.fixture(scope="module")
def samples():
    return fetal_heads(24, size=64, seed=4, progress=False)


def test_labels_masks_and_numbers_belong_to_the_heads(samples):
    drawn = heads(24, seed=4)
    perimeters, pixels = (
        np.array([getattr(head, what) for head in drawn]) for what in ("perimeter", "pixel")
    )
    np.testing.assert_allclose(samples.labels, perimeters, rtol=1e-6)
    np.testing.assert_allclose(samples.numbers["pixel size (mm)"], pixels, rtol=1e-6)
    np.testing.assert_allclose(samples.numbers["head circumference (mm)"], perimeters * pixels, rtol=1e-6)
    for head, mask in zip(drawn, samples.masks[:, 0].numpy(), strict=True):
        assert (mask == contour_band(head.outline(4000), PICTURE, 64, 7)).mean() > 0.999
    assert samples.is_regression
    assert samples.unit == "px"
    assert samples.info["seed"] == 4
    json.dumps(samples.info)


def test_labels_in_mm(samples):
    in_mm = fetal_heads(3, size=64, unit="mm", seed=4, progress=False)
    assert in_mm.unit == "mm"
    torch.testing.assert_close(in_mm.labels, samples.numbers["head circumference (mm)"][:3])
    assert torch.equal(in_mm.images, samples.images[:3])


def test_a_subject_depends_on_seed_and_position_alone(samples):
    few = fetal_heads(2, size=64, seed=4, images_per_subject=3, progress=False)
    assert torch.equal(few.images[::3], samples.images[:2])
    assert torch.equal(few.labels[::3], samples.labels[:2])
    assert few.subjects == ("sub-001",) * 3 + ("sub-002",) * 3
    assert few.names[:4] == ("sub-001_img-1", "sub-001_img-2", "sub-001_img-3", "sub-002_img-1")
    assert samples.names[:2] == samples.subjects[:2] == ("sub-001", "sub-002")
    assert not torch.equal(fetal_heads(1, size=64, seed=5, progress=False).images, samples.images[:1])
    assert len({image.tobytes() for image in few.images.numpy()}) == 6


def test_views_of_a_subject_share_their_circumference_in_mm():
    views = fetal_heads(4, size=32, unit="mm", images_per_subject=3, seed=0, progress=False).labels.view(4, 3)
    assert ((views.amax(1) - views.amin(1)) < 0.065 * views.mean(1)).all()
    assert (views.amax(1) > views.amin(1)).all()


def test_the_size_changes_the_grid_and_not_the_scene(samples):
    small = torch.nn.functional.avg_pool2d(samples.images[:6], 2)
    torch.testing.assert_close(
        small, fetal_heads(6, size=32, seed=4, progress=False).images, atol=0.02, rtol=0
    )


def skull_brightness(samples, drawn, lateral):
    """Mean value just inside the outline, where its normal is across or along the beams."""
    values = []
    for head, image in zip(drawn, samples.images[:, 0].numpy(), strict=True):
        inner = Head(head.center, (head.axes[0] * 0.93, head.axes[1] * 0.93), head.angle, head.pixel)
        rows, columns = inner.outline(200).T
        tangent = np.gradient(inner.outline(200), axis=0)
        upright = np.abs(tangent[:, 1]) / np.hypot(*tangent.T)
        chosen = upright < 0.35 if lateral else upright > 0.95
        place = ((rows + 0.5) * 64 / 540).astype(int), ((columns + 0.5) * 64 / 800).astype(int)
        values.append(image[place][chosen].mean())
    return np.array(values)


def test_the_skull_is_bright_where_the_beam_meets_it_at_a_right_angle(samples):
    drawn = heads(24, seed=4)
    facing, lateral = (skull_brightness(samples, drawn, lateral) for lateral in (False, True))
    assert (facing > lateral).mean() > 0.85
    assert facing.mean() > lateral.mean() + 0.2
    assert facing.mean() > samples.images.mean() + 0.2


def test_the_picture_is_a_fan_with_black_outside(samples):
    black = (samples.images[:, 0] == 0).float()
    assert (black[:, 0, 0] == 1).float().mean() > 0.6
    assert (black[:, 0, -1] == 1).float().mean() > 0.6
    assert black[:, 32, 32].mean() < 0.3
    assert 0.05 < samples.images.mean() < 0.3
    assert samples.images.amax(dim=(1, 2, 3)).min() > 0.6


def test_the_same_head_looks_different_with_another_generator():
    first, again, other = (render(HEAD, 64, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert np.abs(first - other).mean() > 0.02


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_subjects": 0}, "n_subjects=0"),
        ({"images_per_subject": 0}, "images_per_subject=0"),
        ({"size": 31}, "size=31"),
        ({"unit": "cm"}, "unit='cm'"),
        ({"contour_width": 0}, "contour_width=0"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ParameterError, match=message):
        fetal_heads(**({"n_subjects": 1, "seed": 0, "progress": False} | arguments))
