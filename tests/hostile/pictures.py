"""Malformed pictures, for the loaders of pictures, ultrasound and masks."""

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tests.hostile.case import Case

PLACES = {"pictures": "a.png", "fetal": "training_set/001_HC.png", "ct_masks": "masks/a.png"}


def chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(
    width: int, height: int, rows: bytes = b"", *, bits: int = 8, color: int = 0, more: bytes = b""
) -> bytes:
    """A PNG file of so many pixels by its header."""
    header = struct.pack(">2I5B", width, height, bits, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + more + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def black(width: int, height: int) -> bytes:
    """All rows of a black picture, deflated 1000 to 1."""
    deflater = zlib.compressobj(9)
    rows = [deflater.compress(bytes(width + 1)) for _ in range(height)]
    return b"".join(rows) + deflater.flush()


def save(**options: object) -> Callable[[Path], None]:
    """A picture that PIL writes in some form, whatever its name."""

    def damage(path: Path) -> None:
        values = np.add.outer(np.arange(12) * 9, np.arange(14) * 7).astype(np.uint8)
        Image.fromarray(values).save(path, **options)

    return damage


def frames(path: Path) -> None:
    """A PNG file that moves."""
    first, second = (Image.new("L", (14, 12), value) for value in (0, 99))
    first.save(path, save_all=True, append_images=[second])


def content(data: bytes) -> Callable[[Path], object]:
    """A file of these bytes."""
    return lambda path: path.write_bytes(data)


def cut(length: int) -> Callable[[Path], object]:
    """Fewer bytes than there should be."""
    return lambda path: path.write_bytes(path.read_bytes()[:length])


POSTSCRIPT = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 14 12\n(hostile) (w) file closefile\nshowpage\n%%EOF\n"
)
FILES: dict[str, Callable[[Path], object]] = {
    "empty": cut(0),
    "one byte": cut(1),
    "signature only": cut(8),
    "half a header": cut(20),
    "no row": cut(45),
    "half of the rows": cut(50),
    "text": content(b"no image"),
    "HTML": content(b"<!doctype html><script>alert(1)</script>"),
    "PostScript": content(POSTSCRIPT),
    "SVG": content(b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"),
    "noise": content(np.random.default_rng(0).bytes(2000)),
    "0 x 0 pixels": content(png(0, 0)),
    "4294967295 x 4294967295 pixels": content(png(2**32 - 1, 2**32 - 1)),
    "100000 x 100000 pixels": content(png(10**5, 10**5)),
    "a bomb of 60000 x 60000 pixels": content(png(60000, 60000, zlib.compress(bytes(10**7)))),
    "a bomb of 9000 x 9000 pixels": lambda path: path.write_bytes(png(9000, 9000, black(9000, 9000))),
    "1 x 9000000 pixels": lambda path: path.write_bytes(png(1, 9 * 10**6, zlib.compress(bytes(18 * 10**6), 1))),
    "a bomb of text": content(png(14, 12, more=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8))))),
    "a bomb of a profile": content(png(14, 12, more=chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(10**8))))),
    "7 bits": content(png(14, 12, bits=7)),
    "a color of kind 9": content(png(14, 12, color=9)),
    "a palette that is missing": content(png(14, 12, zlib.compress(bytes(15 * 12)), color=3)),
    "rows that are not deflated": content(png(14, 12, bytes(200))),
    "GIF": save(format="GIF"),
    "TIFF": save(format="TIFF"),
    "BMP": save(format="BMP"),
    "moving": frames,
    "constant": content(png(14, 12, zlib.compress(bytes(15 * 12)))),
}  # fmt: skip
JPEGS: dict[str, Callable[[Path], object]] = {
    "JPEG that is empty": cut(0),
    "JPEG cut": cut(300),
    "JPEG of 65535 x 65535 pixels": content(
        b"\xff\xd8\xff\xc0\0\x0b\x08\xff\xff\xff\xff\1\1\x11\0" + bytes(99)
    ),
}


def cases() -> Iterator[Case]:
    """Each file in the folder of each loader."""
    for name, damage in FILES.items():
        for loader, file in PLACES.items():
            says = "?" if name in ("moving",) else "."
            yield Case(loader, name, lambda folder, file=file, damage=damage: damage(folder / file), says)
    for name, damage in JPEGS.items():
        yield Case("pictures", name, lambda folder, damage=damage: damage(folder / "b.jpg"), ".")
