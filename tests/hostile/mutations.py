"""Small valid files changed at random: the same loader, file and number give the same bytes."""

import gzip
import io
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable

NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    4,
    7,
    8,
    16,
    64,
    99,
    127,
    255,
    256,
    32767,
    32768,
    65535,
    2**31 - 1,
    -(2**31),
    2**32 - 1,
)
REALS = (0.0, -0.0, 1.0, -1.0, 1e-40, 1e30, -1e30, float("nan"), float("inf"), float("-inf"), 3e38, 30000.0)
WORDS = (
    b'"', b"'", b",", b";", b"\t", b"\n", b"\r\n", b"\0", b"=", b"<", b">", b"</label>", b"&a;", b"<!ENTITY a 'b'>",
    b"nan", b"inf", b"1e999", b"-", b"--1", b"0x1", b"1_0", b"9" * 30, b"9" * 5000, b"-9999", b"\xff\xfe",
    b"\xef\xbb\xbf", b"\xc3\xa9", b"\xd9\xa1", b"\xe2\x80\xae", b"../../../etc/passwd", b"/dev/zero", b"~", b"*",
    b"%s%n", b"LIST", b"LOCAL", b"a" * 300, b"n/a", b"True", b"null", b"[]", b"{}",
    b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.1.99",
)  # fmt: skip


def mutated(content: bytes, name: str, chance: random.Random) -> bytes:
    """The content of a file called `name`, changed; where it is packed, mostly inside of the packing."""
    unpack, pack = (
        PACKINGS[kind] if (kind := _kind(name)) in PACKINGS and chance.random() < 0.8 else (None, None)
    )
    if unpack is None:
        return _changed(content, chance)
    return pack(_changed(unpack(content), chance))


def _changed(content: bytes, chance: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        chance.choice(CHANGES)(data, chance)
    return bytes(data)


def _place(data: bytearray, chance: random.Random) -> int:
    """Anywhere, more often near the start, where headers are."""
    return int(len(data) * chance.random() ** chance.choice((1, 2, 4)))


def _flip(data: bytearray, chance: random.Random) -> None:
    if data:
        data[min(_place(data, chance), len(data) - 1)] ^= 1 << chance.randrange(8)


def _byte(data: bytearray, chance: random.Random) -> None:
    if data:
        data[min(_place(data, chance), len(data) - 1)] = chance.randrange(256)


def _number(data: bytearray, chance: random.Random) -> None:
    size, order = chance.choice((1, 2, 4, 8)), chance.choice(("little", "big"))
    place = _place(data, chance) // size * size
    value = chance.choice(NUMBERS) % 256**size
    data[place : place + size] = value.to_bytes(size, order)


def _real(data: bytearray, chance: random.Random) -> None:
    place = _place(data, chance) // 4 * 4
    packed = struct.pack(chance.choice(("<f", "<d")), chance.choice(REALS))
    data[place : place + len(packed)] = packed


def _cut(data: bytearray, chance: random.Random) -> None:
    place = _place(data, chance)
    del data[place : place + chance.choice((1, 2, 4, 16, 200))]


def _truncate(data: bytearray, chance: random.Random) -> None:
    del data[_place(data, chance) :]


def _repeat(data: bytearray, chance: random.Random) -> None:
    place, length = _place(data, chance), chance.choice((1, 4, 8, 40, 300))
    data[place:place] = data[place : place + length] * chance.choice((1, 2, 50))


def _splice(data: bytearray, chance: random.Random) -> None:
    source, place, length = _place(data, chance), _place(data, chance), chance.choice((2, 8, 40, 300))
    data[place : place + length] = data[source : source + length]


def _word(data: bytearray, chance: random.Random) -> None:
    place = _place(data, chance)
    data[place : place + chance.choice((0, 0, 1, 4))] = chance.choice(WORDS)


def _digits(data: bytearray, chance: random.Random) -> None:
    """Another number where the file has one in letters."""
    found = list(re.finditer(rb"\d+(\.\d+)?", bytes(data)))
    if found:
        spot = chance.choice(found)
        data[spot.start() : spot.end()] = str(chance.choice((*NUMBERS, *REALS, "1e9", "x", ""))).encode()


def _blank(data: bytearray, chance: random.Random) -> None:
    place, length = _place(data, chance), chance.choice((4, 16, 100))
    data[place : place + length] = bytes(len(data[place : place + length]))


CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip, _byte, _byte, _number, _number, _real, _cut, _truncate, _repeat, _splice, _word, _digits, _blank,
)  # fmt: skip


def _checked_png(content: bytes) -> bytes:
    """The chunks of a PNG file with the sums that they should have."""
    out, place = bytearray(content[:8]), 8
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        body = content[place + 4 : place + 8 + length]
        out += content[place : place + 4] + body + zlib.crc32(body).to_bytes(4, "big")
        place += 12 + length
    return bytes(out + content[place:])


def _unzip(content: bytes) -> bytes:
    """The largest file in an archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(max(archive.infolist(), key=lambda entry: entry.file_size))


def _zip(content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("map.npy", content)
    return out.getvalue()


def _kind(name: str) -> str:
    return name.rsplit(".", 1)[-1]


PACKINGS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "gz": (gzip.decompress, lambda content: gzip.compress(content, 1)),
    "png": (bytes, _checked_png),
    "npz": (_unzip, _zip),
}
