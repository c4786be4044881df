import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from xaitools.data.pictures import brightness, drawn_pixels, luma, read_picture
from xaitools.errors import DataError, DataFileError

INSIDE = np.zeros((64, 64), dtype=bool)
INSIDE[20:30, 40:55] = True  # 150 of 4096 pixels


def colored(ground, drawn, mode):
    pixels = np.where(INSIDE[..., None], np.array(drawn), np.array(ground)).astype(np.uint8)
    return Image.fromarray(pixels.squeeze(-1) if pixels.shape[2] == 1 else pixels, mode)


def palette(colors, ground=0, drawn=1, transparency=None):
    picture = Image.fromarray(np.where(INSIDE, drawn, ground).astype(np.uint8), "P")
    picture.putpalette([value for color in colors for value in color])
    if transparency is not None:
        picture.info["transparency"] = transparency
    return picture


BLACK, WHITE, RED, GREEN = (0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0)
CLEAR = {
    "1": lambda: Image.fromarray(INSIDE),
    "L": lambda: colored([0], [255], "L"),
    "L of labels": lambda: colored([0], [1], "L"),
    "I;16": lambda: Image.fromarray(INSIDE.astype(np.uint16) * 300),
    "RGB": lambda: colored(BLACK, (0, 0, 1), "RGB"),
    "RGBA opaque": lambda: colored((*BLACK, 255), (*RED, 255), "RGBA"),
    "RGBA half transparent": lambda: colored((*BLACK, 128), (*RED, 128), "RGBA"),
    "RGBA with a transparent white ground": lambda: colored((*WHITE, 0), (*RED, 255), "RGBA"),
    "RGBA, black on a transparent ground": lambda: colored((*WHITE, 0), (*BLACK, 255), "RGBA"),
    "LA with a transparent white ground": lambda: colored([255, 0], [255, 255], "LA"),
    "palette, black ground": lambda: palette([BLACK, WHITE]),
    "palette, white ground": lambda: palette([WHITE, RED]),
    "palette, transparent ground": lambda: palette([WHITE, RED], transparency=0),
    "palette, transparent ground, drawn in black": lambda: palette([WHITE, BLACK], transparency=0),
    "palette, black at another index that is not used": lambda: palette([RED, GREEN, BLACK]),
}


@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
@pytest.mark.parametrize("case", CLEAR)
def test_what_is_drawn_is_found_in_every_kind_of_picture(tmp_path, case):
    path = tmp_path / "mask.png"
    CLEAR[case]().save(path)
    drawn = drawn_pixels(read_picture(path), path)
    np.testing.assert_array_equal(drawn > 0, INSIDE)


def fading():
    """Nowhere transparent, but not of one transparency."""
    return colored((*BLACK, 100), (*WHITE, 255), "RGBA")


def three_kinds():
    """A transparent corner, an opaque black ground, something drawn."""
    pixels = np.array(colored((*BLACK, 255), (*RED, 255), "RGBA"))
    pixels[:5, :5] = 0
    return Image.fromarray(pixels)


AMBIGUOUS = {
    "palette, drawn at index 0": lambda: palette([WHITE, BLACK], ground=1, drawn=0),
    "palette, another index transparent": lambda: palette([WHITE, RED], ground=1, drawn=0, transparency=1),
    "fading": fading,
    "three kinds": three_kinds,
}


@pytest.mark.filterwarnings("ignore:'mode' parameter:DeprecationWarning")
@pytest.mark.parametrize("case", AMBIGUOUS)
def test_a_picture_that_can_be_read_in_two_ways_is_refused(tmp_path, case):
    path = tmp_path / "mask.png"
    AMBIGUOUS[case]().save(path)
    with pytest.raises(DataError, match=r"mask\.png: what is drawn cannot be told.*expected gray values"):
        drawn_pixels(read_picture(path), path)


def bomb(side):
    """The bytes of a PNG file whose header promises side x side pixels."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"0" * 100))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a picture"),
        (b"no picture", "cannot be read as a picture"),
        (bomb(200)[:60], "cannot be read as a picture"),
        (bomb(11_000), "more than .* pixels"),
        (bomb(60_000), "more than .* pixels"),
    ],
)
def test_a_file_that_is_no_picture_or_too_large_is_named(tmp_path, content, message):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataFileError, match=rf"a\.png: {message}"):
        read_picture(tmp_path / "a.png")


def several_frames(path):
    Image.new("L", (4, 4)).save(path, save_all=True, append_images=[Image.new("L", (4, 4), 9)])


def test_brightness_is_a_part_of_the_largest_number_of_a_type(tmp_path):
    colors = np.random.default_rng(0).integers(0, 256, (5, 4, 3)).astype(np.uint8)
    cases = {
        "gray": (Image.fromarray(colors[..., 0]), colors[..., :1] / 255),
        "bits": (Image.fromarray(colors[..., 0] > 99), (colors[..., :1] > 99).astype(float)),
        "deep": (Image.fromarray(colors[..., 0].astype(np.uint16) * 257), colors[..., :1] / 255),
        "colors": (Image.fromarray(colors), colors / 255),
        "opaque": (Image.fromarray(np.dstack([colors, np.full((5, 4), 255, np.uint8)])), colors / 255),
    }
    for name, (picture, expected) in cases.items():
        path = tmp_path / f"{name}.png"
        picture.save(path)
        found = brightness(read_picture(path), path)
        assert found.dtype == np.float64
        np.testing.assert_array_equal(found, expected, err_msg=name)
    np.testing.assert_allclose(luma(colors / 255)[..., 0], colors @ [0.299, 0.587, 0.114] / 255, atol=1e-12)
    half = Image.fromarray(np.dstack([np.full((5, 4, 3), 255, np.uint8), np.full((5, 4), 128, np.uint8)]))
    half.save(tmp_path / "half.png")
    with pytest.raises(DataError, match=r"half\.png: transparent pixels"):
        brightness(half, tmp_path / "half.png")
    np.testing.assert_allclose(brightness(half, tmp_path, ground="black"), 128 / 255, atol=1 / 255)


def test_pictures_without_one_brightness_are_refused(tmp_path):
    several_frames(tmp_path / "a.png")
    with pytest.raises(DataError, match="2 frames; expected one picture"):
        read_picture(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: floating-point values"):
        brightness(Image.fromarray(np.eye(4, dtype=np.float32)), tmp_path / "a.png")
