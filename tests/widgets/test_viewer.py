import importlib
import json
import re

import nibabel as nib
import numpy as np
import pytest
import torch

from xaitools.errors import DataError, DataFileError, ParameterError, ShapeError
from xaitools.widgets import SliceViewer, layers
from xaitools.widgets.layers import DIVERGING_MAPS, SEQUENTIAL_MAPS

from .conftest import Painted, expected_pixels

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
        ({"images": np.ones((2, 4, 5, 8))}, ShapeError, "one channel, or three"),
        ({"images": np.ones((5, 8))}, ShapeError, r"\(5, 8\)"),
        ({"images": np.ones((0, 1, 5, 8))}, ShapeError, "at least one image"),
        ({"masks": np.ones((1, 1, 5, 8), bool)}, ShapeError, "mask"),
        ({"labels": np.ones((5, 7), int)}, ShapeError, "label image"),
        ({"labels": np.full((5, 8), 0.5)}, DataError, "labels are not whole"),
        ({"view": "planes"}, ParameterError, "needs volumes"),
        ({"compare": ["ig", "lrp"]}, ParameterError, "no map 'lrp'"),
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
    (painted,) = open_viewers(SliceViewer(image, {"map": image}, masks=masks, mask_name="tumour <b>"))
    assert painted.root.locator(".xai-outline-name").inner_text() == "tumour <b>"
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
    canvas = painted.canvas()
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
    assert "flat is constant (0.25)" in painted.text("notice")
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
    expected = ["Image", "View", "Method", "Opacity", "Threshold", "Show", "Colours", "Outline", "Crosshair"]
    reached = []
    painted.page.keyboard.press("Tab")
    assert painted.canvas().evaluate("canvas => document.activeElement === canvas")
    for _ in expected:
        painted.page.keyboard.press("Tab")
        reached.append(painted.page.evaluate("document.activeElement.labels[0].firstChild.textContent"))
    assert reached == expected
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


def check_grey(painted, volume, affine, plane, voxel, *, pane=0, mirrored=False, ignore=()):
    """Compare the painted grey values with the slice, but for the letters' places and those to ignore."""
    expected, spacing = shown_slice(volume, affine, plane, voxel)
    expected = expected[:, ::-1] if mirrored else expected
    found = painted.pixels(*expected.shape[::-1], pane=pane)[..., 0]
    covered = np.zeros(expected.shape, bool)  # letters are drawn over the middle of each side
    covered[[0, -1], :] = covered[:, [0, -1]] = True
    for place in ignore:
        covered[place] = True
    np.testing.assert_allclose(found[~covered], np.rint(255 * expected)[~covered], atol=1)
    return expected.shape, spacing


@pytest.fixture
def volume(rng):
    return rng.permutation(5 * 6 * 7).reshape(5, 6, 7) / (5 * 6 * 7 - 1)


@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_volumes_show_every_plane_on_either_side(affine, volume, open_viewers):
    voxel = [1, 4, 2]
    viewer = SliceViewer(
        volume[None, None], {"map": volume[None, None]}, affine=affine, opacity=0, voxel=voxel
    )
    (painted,) = open_viewers(viewer)
    for plane, (right, up) in {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}.items():
        painted.control("plane").select_option(plane)
        painted.control("side").select_option("radiological")
        check_grey(painted, volume, affine, plane, voxel, mirrored=plane != "sagittal")
        painted.control("side").select_option("neurological")
        (rows, columns), spacing = check_grey(painted, volume, affine, plane, voxel)
        size = painted.canvas().bounding_box()
        ratio = columns * spacing[right] / (rows * spacing[up])
        assert size["width"] / size["height"] == pytest.approx(ratio, rel=0.01)


def test_letters_follow_the_side(open_viewers):
    black = np.zeros((1, 1, 5, 6, 7))
    (painted,) = open_viewers(SliceViewer(black, {"map": black}, affine=np.eye(4)))
    neurological = painted.pixels(60, 60)
    painted.control("side").select_option("radiological")
    radiological = painted.pixels(60, 60)
    left, right = np.s_[25:35, :6], np.s_[25:35, -6:]
    assert neurological[left].sum() < neurological[right].sum()  # an L has less ink than an R
    assert radiological[left].sum() > radiological[right].sum()
    painted.control("plane").select_option("sagittal")
    sagittal = painted.pixels(60, 60)
    painted.control("side").select_option("neurological")
    np.testing.assert_array_equal(painted.pixels(60, 60), sagittal)


PLANES = ("axial", "coronal", "sagittal")


@pytest.mark.parametrize("side", ["neurological", "radiological"])
@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_three_planes_meet_where_one_clicks(affine, side, volume, open_viewers):
    viewer = SliceViewer(
        volume[None, None], {"map": volume[None, None]}, affine=affine, opacity=0, view="planes", side=side
    )
    (painted,) = open_viewers(viewer)
    box = painted.canvas(1).bounding_box()  # coronal: right and up of the patient, row 1 and column 3 of it
    plane, _ = shown_slice(
        np.arange(volume.size, dtype=float).reshape(volume.shape), affine, "coronal", [2, 3, 3]
    )
    plane = plane[:, ::-1] if side == "radiological" else plane
    row, column = 1, 3
    place = {
        "x": box["width"] * (column + 0.5) / plane.shape[1],
        "y": box["height"] * (row + 0.5) / plane.shape[0],
    }
    painted.canvas(1).click(position=place)
    voxel = [int(index) for index in np.unravel_index(int(plane[row, column]), volume.shape)]
    place = ", ".join(f"{axis} {at:.1f}" for axis, at in zip("xyz", affine @ [*voxel, 1], strict=False))
    assert painted.text("readout").startswith(f"voxel {', '.join(map(str, voxel))} ({place} mm):")
    for pane, name in enumerate(PLANES):
        mirrored = side == "radiological" and name != "sagittal"
        cells = np.arange(volume.size, dtype=float).reshape(volume.shape)
        shown, _ = shown_slice(cells, affine, name, voxel)
        shown = shown[:, ::-1] if mirrored else shown
        ((at_row, at_column),) = np.argwhere(shown == cells[tuple(voxel)])
        cross = (np.s_[at_row, :], np.s_[:, at_column])
        check_grey(painted, volume, affine, name, voxel, pane=pane, mirrored=mirrored, ignore=cross)
        rows, columns = shown.shape
        lines = painted.pixels(columns, rows, pane=pane)[at_row, 1:-1]
        crossed = (lines[:, 0] > lines[:, 2] + 50).sum()  # yellow but at the voxel itself
        assert crossed >= columns - 4


def test_dragging_moves_the_crosshair(volume, open_viewers):
    viewer = SliceViewer(volume[None, None], {"map": volume[None, None]}, view="planes")
    (painted,) = open_viewers(viewer)
    box = painted.canvas(0).bounding_box()
    at = lambda x, y: (box["x"] + box["width"] * (x + 0.5) / 5, box["y"] + box["height"] * (5 - y + 0.5) / 6)  # noqa: E731
    mouse = painted.page.mouse
    mouse.move(*at(0, 0))
    mouse.down()
    mouse.move(*at(4, 5), steps=8)
    mouse.up()
    mouse.move(5, 5)
    assert painted.text("readout").startswith("voxel 4, 5, 3:")


KEYS = [("ArrowUp", 4), ("ArrowRight", 5), ("ArrowDown", 4), ("Home", 0), ("PageUp", 6), ("ArrowLeft", 5)]
KEYS += [("PageDown", 0), ("ArrowDown", 0), ("End", 6), ("ArrowUp", 6)]


def test_keys_and_wheel_move_through_a_volume(volume, open_viewers):
    (painted,) = open_viewers(SliceViewer(volume[None, None], {"map": volume[None, None]}, opacity=0))

    def check(index):
        check_grey(painted, volume, np.eye(4), "axial", [0, 0, index])
        assert painted.canvas().get_attribute("aria-valuenow") == str(index + 1)

    painted.page.keyboard.press("Tab")
    assert painted.canvas().get_attribute("role") == "slider"
    assert painted.canvas().evaluate("canvas => getComputedStyle(canvas).outlineStyle") == "solid"
    for key, index in KEYS:
        painted.page.keyboard.press(key)
        check(index)
    painted.canvas().click()
    painted.page.mouse.wheel(0, 100)
    check(5)
    painted.page.mouse.wheel(0, -100)
    check(6)


def test_the_wheel_scrolls_the_page_until_one_clicks_or_holds_a_key(volume, open_viewers):
    viewers = [SliceViewer(volume[None, None], {"map": volume[None, None]}, opacity=0) for _ in range(4)]
    painted = open_viewers(*viewers)[0]
    page, canvas = painted.page, painted.canvas()
    hint = painted.root.locator(".xai-hint")

    def scrolled(*, down=100):
        before = page.evaluate("scrollY")
        page.mouse.wheel(0, down)
        page.wait_for_timeout(150)
        return page.evaluate("scrollY") - before

    def at():
        return int(canvas.get_attribute("aria-valuenow")) - 1

    canvas.hover()
    assert scrolled() == 100
    assert at() == 3
    assert "Click the picture, or hold Ctrl or ⌘, to move through the slices" in hint.inner_text()
    box, over = hint.bounding_box(), canvas.bounding_box()
    assert over["y"] < box["y"] < box["y"] + box["height"] < over["y"] + over["height"]
    page.keyboard.down("Control")
    assert scrolled() == 0
    assert at() == 2
    page.keyboard.up("Control")
    assert scrolled(down=-100) == -100
    canvas.click()
    assert not hint.is_visible()
    assert scrolled() == 0
    assert at() == 1
    page.mouse.move(5, 5)
    canvas.hover()
    assert scrolled() == 100
    assert at() == 1
    assert not hint.is_visible()  # it was said once


def test_one_image_leaves_the_wheel_to_the_page(rng, open_viewers):
    images = rng.random((1, 1, 5, 8))
    painted = open_viewers(*[SliceViewer(images, {"map": images}) for _ in range(4)])[0]
    painted.canvas().click()
    painted.page.mouse.wheel(0, 100)
    painted.page.wait_for_function("scrollY === 100")
    assert not painted.root.locator(".xai-hint").is_visible()


def test_reset_goes_back_to_the_state_at_first(volume, open_viewers):
    given = dict.fromkeys(("one", "two"), volume[None, None])
    viewer = SliceViewer(volume[None, None], given, method="two", opacity=0.3, affine=np.eye(4))
    viewer.plane = "coronal"
    initial = viewer.initial
    assert (initial["method"], initial["opacity"], initial["plane"]) == ("two", 0.3, "axial")
    (painted,) = open_viewers(viewer)  # a page opens, and goes back to, the state in which it was written
    before, words = painted.pixels(50, 50), painted.text("readout")
    painted.move("opacity", 0.9)
    painted.canvas().click(position={"x": 30, "y": 30})
    painted.control("side").select_option("radiological")
    assert (painted.pixels(50, 50) != before).any()
    painted.control("view").select_option("planes")
    painted.control("reset").click()
    painted.page.mouse.move(5, 5)
    np.testing.assert_array_equal(painted.pixels(50, 50), before)
    assert painted.text("readout") == words


def test_keys_and_wheel_move_through_images_and_shift_through_pixels(images, maps, open_viewers):
    (painted,) = open_viewers(SliceViewer(images, maps, opacity=0))
    grey = [np.rint(255 * np.float32(image[0])) for image in images]
    painted.page.keyboard.press("Tab")
    for key, index in [("ArrowRight", 1), ("ArrowRight", 1), ("Home", 0), ("End", 1), ("ArrowLeft", 0)]:
        painted.page.keyboard.press(key)
        np.testing.assert_allclose(painted.pixels(8, 5)[..., 0], grey[index], atol=1)
    for key in ["Shift+ArrowUp", "Shift+ArrowRight", "Shift+ArrowRight"]:
        painted.page.keyboard.press(key)
    painted.settle()
    assert painted.text("readout").startswith("row 1, column 6:")
    painted.canvas().hover()
    painted.page.keyboard.down("Control")
    painted.page.mouse.wheel(0, 100)
    np.testing.assert_allclose(painted.pixels(8, 5)[..., 0], grey[1], atol=1)


def test_compare_shows_one_slice_under_the_chosen_methods(rng, open_viewers):
    volume = rng.random((5, 6, 7))
    volume[0, 0, 0], volume[0, 0, 1] = 0, 1
    maps = {
        "plain": rng.random((5, 6, 7)),
        "signed": rng.normal(size=(5, 6, 7)),
        "third": rng.random((5, 6, 7)),
    }
    given = {name: values[None, None] for name, values in maps.items()}
    viewer = SliceViewer(volume[None, None], given, view="compare", compare=["signed", "plain"], threshold=0)
    (painted,) = open_viewers(viewer)

    def check(names, z):
        painted.settle()
        assert painted.root.locator("figcaption").all_inner_texts() == names
        for pane, name in enumerate(names):
            expected = expected_pixels(
                volume[:, :, z].T[::-1],
                maps[name][:, :, z].T[::-1],
                opacity=0.6,
                threshold=0,
                signed=name == "signed",
                peak=np.abs(maps[name]).max(),
            )
            np.testing.assert_allclose(painted.pixels(5, 6, pane=pane), expected, atol=1)

    check(["plain", "signed"], 3)
    painted.canvas(1).press("ArrowUp")
    check(["plain", "signed"], 4)
    painted.control("compare").get_by_label("third").check()
    check(["plain", "signed", "third"], 4)
    painted.control("compare").get_by_label("plain").uncheck()
    check(["signed", "third"], 4)
    text = painted.text("readout")
    for name in ("signed", "third"):
        found = float(re.search(rf"{name} (\S+)", text).group(1))
        assert found == pytest.approx(maps[name][2, 3, 4], abs=np.abs(maps[name]).max() / 127)
    painted.control("compare").get_by_label("signed").uncheck()
    painted.control("compare").get_by_label("third").uncheck()
    painted.settle()
    assert painted.text("notice") == "Choose a method to compare."
    painted.control("view").select_option("slice")
    painted.control("method").select_option("third")
    expected = expected_pixels(
        volume[:, :, 4].T[::-1],
        maps["third"][:, :, 4].T[::-1],
        opacity=0.6,
        threshold=0,
        peak=maps["third"].max(),
    )
    np.testing.assert_allclose(painted.pixels(5, 6), expected, atol=1)


def test_top_percent_counts_the_whole_image(images, maps, open_viewers):
    (painted,) = open_viewers(SliceViewer(images, maps, threshold_by="top", threshold=25))
    grey = np.float32(images[0, 0])
    for method, percent in [("plain", 25), ("signed", 25), ("signed", 60), ("plain", 100)]:
        painted.control("method").select_option(method)
        painted.move("threshold", percent)
        values = np.float32(maps[method][0, 0])
        expected = expected_pixels(
            grey, values, opacity=0.6, threshold=percent, signed=method == "signed", top=True
        )
        np.testing.assert_allclose(painted.pixels(8, 5), expected, atol=1)
    painted.move("threshold", 0)
    np.testing.assert_allclose(painted.pixels(8, 5)[..., 0], np.rint(255 * grey), atol=1)
    painted.control("threshold_by").select_option("maximum")
    painted.move("threshold", 50)
    expected = expected_pixels(grey, np.float32(maps["plain"][0, 0]), opacity=0.6, threshold=50)
    np.testing.assert_allclose(painted.pixels(8, 5), expected, atol=1)


def test_colours_can_be_chosen_for_each_kind_of_map(images, maps, open_viewers):
    (painted,) = open_viewers(SliceViewer(images, maps))
    kinds = {"plain": ("sequential", SEQUENTIAL_MAPS), "signed": ("diverging", DIVERGING_MAPS)}
    for method, (kind, names) in kinds.items():
        painted.control("method").select_option(method)
        for name in names:
            painted.control(kind).select_option(name)
            expected = expected_pixels(
                np.float32(images[0, 0]),
                np.float32(maps[method][0, 0]),
                opacity=0.6,
                threshold=10,
                signed=method == "signed",
                colors=name,
            )
            np.testing.assert_allclose(painted.pixels(8, 5), expected, atol=1)
        other = "diverging" if kind == "sequential" else "sequential"
        assert not painted.control(other).is_visible()


REGIONS = {
    "one label image for all": 7 * np.arange(20 * 12).reshape(20, 12),
    "more regions than a byte can count": 7 * np.arange(2 * 20 * 12).reshape(2, 1, 20, 12),
}


@pytest.mark.parametrize("labels", REGIONS.values(), ids=REGIONS)
def test_the_region_under_the_cursor_is_named(labels, rng, open_viewers):
    images = rng.random((2, 1, 20, 12))
    regions = np.broadcast_to(labels, images.shape)[1, 0]
    names = {int(regions[3, 4]): "Heart <b>"}
    (painted,) = open_viewers(SliceViewer(images, {"map": images}, labels=labels, label_names=names))
    painted.control("image").select_option("image 2")
    box = painted.canvas().bounding_box()
    for row, column in [(3, 4), (19, 11), (0, 0)]:
        place = {"x": box["width"] * (column + 0.5) / 12, "y": box["height"] * (row + 0.5) / 20}
        painted.canvas().hover(position=place)
        value = int(regions[row, column])
        region = f", {names.get(value, f'region {value}')}" if value else ""
        assert painted.text("readout").startswith(f"row {row}, column {column}{region}: image ")


def test_volumes_too_large_for_a_browser_are_thinned_and_say_so(volume, monkeypatch, open_viewers):
    monkeypatch.setattr(layers, "MAX_BYTES", 2 * volume.size - 1)
    affine = AFFINES["x flipped"]
    viewer = SliceViewer(
        volume[None, None], {"map": volume[None, None]}, affine=affine, opacity=0, voxel=[2, 4, 2]
    )
    (painted,) = open_viewers(viewer)
    assert "one voxel in 2 along each axis" in painted.text("notice")
    thinned = volume[::2, ::2, ::2]
    check_grey(painted, thinned, affine, "axial", [1, 2, 1])
    assert painted.text("readout").startswith("voxel 2, 4, 2 (x -2.0, y 4.0, z 2.0 mm): ")
    painted.move("slice", 3)
    check_grey(painted, thinned, affine, "axial", [1, 2, 3])
    assert painted.text("readout").startswith("voxel 2, 4, 6 (x -2.0, y 4.0, z 6.0 mm): ")


def test_nifti_volumes_bring_their_affine_and_must_share_it(volume):
    affine = AFFINES["x flipped"]
    image, same = (nib.Nifti1Image(volume, affine) for _ in range(2))
    viewer = SliceViewer(image, {"map": same})
    assert viewer.grid == SliceViewer(volume[None, None], {"map": volume[None, None]}, affine=affine).grid
    moved = nib.Nifti1Image(volume, np.diag([-1.0, 1, 1.5, 1]))
    with pytest.raises(ShapeError, match=r"map 'ig' has the affine .*1\.5.*Resample"):
        SliceViewer(image, {"map": same, "ig": moved})
    labels = nib.Nifti1Image(volume.astype(np.int16), affine)
    with pytest.raises(ShapeError, match=r"label image has the affine .*None"):
        SliceViewer(volume[None, None], {"map": volume[None, None]}, labels=labels)
    with pytest.raises(ShapeError, match="image has the affine"):
        SliceViewer(image, {"map": same}, affine=np.eye(4))


def test_slice_control_moves_through_the_plane(rng, open_viewers):
    volume = rng.random((5, 6, 7))
    viewer = SliceViewer(volume[None, None], {"map": volume[None, None]}, opacity=0, plane="coronal")
    (painted,) = open_viewers(viewer)
    painted.move("slice", 5)
    low, high = volume.min(), volume.max()
    expected = np.rint(255 * (volume[:, 5].T[::-1] - low) / (high - low))
    np.testing.assert_allclose(painted.pixels(5, 7)[..., 0], expected, atol=1)
    assert painted.control("slice").get_attribute("aria-valuetext") == "6 of 6"


def test_colour_images_are_painted_in_colour_below_their_map(rng, open_viewers):
    images = np.float32(rng.random((2, 3, 5, 8)) * 4 - 1)
    maps = np.float32(rng.normal(size=images.shape))
    (painted,) = open_viewers(SliceViewer(images, {"map": maps}, opacity=0.5, threshold=20))
    low, high = images.min(), images.max()
    colors = np.moveaxis(np.rint(255 * (images - low) / (high - low)), 1, -1)
    for index, name in enumerate(["image 1", "image 2"]):
        painted.control("image").select_option(name)
        values = maps[index].sum(axis=0)  # relevance of a pixel is that of its channels together
        grey = np.zeros((5, 8))
        only_map = expected_pixels(grey, values, opacity=0.5, threshold=20, signed=True)
        bare = expected_pixels(grey + 1, values, opacity=0.5, threshold=20, signed=True) == 255
        expected = np.where(bare & (only_map == 0), colors[index], colors[index] / 2 + only_map)
        np.testing.assert_allclose(painted.pixels(8, 5), expected, atol=1)
    red, green, blue = (float(images[1, channel, 2, 4]) for channel in range(3))
    painted.page.mouse.move(5, 5)
    found = re.search(r"red (\S+), green (\S+), blue (\S+), map (\S+) ", painted.text("readout"))
    level, level_of_map = (high - low) / 255, float(np.abs(maps.sum(axis=1)).max()) / 127
    np.testing.assert_allclose([float(v) for v in found.groups()[:3]], [red, green, blue], atol=level)
    assert float(found[4]) == pytest.approx(maps[1, :, 2, 4].sum(), abs=level_of_map)


def test_small_values_are_written_in_powers_of_ten(rng, open_viewers):
    maps = rng.random(SHAPE)
    maps *= 3.08e-6 / maps.max(axis=(1, 2, 3), keepdims=True)
    (painted,) = open_viewers(SliceViewer(rng.random(SHAPE), {"map": maps}))
    assert painted.root.locator(".xai-scale:not([hidden])").inner_text().split() == [
        "3.1e-6",
        "relevance",
        "0",
    ]
    assert re.search(r"map \d\.\d\de-\d \(", painted.text("readout"))


def test_images_can_be_looked_at_without_a_map(volume, open_viewers):
    (painted,) = open_viewers(SliceViewer(volume[None, None], affine=np.eye(4), voxel=[1, 2, 3]))
    check_grey(painted, volume, np.eye(4), "axial", [1, 2, 3])
    assert painted.text("notice") == ""
    place, value = painted.text("readout").split(": image ")
    assert place == "voxel 1, 2, 3 (x 1.0, y 2.0, z 3.0 mm)"
    assert float(value) == pytest.approx(volume[1, 2, 3], abs=0.005)
    for name in ("method", "opacity", "threshold", "sequential", "diverging", "compare"):
        assert not painted.control(name).is_visible()
    painted.control("view").select_option("planes")
    painted.settle()
    assert painted.root.locator("figcaption").all_inner_texts() == list(PLANES)


def test_a_page_of_its_own_has_a_title_and_paints(images, maps, browser, tmp_path):
    viewer = SliceViewer(images, maps, opacity=0)
    path = tmp_path / "viewer.html"
    assert viewer.to_html(path) == path.read_text(encoding="utf-8")
    page = browser.open(path)
    np.testing.assert_allclose(
        Painted(page).pixels(8, 5)[..., 0], np.rint(255 * np.float32(images[0, 0])), atol=1
    )
    assert page.title() == "Relevance: plain, signed"
    viewer.to_html(str(path), title="sub-001 <b>")
    assert browser.open(path).title() == "sub-001 <b>"
    assert browser.errors == []
    with pytest.raises(DataFileError, match="no such folder"):
        viewer.to_html(tmp_path / "none" / "viewer.html")


def test_methods_are_explained_in_tooltips(images, open_viewers):
    importlib.import_module("xaitools.attribution")
    given = dict.fromkeys(["BP", "lrp[epsilon]+absolute", "my own <b>"], images)
    (painted,) = open_viewers(SliceViewer(images, given, method="lrp[epsilon]+absolute"))
    select = painted.control("method")
    assert select.get_attribute("title").startswith("lrp[epsilon]+absolute: How much of the answer came from")
    idea = "gradient: How would the answer change if this pixel became brighter?"
    titles = [option.get_attribute("title") for option in select.locator("option").all()]
    assert (titles[0], titles[2]) == (idea, "")
    select.select_option("my own <b>")
    painted.settle()
    assert select.get_attribute("title") == ""
    painted.control("view").select_option("compare")
    painted.settle()
    assert painted.root.locator("figcaption").first.get_attribute("title") == idea
    assert painted.control("compare").locator("label").first.get_attribute("title") == idea


def test_what_a_notebook_keeps_is_within_the_limit(images, maps, monkeypatch):
    viewer = SliceViewer(images, maps)
    page = viewer.saved_html()
    assert len(page) <= SliceViewer.max_saved == 8 * 2**20
    assert f'"{viewer.token}"' in page
    assert SliceViewer(images, maps).token != viewer.token
    monkeypatch.setattr(SliceViewer, "max_saved", len(page) - 1)
    assert re.search(r"not saved with the notebook, as it takes \d\.\d MiB", viewer.saved_html())
    assert "application/json" not in viewer.saved_html()


def test_a_saved_viewer_waits_for_the_one_with_a_kernel(images, maps, browser, tmp_path):
    viewer = SliceViewer(images, maps, opacity=0)
    path = tmp_path / "page.html"
    path.write_text(f'<!doctype html><meta charset="utf-8"><body>{viewer.saved_html()}', encoding="utf-8")
    page = browser.open(path)
    page.wait_for_timeout(1000)
    assert page.locator("body").inner_text().strip() == ""
    painted = Painted(page)
    np.testing.assert_allclose(painted.pixels(8, 5)[..., 0], np.rint(255 * np.float32(images[0, 0])), atol=1)
    page.evaluate("() => document.body.append(Object.assign(document.createElement('div'), { id: 'live' }))")
    page.evaluate("token => (document.getElementById('live').dataset.token = token)", viewer.token)
    painted.root.wait_for(state="detached")  # the one with a kernel came after all
    assert browser.errors == []
