import base64
import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from skimage.draw import polygon2mask

from xaitools.data.ct import load_ct
from xaitools.errors import DataFileError, ParameterError, ShapeError
from xaitools.evaluation.localization import localization
from xaitools.widgets.mask_editor import MODULES, MaskEditor, _read, load_masks

SHAPE = (2, 1, 12, 16)
# To the left, to the front and up, stored as z, x, y: every axis moves, one is reversed.
AFFINE = np.array([[0, -2, 0, 90], [0, 0, 2, -120], [4, 0, 0, -70], [0, 0, 0, 1.0]])
PAGE = """<!doctype html><meta charset="utf-8"><style>{style}</style><body>
<script type="application/json">{state}</script>
<script type="module">
{script}
window.model = standaloneModel(JSON.parse(document.querySelector("script").textContent, readBytes));
window.sent = 0;
model.on("change:drawing", () => window.sent++);
await render({{ model, el: document.body }});
</script>"""


@pytest.fixture
def images(rng):
    return rng.random(SHAPE)


class Page:
    """An editor in a browser; what it sends reaches the Python editor, whose scores go back."""

    def __init__(self, browser, folder, editor):
        state = {name: getattr(editor, name) for name in MaskEditor.class_own_traits(sync=True)}
        data = json.dumps(state, default=lambda value: {"base64": base64.b64encode(value).decode()})
        script = _read(*MODULES, "standalone.js")
        path = folder / "editor.html"
        path.write_text(PAGE.format(style=editor._css, state=data, script=script), encoding="utf-8")
        self.page, self.editor = browser.open(path), editor
        self.canvas = self.page.locator("canvas")
        self.page.locator(".xai-readout", has_text="drawn").wait_for()

    def settle(self):
        self.page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def at(self, column, row, *, columns=16, rows=12):
        box = self.canvas.bounding_box()
        return box["x"] + column / columns * box["width"], box["y"] + row / rows * box["height"]

    def click(self, *places, **grid):
        for place in places:
            self.page.mouse.click(*self.at(*place, **grid))

    def press(self, *keys):
        self.canvas.focus()
        for key in keys:
            self.page.keyboard.press(key)

    def control(self, name):
        return self.page.locator(f"[data-control={name}]")

    def masks_after(self, action):
        """The masks that Python holds after what the browser sends because of `action`."""
        before = self.page.evaluate("window.sent")
        action()
        self.page.wait_for_function("before => window.sent > before", arg=before)
        read = "btoa(String.fromCharCode(...new Uint8Array(model.get('drawing').buffer)))"
        self.editor.image = self.page.evaluate("model.get('image')")
        self.editor.drawing = base64.b64decode(self.page.evaluate(read))
        self.page.evaluate("scores => model.set('scores', scores)", self.editor.scores)
        self.settle()
        return self.editor.masks


@pytest.fixture
def open_editor(browser, tmp_path):
    yield lambda editor: Page(browser, tmp_path, editor)
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith("file:")] == []


def inside(corners, rows=12, columns=16):
    """Reference: the pixels whose centre lies inside; corners are (column, row)."""
    return polygon2mask((rows, columns), [(row - 0.5, column - 0.5) for column, row in corners])


CORNERS = [(2.2, 1.3), (13.1, 2.8), (9.7, 6.1), (12.6, 10.9), (3.3, 9.2)]  # not convex


def test_masks_go_through_the_browsers_order_and_back(rng):
    volumes = rng.random((2, 1, 4, 5, 6))
    masks = rng.random(volumes.shape) > 0.5
    for affine in (None, AFFINE, np.diag([-1, 2, -3, 1.0])):
        editor = MaskEditor(volumes, masks=masks, affine=affine)
        np.testing.assert_array_equal(editor.masks, masks)
    editor.masks = ~masks
    np.testing.assert_array_equal(editor.masks, ~masks)
    assert editor.masks.dtype == bool


def test_starts_empty_and_keeps_what_is_drawn_from_outside_changes(images):
    editor = MaskEditor(images)
    editor.masks[:] = True
    assert editor.masks.shape == SHAPE
    assert not editor.masks.any()
    assert editor.scores == {}


def test_what_a_browser_sends_comes_as_a_view_of_bytes(images):
    masks = images > 0.5
    editor = MaskEditor(images)
    editor.set_state({"drawing": memoryview(MaskEditor(images, masks=masks).drawing)})
    np.testing.assert_array_equal(editor.masks, masks)


def test_scores_are_those_of_the_shown_image(images, rng):
    maps = {"one": rng.random(SHAPE), "two": rng.normal(size=SHAPE)}
    masks = np.zeros(SHAPE, bool)
    masks[1, 0, 2:5, 3:9] = True
    editor = MaskEditor(images, maps, masks=masks)
    assert editor.scores == {}
    editor.image = 1
    for name, values in maps.items():
        expected = localization(np.float32(values[1:]), masks[1:])
        assert editor.scores[name] == {key: expected[key][0] for key in ("auc", "dice")}
    editor.masks = np.ones(SHAPE, bool)
    assert editor.scores == {}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"masks": np.zeros((2, 1, 12, 15))}, ShapeError, r"mask has shape \(2, 1, 12, 15\)"),
        ({"maps": {"a": np.zeros((1, 1, 12, 16))}}, ShapeError, "'a'"),
        ({"names": ["a"]}, ShapeError, "1 names for 2 images"),
        ({"method": "a"}, ParameterError, "no map 'a'"),
        ({"image": 2}, ParameterError, "no image 2"),
        ({"voxel": [12, 0, 0]}, ParameterError, "voxel"),
    ],
)
def test_refuses(change, error, message, images):
    with pytest.raises(error, match=message):
        MaskEditor(**{"images": images, **change})


def test_pngs_are_named_by_sample_and_read_again(images, tmp_path):
    masks = np.zeros(SHAPE, bool)
    masks[1, 0, 2:5, 3:9] = True
    editor = MaskEditor(images, masks=masks, names=["sub-001", "sub-002"])
    assert editor.save(tmp_path / "new") == [tmp_path / "new" / "sub-002.png"]
    read = load_masks(tmp_path / "new")
    assert list(read) == ["sub-002"]
    np.testing.assert_array_equal(read["sub-002"], masks[1, 0])
    other = MaskEditor(images, names=["sub-002", "sub-003"])
    other.load(tmp_path / "new")
    np.testing.assert_array_equal(other.masks, masks[::-1])


def test_saving_removes_the_file_of_a_cleared_mask_and_no_other(images, tmp_path):
    editor = MaskEditor(images, masks=np.arange(np.prod(SHAPE)).reshape(SHAPE) % 2, names=["a", "b"])
    editor.save(tmp_path)
    MaskEditor(images, names=["a", "b"]).save(tmp_path)
    assert list(load_masks(tmp_path)) == ["a", "b"]
    masks = editor.masks
    masks[0] = False
    editor.masks = masks
    editor.save(tmp_path)
    assert list(load_masks(tmp_path)) == ["b"]


def test_volumes_keep_their_affine(rng, tmp_path):
    volumes = rng.random((1, 1, 4, 5, 6))
    masks = volumes > 0.6
    editor = MaskEditor(volumes, masks=masks, names=["sub-001"], affine=AFFINE)
    (path,) = editor.save(tmp_path)
    assert path == tmp_path / "sub-001.nii.gz"
    np.testing.assert_array_equal(nib.load(path).affine, AFFINE)
    np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), masks[0, 0])
    other = MaskEditor(volumes, names=["sub-001"], affine=AFFINE)
    other.load(tmp_path)
    np.testing.assert_array_equal(other.masks, masks)
    elsewhere = MaskEditor(volumes, names=["sub-001"], affine=np.diag([2, 2, 2, 1]))
    with pytest.raises(ShapeError, match="elsewhere in space"):
        elsewhere.load(tmp_path)


def test_reading_says_what_is_wrong(images, tmp_path):
    editor = MaskEditor(images, names=["a", "b"])
    with pytest.raises(DataFileError, match="no such folder"):
        editor.load(tmp_path / "none")
    with pytest.raises(DataFileError, match="no mask"):
        load_masks(tmp_path)
    Image.fromarray(np.zeros((12, 15), np.uint8)).save(tmp_path / "c.png")
    with pytest.raises(DataFileError, match=r"for instance a\.png"):
        editor.load(tmp_path)
    (tmp_path / "c.png").rename(tmp_path / "a.png")
    with pytest.raises(ShapeError, match=r"a\.png.*\(12, 15\).*\(12, 16\)"):
        editor.load(tmp_path)
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(DataFileError, match=r"b\.png: not a readable mask"):
        load_masks(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"), [(["a/b", "c"], "'a/b' cannot name a file"), (["a", "a"], "Several images")]
)
def test_names_that_cannot_be_files_are_refused(names, message, images, tmp_path):
    with pytest.raises(ParameterError, match=message):
        MaskEditor(images, names=names).save(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_ct_loader_finds_the_masks(write_dicom, tmp_path, rng):
    for index, agent in enumerate(["", "iodine"]):
        hu = rng.integers(-200, 200, (24, 24))
        hu[0, 0] = -1000
        write_dicom(
            tmp_path / "ct" / f"case{index}.dcm",
            hu,
            patient=f"p{index}",
            series=f"1.{index}",
            ContrastBolusAgent=agent,
        )
    samples = load_ct(tmp_path / "ct", size=24, progress=False)
    masks = np.zeros((2, 1, 24, 24), bool)
    masks[:, :, 3:9, 5:20] = True
    editor = MaskEditor(samples.images, masks=masks, names=[path.stem for path in samples.sources])
    editor.save(tmp_path / "masks")
    again = load_ct(tmp_path / "ct", size=24, masks=tmp_path / "masks", progress=False)
    np.testing.assert_array_equal(again.masks, masks)


def test_polygons_hold_the_pixels_whose_centre_is_inside(images, open_editor):
    page = open_editor(MaskEditor(images))

    def draw():
        page.click(*CORNERS[:-1])
        page.page.mouse.dblclick(*page.at(*CORNERS[-1]))

    masks = page.masks_after(draw)
    np.testing.assert_array_equal(masks[0, 0], inside(CORNERS))
    assert not masks[1].any()

    hole = [(5.2, 4.1), (8.4, 4.3), (7.1, 7.4)]
    page.control("erase").click()
    page.click(*hole)
    masks = page.masks_after(lambda: page.press("Enter"))
    assert inside(hole).sum() > 3
    np.testing.assert_array_equal(masks[0, 0], inside(CORNERS) & ~inside(hole))


def test_escape_cancels_a_polygon_and_backspace_takes_a_corner_back(images, open_editor):
    page = open_editor(MaskEditor(images))
    page.click(*CORNERS)
    page.press("Escape", "Enter")
    page.click((0.2, 0.2), *CORNERS, (15.9, 0.1))
    page.press("Backspace")
    masks = page.masks_after(lambda: page.press("Enter"))
    np.testing.assert_array_equal(masks[0, 0], inside([(0.2, 0.2), *CORNERS]))


def test_brush_undo_clear_and_copy(images, open_editor):
    page = open_editor(MaskEditor(images, brush=4))
    page.control("brush-tool").click()

    def stroke():
        page.page.mouse.move(*page.at(3.3, 4.4))
        page.page.mouse.down()
        page.page.mouse.move(*page.at(10.6, 4.4))
        page.page.mouse.up()

    masks = page.masks_after(stroke)
    rows, columns = np.mgrid[:12, :16] + 0.5
    outside = np.maximum(0, np.maximum(3.3 - columns, columns - 10.6))
    expected = np.hypot(outside, rows - 4.4) <= 2
    np.testing.assert_array_equal(masks[0, 0], expected)

    dot = page.masks_after(lambda: page.click((14.5, 10.5)))[0, 0]
    assert dot.sum() > expected.sum()
    np.testing.assert_array_equal(dot & ~expected, (np.hypot(columns - 14.5, rows - 10.5) <= 2))
    assert not page.masks_after(lambda: page.control("clear").click()).any()
    np.testing.assert_array_equal(page.masks_after(lambda: page.press("Control+z"))[0, 0], dot)
    masks = page.masks_after(lambda: page.control("undo").click())
    np.testing.assert_array_equal(masks[0, 0], expected)

    masks = page.masks_after(lambda: page.control("copy").click())
    np.testing.assert_array_equal(masks[:, 0], [expected, expected])
    assert page.page.evaluate("model.get('image')") == 1
    assert page.control("copy").is_disabled()
    masks = page.masks_after(lambda: page.press("z"))
    np.testing.assert_array_equal(masks[:, 0], [expected, np.zeros_like(expected)])

    for redo, undo in [("y", "z"), ("Control+y", "Control+z"), ("Control+Shift+Z", "z")]:
        masks = page.masks_after(lambda redo=redo: page.press(redo))
        np.testing.assert_array_equal(masks[:, 0], [expected, expected])
        masks = page.masks_after(lambda undo=undo: page.press(undo))
        np.testing.assert_array_equal(masks[:, 0], [expected, np.zeros_like(expected)])
    page.masks_after(lambda: page.press("z"))
    page.masks_after(lambda: page.control("redo").click())
    page.masks_after(lambda: page.press("x"))
    assert page.control("redo").is_disabled()  # there is another way now


def test_keyboard_alone_draws(images, open_editor):
    page = open_editor(MaskEditor(images, brush=3))
    page.press("b", "[", "[", "ArrowLeft", "ArrowUp")
    masks = page.masks_after(lambda: page.press(" "))
    expected = np.zeros((12, 16), bool)
    expected[5, 7] = True
    np.testing.assert_array_equal(masks[0, 0], expected)
    page.press("PageUp")
    assert page.page.evaluate("model.get('image')") == 1
    page.press("PageDown", "e")
    assert not page.masks_after(lambda: page.press(" ")).any()


def test_volume_slices_are_drawn_in_their_place(rng, open_editor):
    volume = rng.random((1, 1, 5, 6, 7))  # z, x to the left, y to the front
    page = open_editor(
        MaskEditor(volume, affine=AFFINE, plane="coronal", voxel=[2, 3, 1], tool="brush", brush=1)
    )
    # Coronal: columns run to the right (x backwards), rows downwards (z backwards).
    masks = page.masks_after(lambda: page.click((1.5, 0.5), columns=6, rows=5))
    assert np.argwhere(masks[0, 0]).tolist() == [[4, 4, 1]]
    masks = page.masks_after(lambda: page.control("copy").click())
    assert np.argwhere(masks[0, 0]).tolist() == [[4, 4, 1], [4, 4, 2]]
    assert page.page.evaluate("model.get('voxel')") == [2, 3, 2]


def test_scores_show_as_one_draws_and_drawings_from_python_appear(images, open_editor):
    editor = MaskEditor(images, {"map <b>": images})
    page = open_editor(editor)
    note = page.page.locator(".xai-score-note")
    assert "Nothing is drawn on this image yet" in note.inner_text()
    page.click(*CORNERS)
    page.masks_after(lambda: page.press("Enter"))
    cells = page.page.locator(".xai-scores tbody tr").inner_text().split("\t")
    score = editor.scores["map <b>"]
    assert cells == ["map <b>", f"{score['auc']:.3f}", f"{score['dice']:.3f}"]
    assert note.inner_text() == ""

    editor.masks = np.zeros(SHAPE, bool)
    set_drawing = """text => model.set(
        "drawing", new DataView(Uint8Array.from(atob(text), letter => letter.charCodeAt(0)).buffer),
    )"""
    page.page.evaluate(set_drawing, base64.b64encode(editor.drawing).decode())
    page.page.locator(".xai-readout", has_text="0 of 192 pixels").wait_for()
