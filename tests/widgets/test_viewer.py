import json
import re

import nibabel as nib
import numpy as np
import pytest
import torch

from xaitools.errors import DataError, ParameterError, ShapeError
from xaitools.widgets import SliceViewer

from .conftest import expected_pixels

SHAPE = (2, 1, 5, 8)


@pytest.fixture
def images(rng):
    images = rng.random(SHAPE)
    images[0, 0, 0, 0], images[0, 0, 0, 1] = 0, 1
    return images


@pytest.fixture
def maps(rng):
    return {"plain": rng.random(SHAPE) * 3, "signed": rng.normal(size=SHAPE)}


def test_traits_can_be_set_observed_and_checked(images, maps):
    viewer = SliceViewer(images, maps, names=["sub-001", "sub-002"], opacity=0.3)
    assert (viewer.method, viewer.image, viewer.opacity) == ("plain", 0, 0.3)
    seen = []
    viewer.observe(lambda change: seen.append(change["new"]), "method")
    viewer.method = "signed"
    assert seen == ["signed"]
    with pytest.raises(ParameterError, match=r"'nothing'.*\['plain', 'signed'\]"):
        viewer.method = "nothing"
    with pytest.raises(ParameterError, match="no image 2"):
        viewer.image = 2
    with pytest.raises(ParameterError, match=r"\[0, 8, 0\]"):
        viewer.voxel = [0, 8, 0]
    with pytest.raises(ParameterError, match="voxel"):
        viewer.voxel = [0, 0]
    with pytest.raises(ParameterError, match="nothing"):
        SliceViewer(images, maps, method="nothing")


def test_takes_tensors_with_gradients(images, maps):
    tensors = {name: torch.tensor(values, requires_grad=True) for name, values in maps.items()}
    viewer = SliceViewer(torch.tensor(images), tensors)
    assert [layer["name"] for layer in viewer.layers] == ["image", "plain", "signed"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"maps": {}}, ParameterError, "no map"),
        (
            {"maps": {"ig": np.ones((2, 1, 5, 7))}},
            ShapeError,
            r"'ig' has shape \(2, 1, 5, 7\).*\(2, 1, 5, 8\)",
        ),
        ({"maps": {"ig": np.full(SHAPE, np.nan)}}, DataError, "'ig' holds NaN"),
        ({"images": np.full(SHAPE, np.inf)}, DataError, "images"),
        ({"images": np.ones((2, 3, 5, 8))}, ShapeError, "one channel"),
        ({"images": np.ones((5, 8))}, ShapeError, r"\(5, 8\)"),
        ({"images": np.ones((0, 1, 5, 8))}, ShapeError, "at least one image"),
        ({"masks": np.ones((1, 1, 5, 8), bool)}, ShapeError, "mask"),
        ({"names": ["one"]}, ShapeError, "1 names for 2 images"),
        ({"affine": np.eye(4)}, ShapeError, "volumes"),
        ({"images": np.ones((2, 1, 5, 8, 3)), "affine": np.eye(3)}, ShapeError, r"\(3, 3\)"),
        ({"images": np.ones((2, 1, 5, 8, 3)), "affine": np.zeros((4, 4))}, ShapeError, "singular"),
    ],
)
def test_refuses(change, error, message, images):
    given = {"images": images, "maps": {"ig": np.ones(np.shape(change.get("images", images)))}, **change}
    with pytest.raises(error, match=message):
        SliceViewer(**given)


def test_a_display_carries_the_widget_and_a_page_of_its_present_state(images, maps):
    viewer = SliceViewer(images, maps)
    viewer.method, viewer.threshold = "signed", 40
    data, _ = viewer._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == viewer.model_id
    state = json.loads(
        re.search(r'<script type="application/json">(.*?)</script>', data["text/html"]).group(1)
    )
    assert (state["method"], state["threshold"]) == ("signed", 40)


def test_names_cannot_end_the_script_they_are_written_in(images, maps, open_viewers):
    name = "</script><script>throw new Error('injected')</script>"
    (painted,) = open_viewers(SliceViewer(images, maps, names=[name, "b"]))
    assert painted.control("image").locator("option").first.inner_text() == name


def test_exported_page_paints_each_voxel_in_its_place_and_follows_every_control(images, maps, open_viewers):
    masks = np.zeros(SHAPE, bool)
    masks[:, :, 1:3, 4:8] = True
    viewer = SliceViewer(images, maps, masks=masks, names=["sub-001", "sub-002"], opacity=0.5, threshold=30)
    (painted,) = open_viewers(viewer)

    def check(image, method, opacity, threshold):
        expected = expected_pixels(
            np.float32(images[image, 0]),
            np.float32(maps[method][image, 0]),
            opacity=opacity,
            threshold=threshold,
            signed=method == "signed",
        )
        np.testing.assert_allclose(painted.pixels(8, 5), expected, atol=1)

    check(0, "plain", 0.5, 30)
    painted.control("image").select_option("sub-002")
    check(1, "plain", 0.5, 30)
    painted.control("method").select_option("signed")
    check(1, "signed", 0.5, 30)
    painted.move("opacity", 0.8)
    check(1, "signed", 0.8, 30)
    painted.move("threshold", 75)
    check(1, "signed", 0.8, 75)
    painted.move("threshold", 0)
    check(1, "signed", 0.8, 0)


def test_outline_runs_along_the_masks_edges_and_can_be_hidden(open_viewers):
    image = np.zeros((1, 1, 4, 4))
    masks = np.zeros((1, 1, 4, 4), bool)
    masks[0, 0, 1, 2] = True
    (painted,) = open_viewers(SliceViewer(image, {"map": image}, masks=masks))
    cells = 256  # 64 to a voxel: row 1 lies between 64 and 128, column 2 between 128 and 192
    rows, columns = np.nonzero(painted.pixels(cells, cells).sum(axis=2) > 100)
    for found, edge in [(rows.min(), 64), (rows.max(), 128), (columns.min(), 128), (columns.max(), 192)]:
        assert abs(found - edge) <= 1
    on_edge = np.isin(rows, [63, 64, 127, 128]) | np.isin(columns, [127, 128, 191, 192])
    assert on_edge.all()
    painted.control("outline").uncheck()
    assert painted.pixels(cells, cells).sum() == 0


def test_value_under_the_cursor_is_in_the_maps_unit(images, maps, open_viewers):
    (painted,) = open_viewers(SliceViewer(images, maps, method="signed"))
    canvas = painted.root.locator(".xai-picture canvas")
    box = canvas.bounding_box()
    controls = painted.control("method").bounding_box()
    canvas.hover(position={"x": box["width"] * 6.5 / 8, "y": box["height"] * 1.5 / 5})
    text = painted.text("readout")
    assert text.startswith("row 1, column 6: image ")
    grey, value = (float(v) for v in re.search(r"image (\S+), signed (\S+)", text).groups())
    assert grey == pytest.approx(images[0, 0, 1, 6], abs=0.005)
    assert value == pytest.approx(maps["signed"][0, 0, 1, 6], abs=np.abs(maps["signed"]).max() / 127)
    assert painted.control("method").bounding_box() == controls  # nothing moves while one points
    share = maps["signed"][0, 0, 1, 6] / np.abs(maps["signed"][0]).max()
    assert int(re.search(r"\((-?\d+) %", text).group(1)) == pytest.approx(100 * share, abs=1)


def test_constant_map_shows_the_image_and_says_so(images, open_viewers):
    maps = {"flat": np.full(SHAPE, 0.25), "other": images}
    (painted,) = open_viewers(SliceViewer(images, maps))
    grey = np.rint(255 * np.float32(images[0, 0]))
    np.testing.assert_allclose(painted.pixels(8, 5), np.stack([grey] * 3, axis=-1), atol=1)
    assert "constant (0.25)" in painted.text("notice")
    painted.control("method").select_option("other")
    painted.settle()
    assert painted.text("notice") == ""


def test_viewers_in_one_page_do_not_touch_each_other(images, maps, open_viewers):
    first, second = open_viewers(SliceViewer(images, maps), SliceViewer(images, maps))
    before = second.pixels(8, 5)
    first.control("method").select_option("signed")
    assert (first.pixels(8, 5) != before).any()
    np.testing.assert_array_equal(second.pixels(8, 5), before)


def test_every_control_is_labelled_and_reached_by_tab(images, maps, open_viewers):
    viewer = SliceViewer(images, maps, masks=np.ones(SHAPE, bool))
    (painted,) = open_viewers(viewer)
    reached = []
    for _ in range(5):
        painted.page.keyboard.press("Tab")
        reached.append(painted.page.evaluate("document.activeElement.dataset.control"))
    assert reached == ["image", "method", "opacity", "threshold", "outline"]
    labels = painted.root.locator("label:has([data-control]) .xai-label").all_inner_texts()
    assert labels == ["Image", "Method", "Opacity", "Threshold", "Outline"]
    before = painted.pixels(8, 5)
    painted.control("opacity").press("ArrowLeft")
    assert (painted.pixels(8, 5) != before).any()


AFFINES = {
    "as is": np.diag([2.0, 2.0, 2.0, 1.0]),
    "x flipped": np.diag([-1.0, 1.0, 1.0, 1.0]),
    "axes permuted and flipped, unequal spacing": np.array(
        [[0, 0, -3.0, 9], [2.0, 0, 0, 5], [0, -1.0, 0, 2], [0, 0, 0, 1]]
    ),
}


def shown_slice(volume, affine, plane, voxel):
    """Slice (row, column) as it should appear: right, front and top of the patient are right and up."""
    img = nib.as_closest_canonical(nib.Nifti1Image(volume, affine))
    canonical = np.asarray(img.dataobj)
    world = affine @ [*voxel, 1]
    i, j, k = np.rint(np.linalg.solve(img.affine, world)[:3]).astype(int)
    cut = {"axial": canonical[:, :, k], "coronal": canonical[:, j], "sagittal": canonical[i]}[plane]
    return cut.T[::-1], np.array(img.header.get_zooms())


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_volumes_show_every_plane_with_the_patients_left_on_the_left(affine, rng, open_viewers):
    volume = rng.permutation(5 * 6 * 7).reshape(5, 6, 7) / (5 * 6 * 7 - 1)
    voxel = [1, 4, 2]
    viewer = SliceViewer(
        volume[None, None], {"map": volume[None, None]}, affine=affine, opacity=0, voxel=voxel
    )
    (painted,) = open_viewers(viewer)
    for plane, (right, up) in {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}.items():
        painted.control("plane").select_option(plane)
        expected, spacing = shown_slice(volume, affine, plane, voxel)
        rows, columns = expected.shape
        found = painted.pixels(columns, rows)[..., 0]
        letters = np.zeros(expected.shape, bool)  # drawn over the middle of each side
        letters[[0, -1], :] = letters[:, [0, -1]] = True
        np.testing.assert_allclose(found[~letters], np.rint(255 * expected)[~letters], atol=1)
        size = painted.root.locator(".xai-picture canvas").bounding_box()
        ratio = columns * spacing[right] / (rows * spacing[up])
        assert size["width"] / size["height"] == pytest.approx(ratio, rel=0.01)


def test_slice_control_moves_through_the_plane(rng, open_viewers):
    volume = rng.random((5, 6, 7))
    viewer = SliceViewer(volume[None, None], {"map": volume[None, None]}, opacity=0, plane="coronal")
    (painted,) = open_viewers(viewer)
    painted.move("slice", 5)
    low, high = volume.min(), volume.max()
    expected = np.rint(255 * (volume[:, 5].T[::-1] - low) / (high - low))
    np.testing.assert_allclose(painted.pixels(5, 7)[..., 0], expected, atol=1)
    assert painted.control("slice").get_attribute("aria-valuetext") == "6 of 6"
