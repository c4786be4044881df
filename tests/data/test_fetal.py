import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from scipy.special import ellipe

from xaitools.data.fetal import contour_band, load_fetal
from xaitools.errors import DataError, DataFileError, ParameterError, ShapeError

TABLE = "training_set_pixel_size_and_HC.csv"
HEADER = "filename,pixel size(mm),head circumference (mm)"
SHAPE = (54, 80)
CENTER, AXES = (27.0, 42.0), (17.0, 24.0)  # row, column


def load(folder, **arguments):
    return load_fetal(folder, **({"size": 32, "progress": False} | arguments))


def distance_to_ellipse(rows, columns):
    """In pixels of the original grid, to points 0.01 pixels apart."""
    t = np.linspace(0, 2 * np.pi, 15000)
    points = np.c_[CENTER[0] + AXES[0] * np.sin(t), CENTER[1] + AXES[1] * np.cos(t)]
    grid = np.stack([rows.ravel(), columns.ravel()], axis=1)
    return np.array([np.hypot(*(points - place).T).min() for place in grid]).reshape(rows.shape)


def inside():
    rows, columns = np.indices(SHAPE)
    return ((rows - CENTER[0]) / AXES[0]) ** 2 + ((columns - CENTER[1]) / AXES[1]) ** 2 < 1


def filled():
    return Image.fromarray(inside().astype(np.uint8) * 255).convert("RGB")


def line():
    return Image.fromarray((distance_to_ellipse(*np.indices(SHAPE)) < 0.8).astype(np.uint8) * 255)


def picture(seed=0):
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).uniform(0, 255, SHAPE), 1.5)
    return Image.fromarray(noise.astype(np.uint8))


def write_table(folder, rows, header=HEADER):
    (folder / TABLE).write_text("\n".join([header, *rows]) + "\n")


ROWS = ["000_HC.png,0.1,60", "001_HC.png,0.2,100.5", "001_2HC.png,0.25,101", "007_HC.png,0.05,44.3"]


@pytest.fixture
def hc18(tmp_path):
    """Four images of three fetuses, laid out as published."""
    (tmp_path / "training_set").mkdir()
    for number, row in enumerate(ROWS):
        name = row.split(",")[0]
        picture(number).save(tmp_path / "training_set" / name)
        filled().save(tmp_path / "training_set" / name.replace(".png", "_Annotation.png"))
    write_table(tmp_path, ROWS)
    return tmp_path


def test_the_published_layout(hc18):
    samples = load(hc18)
    assert samples.is_regression
    assert (samples.unit, samples.class_names) == ("px", ())
    assert samples.subjects == ("sub-001", "sub-002", "sub-002", "sub-003")
    assert samples.names == ("sub-001", "sub-002_img-1", "sub-002_img-2", "sub-003")
    assert [path.name for path in samples.sources] == [row.split(",")[0] for row in ROWS]
    np.testing.assert_allclose(samples.labels, [600, 502.5, 404, 886], rtol=1e-6)
    np.testing.assert_allclose(samples.numbers["pixel size (mm)"], [0.1, 0.2, 0.25, 0.05], rtol=1e-6)
    np.testing.assert_allclose(samples.numbers["head circumference (mm)"], [60, 100.5, 101, 44.3], rtol=1e-6)
    assert samples.images.shape == samples.masks.shape == (4, 1, 32, 32)
    assert json.loads(json.dumps(samples.info)) == {
        "source": "HC18 ultrasound, head circumference from its table",
        "size": 32,
        "unit": "pixels of the original grid",
        "contour_width": 7.0,
        "contour": "drawn by a sonographer, from the annotation files",
        "n_color": 0,
    }


def test_labels_in_mm(hc18):
    samples = load(hc18, unit="mm")
    assert samples.unit == samples.info["unit"] == "mm"
    np.testing.assert_allclose(samples.labels, [60, 100.5, 101, 44.3], rtol=1e-6)


def test_the_folder_of_the_images_will_do_with_the_table_above_or_beside(hc18):
    whole = load(hc18)
    assert load(hc18 / "training_set").fingerprint() == whole.fingerprint()
    (hc18 / TABLE).rename(hc18 / "training_set" / TABLE)
    assert load(hc18 / "training_set").fingerprint() == load(hc18).fingerprint() == whole.fingerprint()


def test_columns_are_found_whatever_their_spacing_case_and_order(hc18):
    rows = [", ".join(reversed(row.split(","))) for row in ROWS]
    write_table(hc18, rows, "Head Circumference(mm), Pixel_Size (mm), File name")
    np.testing.assert_allclose(load(hc18).labels, [600, 502.5, 404, 886], rtol=1e-6)


def test_images_are_squashed_without_aliasing_and_keep_their_range(hc18):
    stripes = np.tile([[0, 255]], (54, 40)).astype(np.uint8)
    Image.fromarray(stripes).save(hc18 / "training_set" / "000_HC.png")
    half = np.repeat([0, 255], 40)[None].repeat(54, axis=0).astype(np.uint8)
    Image.fromarray(half).save(hc18 / "training_set" / "001_HC.png")
    images = load(hc18).images[:, 0]
    assert (images[0] - 0.5).abs().max() < 0.2
    assert images[1, :, :13].max() < 0.01
    assert images[1, :, 19:].min() > 0.99
    original = np.asarray(picture(3)) / 255
    assert abs(float(images[3].mean()) - original.mean()) < 0.01
    corners = [original[:9, :10].mean(), original[-9:, -10:].mean()]
    assert [float(images[3, :5, :4].mean()), float(images[3, -5:, -4:].mean())] == pytest.approx(
        corners, abs=0.03
    )


def test_sixteen_bits_gray_colors_and_alpha_show_the_same(hc18):
    path = hc18 / "training_set" / "000_HC.png"
    plain = load(hc18).images[0]
    gray = np.asarray(picture(0))
    for same in (
        Image.fromarray(gray.astype(np.uint16) * 257),
        Image.fromarray(gray).convert("RGB"),
        Image.fromarray(gray).convert("RGBA"),
        Image.fromarray(gray).convert("P"),
    ):
        same.save(path)
        torch.testing.assert_close(load(hc18).images[0], plain)


@pytest.mark.parametrize(("bits", "factor"), [(8, 1), (10, 4), (12, 16), (16, 257)])
def test_sixteen_bits_that_hold_fewer_are_not_black(hc18, bits, factor):
    """The second is darker than half of the first, which it stays."""
    bright, dark = np.asarray(picture(0)).astype(np.uint16), np.asarray(picture(3)).astype(np.uint16) // 2
    bright[0, 0] = 255
    for name, gray in (("000_HC.png", bright), ("007_HC.png", dark)):
        Image.fromarray(gray.astype(np.uint8)).save(hc18 / "training_set" / name)
    expected = load(hc18)
    assert "n_16_bit" not in expected.info
    for name, gray in (("000_HC.png", bright), ("007_HC.png", dark)):
        Image.fromarray(gray * factor).save(hc18 / "training_set" / name)
    samples = load(hc18)
    scale = 255 * factor / (2**bits - 1)
    torch.testing.assert_close(samples.images[0], expected.images[0] * scale, atol=1e-6, rtol=0)
    torch.testing.assert_close(samples.images[3], expected.images[3] * scale, atol=1e-6, rtol=0)
    assert samples.images[1].equal(expected.images[1])
    assert (samples.info["n_16_bit"], samples.info["bits_used_of_16"]) == (2, bits)


def test_annotations_in_other_pictures_show_the_same_outline(hc18):
    path = hc18 / "training_set" / "000_HC_Annotation.png"
    drawn = np.asarray(filled().convert("L")) > 0
    filled().save(path)
    expected = load(hc18).masks
    white = np.full((*SHAPE, 4), 255, dtype=np.uint8)
    white[..., 3] = drawn * 255
    red = Image.fromarray(drawn.astype(np.uint8)).convert("P")
    red.putpalette([255, 255, 255, 255, 0, 0])
    for same in (
        Image.fromarray(drawn.astype(np.uint16) * 255),
        Image.fromarray(drawn.astype(np.uint8)),
        Image.fromarray(white),
        red,
    ):
        same.save(path)
        assert load(hc18).masks.equal(expected)


def test_colors_become_luminance_with_one_warning(hc18):
    red = np.zeros((*SHAPE, 3), dtype=np.uint8)
    red[10:, :, 0] = 255
    for name in ("000_HC.png", "001_HC.png"):
        Image.fromarray(red).save(hc18 / "training_set" / name)
    with pytest.warns(UserWarning, match="2 of 4 images are in color") as caught:
        samples = load(hc18)
    assert len(caught) == 1
    assert samples.info["n_color"] == 2
    assert float(samples.images[0].max()) == pytest.approx(0.299, abs=2e-3)


@pytest.mark.parametrize("width", [1, 3, 7.5])
def test_the_band_is_what_lies_within_half_its_width_of_the_ellipse(width):
    t = np.linspace(0, 2 * np.pi, 400)
    points = np.c_[CENTER[0] + AXES[0] * np.sin(t), CENTER[1] + AXES[1] * np.cos(t)]
    band = contour_band(points, SHAPE, 32, width)
    small = (points + 0.5) * 32 / np.array(SHAPE) - 0.5
    expected = np.zeros((32, 32), dtype=bool)
    for row in range(32):
        for column in range(32):
            away = np.abs(small - (row, column))
            near = np.hypot(*away.T).min() <= width / 2
            expected[row, column] = near or (away.max(axis=1) < 0.5).any()
    assert (band == expected).all()
    assert ndimage.binary_fill_holes(band).sum() > band.sum() + 100


@pytest.mark.parametrize("draw", [filled, line])
def test_a_line_and_a_filled_ellipse_give_the_ellipse(hc18, draw):
    draw().save(hc18 / "training_set" / "000_HC_Annotation.png")
    mask = load(hc18, size=54, contour_width=4).masks[0, 0].numpy()
    rows, columns = np.indices((54, 54))
    t = np.linspace(0, 2 * np.pi, 4000)
    ellipse = np.c_[
        CENTER[0] + AXES[0] * np.sin(t), (CENTER[1] + 0.5) * 54 / 80 - 0.5 + AXES[1] * 54 / 80 * np.cos(t)
    ]
    distance = np.array(
        [np.hypot(*(ellipse - place).T).min() for place in zip(rows.ravel(), columns.ravel(), strict=True)]
    ).reshape(54, 54)
    assert mask[distance < 1.5].all()
    assert not mask[distance > 3.2].any()


def test_a_head_that_the_border_cuts_has_no_contour_along_the_border(hc18):
    cut = np.roll(inside(), 20, axis=0)
    cut[:20] = False
    Image.fromarray(cut.astype(np.uint8) * 255).save(hc18 / "training_set" / "000_HC_Annotation.png")
    mask = load(hc18, contour_width=2).masks[0, 0]
    columns = np.flatnonzero(cut[-1]) * 32 / 80
    middle = int(columns.mean())
    assert mask[:-2, middle].any()
    assert not mask[-2:, middle - 3 : middle + 4].any()


@pytest.mark.parametrize("n_missing", [1, 4])
def test_missing_annotations_leave_empty_masks_and_are_counted(hc18, n_missing):
    for row in ROWS[:n_missing]:
        (hc18 / "training_set" / row.split(",")[0].replace(".png", "_Annotation.png")).unlink()
    samples = load(hc18)
    assert samples.has_mask.tolist() == [False] * n_missing + [True] * (4 - n_missing)
    assert ("1 of 4 images have none" if n_missing == 1 else "none: no annotation file") in samples.info[
        "contour"
    ]


@pytest.mark.parametrize(("n_subjects", "expected"), [(1, [0]), (2, [0, 3]), (3, range(4)), (9, range(4))])
def test_so_many_fetuses_evenly_spaced_with_the_ids_that_they_have_among_all(hc18, n_subjects, expected):
    whole = load(hc18)
    assert load(hc18, n_subjects=n_subjects).names == tuple(whole.names[k] for k in expected)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [*ROWS, "008_HC.png,0.1,60", "009_HC.png,0.1,60"],
            "2 of 6 rows name an image that is not in.*, the first is row 5 below the header",
        ),
        (ROWS[:3], r"no row for 1 of 4 images in.*, the first is file 4 of 4 \(sorted\)"),
        ([*ROWS, ROWS[1]], "rows 2 and 5 below the header are of one image"),
        ([], "no rows"),
        *(
            (
                [f"000_HC.png,{pixel},{hc}", *ROWS[1:]],
                f"row 1 below the header: the {what} '{cell}'.*positive",
            )
            for pixel, hc, what, cell in (
                ("", "60", "pixel size", ""),
                ("0", "60", "pixel size", "0"),
                ("inf", "60", "pixel size", "inf"),
                ("0.1", "-60", "head circumference", "-60"),
                ("0.1", "nan", "head circumference", "nan"),
                ("0.1", "n/a", "head circumference", "n/a"),
                ("-4", "60", "pixel size", "-4"),
                ("0.1", "9999", "head circumference", "9999"),
            )
        ),
    ],
)
def test_a_table_that_does_not_fit_is_refused(hc18, rows, message):
    write_table(hc18, rows)
    with pytest.raises((DataError, DataFileError), match=f"{TABLE}[:,] .*{message}"):
        load(hc18)


def test_one_fetus_in_two_spellings_is_refused(hc18):
    (hc18 / "training_set" / "001_2HC.png").rename(hc18 / "training_set" / "1_2HC.png")
    write_table(hc18, [row.replace("001_2HC", "1_2HC") for row in ROWS])
    with pytest.raises(
        DataError,
        match="the subjects of row 2 below the header and row 3 below the header are written in two ways",
    ):
        load(hc18)


def test_a_missing_column_is_named(hc18):
    write_table(hc18, [row.rsplit(",", 1)[0] for row in ROWS], "filename,pixel size(mm)")
    with pytest.raises(
        DataError, match=r"0 columns for the head circumference among \['filename', 'pixel size\(mm\)'\]"
    ):
        load(hc18)


def test_another_naming_is_refused(hc18):
    (hc18 / "training_set" / "000_HC.png").rename(hc18 / "training_set" / "head.png")
    write_table(hc18, ["head.png,0.1,60", *ROWS[1:]])
    with pytest.raises(DataError, match=r"a file named 'head.png'.*010_HC.png"):
        load(hc18)


def test_missing_folders_tables_and_images_are_named(hc18, tmp_path):
    with pytest.raises(DataFileError, match="nowhere: no such folder"):
        load(tmp_path / "nowhere")
    with pytest.raises(
        DataFileError, match="csv: a file; expected a folder; give the one that holds training_set"
    ):
        load(hc18 / TABLE)
    (hc18 / TABLE).rename(hc18 / "other.csv")
    with pytest.raises(DataFileError, match=f"no table {TABLE}"):
        load(hc18)
    empty = tmp_path / "empty"
    empty.mkdir()
    write_table(empty, ROWS)
    with pytest.raises(DataFileError, match="empty: no PNG image in it"):
        load(empty)
    (empty / TABLE).write_bytes(b"")
    with pytest.raises(DataFileError, match=f"{TABLE}: cannot be read as a CSV or TSV table"):
        load(empty)


@pytest.mark.parametrize("whole", [True, False])
def test_the_test_set_is_refused_for_having_no_circumferences(hc18, whole):
    (hc18 / "training_set").rename(hc18 / "test_set")
    (hc18 / "test_set_pixel_size.csv").write_text("filename,pixel size(mm)\n000_HC.png,0.1\n")
    if whole:
        (hc18 / TABLE).unlink()
    with pytest.raises(DataError, match="published without annotations and circumferences"):
        load(hc18 if whole else hc18 / "test_set")


def test_the_test_set_beside_the_training_set_does_no_harm(hc18):
    (hc18 / "test_set").mkdir()
    (hc18 / "test_set_pixel_size.csv").write_text("filename,pixel size(mm)\n000_HC.png,0.1\n")
    assert len(load(hc18)) == 4


@pytest.mark.parametrize(
    ("name", "shown"),
    [("001_HC.png", "sub-002_img-1"), ("001_HC_Annotation.png", "sub-002_img-1's annotation")],
)
def test_a_truncated_file_is_named_by_its_study_id(hc18, name, shown):
    path = hc18 / "training_set" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataFileError, match=f"^{shown}: cannot be read as a picture") as caught:
        load(hc18)
    assert caught.value.file == path
    assert "001_" not in str(caught.value)


def test_unusable_pictures_are_named(hc18):
    annotation = hc18 / "training_set" / "007_HC_Annotation.png"
    Image.new("L", (80, 54)).save(annotation)
    with pytest.raises(DataError, match=r"^sub-003's annotation: no outline is drawn"):
        load(hc18)
    Image.new("L", (54, 80)).save(annotation)
    with pytest.raises(
        ShapeError, match=r"^sub-003's annotation: an annotation of \(80, 54\) pixels.*\(54, 80\)"
    ):
        load(hc18)
    Image.new("L", (80, 54), 51).save(hc18 / "training_set" / "007_HC.png")
    with pytest.raises(DataError, match=r"^sub-003: all pixels have the value 0.2"):
        load(hc18)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "size=0"),
        ({"unit": "cm"}, "unit='cm' is unknown; expected one of px, mm"),
        ({"contour_width": 0.5}, "contour_width=0.5; expected 1 to 32"),
        ({"contour_width": float("nan")}, "contour_width=nan"),
        ({"n_subjects": 0}, "n_subjects=0"),
    ],
)
def test_arguments_out_of_range_are_refused(hc18, arguments, message):
    with pytest.raises(ParameterError, match=message):
        load(hc18, **arguments)


def fitted_circumference(mask, shape):
    """Perimeter of the ellipse fitted to a band, in pixels of the original grid."""
    rows, columns = (np.nonzero(mask) + np.full((2, 1), 0.5)) * np.array(shape)[:, None] / len(mask)
    x, y = columns - columns.mean(), rows - rows.mean()
    terms = np.stack([x * x, x * y, y * y, x, y], axis=1)
    a, b, c, d, e = np.linalg.lstsq(terms, np.ones(len(x)), rcond=None)[0]
    shape_matrix = np.array([[a, b / 2], [b / 2, c]])
    level = 1 + np.array([d, e]) @ np.linalg.solve(shape_matrix, [d, e]) / 4
    minor, major = np.sqrt(level / np.linalg.eigvalsh(shape_matrix)[::-1])
    return 4 * major * ellipe(1 - (minor / major) ** 2)


def test_real_contours_fit_the_circumferences_of_the_table(real_data):
    samples = load_fetal(real_data / "hc18", n_subjects=30, contour_width=1, progress=False)
    assert len(set(samples.subjects)) == 30
    assert samples.has_mask.all()
    assert 500 < samples.labels.min() < 800 < 1400 < samples.labels.max() < 1800
    differences = []
    for label, mask, path in zip(
        samples.labels.tolist(), samples.masks[:, 0].numpy(), samples.sources, strict=True
    ):
        with Image.open(path) as file:
            columns, rows = file.size
        differences.append(fitted_circumference(mask, (rows, columns)) - label)
    # Where the ellipse is filled, its edge is the outer one of a line 3 pixels wide: about 2 pi 1.4 more.
    assert -2 < np.mean(differences) < 11
    assert np.std(differences) < 4
