"""Malformed NIfTI files, for all loaders of volumes."""

import gzip
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tests.hostile.case import Case

# Where each loader has a NIfTI file.
PLACES = {
    "ct_nifti": "a.nii.gz",
    "brains_flat": "t1/P1_T1.nii.gz",
    "brains_bids": "sub-0/ses-M00/anat/sub-0_ses-M00_T1w.nii",
    "volumes": "b.nii",
    "atlas": "a.nii.gz",
}
DIM, TYPE, BITS, PIXDIM, OFFSET, SLOPE, FORMS, SFORM, MAGIC = 40, 70, 72, 76, 108, 112, 252, 280, 344
GIB = 2**30


def opened(path: Path) -> bytes:
    """The content of a file, inflated if its name says so."""
    return gzip.decompress(path.read_bytes()) if path.name.endswith(".gz") else path.read_bytes()


def store(path: Path, content: bytes) -> None:
    """Write a file, deflated if its name says so."""
    path.write_bytes(gzip.compress(content, 1) if path.name.endswith(".gz") else content)


def put(place: int, form: str, *values: float) -> Callable[[Path], None]:
    """Another number in a header."""

    def damage(path: Path) -> None:
        content = bytearray(opened(path))
        struct.pack_into(f"<{form}", content, place, *values)
        store(path, bytes(content))

    return damage


def cut(length: int) -> Callable[[Path], None]:
    """Fewer bytes than there should be."""

    def damage(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:length])

    return damage


def inflating(header: Callable[[bytearray], None], gib: int, path: Path) -> None:
    """A file of some MB that inflates to so many GiB, each of them a member of its own of 1 GiB of zeros."""
    start = bytearray(opened(path)[:352])
    header(start)
    zeros = gzip.compress(bytes(2**26), 9)
    path.write_bytes(gzip.compress(bytes(start)) + zeros * (16 * gib))


def huge(shape: tuple[int, ...]) -> Callable[[bytearray], None]:
    """A header of so many bytes."""

    def change(header: bytearray) -> None:
        struct.pack_into("<8h", header, DIM, len(shape), *shape, *[1] * (7 - len(shape)))
        struct.pack_into("<2h", header, TYPE, 2, 8)

    return change


def extension(header: bytearray) -> None:
    """An extension of 2 GiB, of which the header says that it is small."""
    header[348] = 1
    struct.pack_into("<f", header, OFFSET, 384)
    header += struct.pack("<2i", 2**31 - 16, 4)


def extensions_without_end(header: bytearray) -> None:
    """A header after which extensions may follow until the file ends."""
    header[348] = 1
    struct.pack_into("<f", header, OFFSET, 0)


HEADERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (cut(0), ""),
    "one byte": (cut(1), ""),
    "magic only": (cut(4), ""),
    "half a header": (cut(174), ""),
    "no voxel": (lambda path: store(path, opened(path)[:352]), ""),
    "one byte short": (lambda path: store(path, opened(path)[:-1]), ""),
    "text": (lambda path: path.write_text("no image"), ""),
    "HTML": (lambda path: path.write_text("<!doctype html><title>404</title>" * 40), ""),
    "zip": (lambda path: path.write_bytes(b"PK\3\4" + bytes(400)), ""),
    "noise": (lambda path: path.write_bytes(np.random.default_rng(0).bytes(2000)), ""),
    "wrong magic": (put(MAGIC, "4s", b"nope"), ""),
    "header of 0 bytes": (put(0, "i", 0), "?"),
    "header of 540 bytes": (put(0, "i", 540), "?"),
    "0 dimensions": (put(DIM, "h", 0), ""),
    "99 dimensions": (put(DIM, "h", 99), ""),
    "-1 dimensions": (put(DIM, "h", -1), ""),
    "4 dimensions": (put(DIM, "8h", 4, 8, 9, 5, 2, 1, 1, 1), "4 dimensions"),
    "7 dimensions": (put(DIM, "8h", 7, 2, 2, 2, 2, 2, 2, 2), "7 dimensions"),
    "length 0": (put(DIM + 2, "h", 0), "by its header"),
    "length -8": (put(DIM + 2, "h", -8), "by its header"),
    "lengths of 30000": (put(DIM + 2, "3h", 30000, 30000, 30000), "more than .* voxels"),
    "lengths that the file cannot hold": (put(DIM + 2, "3h", 800, 800, 800), "cannot hold"),
    "type unknown": (put(TYPE, "h", 12345), ""),
    "type 0": (put(TYPE, "h", 0), ""),
    "type of colors": (put(TYPE, "2h", 128, 24), ""),
    "type of complex numbers": (put(TYPE, "2h", 1792, 128), ""),
    "voxels at -1000": (put(OFFSET, "f", -1000), ""),
    "voxels at 1e30": (put(OFFSET, "f", 1e30), ""),
    "voxels at NaN": (put(OFFSET, "f", float("nan")), ""),
    "voxels at 2 GB": (put(OFFSET, "f", 2e9), ""),
    "no orientation": (put(FORMS, "2h", 0, 0), "neither sform nor qform"),
    "sform of 0": (put(SFORM, "12f", *[0] * 12), "affine"),
    "sform of NaN": (put(SFORM, "12f", *[float("nan")] * 12), "affine"),
    "sform of inf": (put(SFORM, "12f", *[float("inf")] * 12), ""),
    "sform of 1e38": (put(SFORM, "12f", *[1e38] * 12), ""),
    "pixdim of NaN": (put(PIXDIM, "8f", *[float("nan")] * 8), ""),
    "pixdim of inf": (put(PIXDIM, "8f", *[float("inf")] * 8), ""),
    "pixdim of 0": (put(PIXDIM, "8f", *[0] * 8), ""),
    "slope and intercept 1e38": (put(SLOPE, "2f", 1e38, 1e38), ""),
    "a bomb of 4 GiB": (lambda path: inflating(huge((1300, 1300, 2600)), 4, path), "more than .* voxels"),
    "a bomb of an extension": (lambda path: inflating(extension, 3, path), ""),
    "a bomb of extensions": (lambda path: inflating(extensions_without_end, 3, path), ""),
}  # fmt: skip
PACKED = {
    "empty gzip": gzip.compress(b""),
    "gzip of text": gzip.compress(b"no image" * 100),
    "gzip cut in its header": gzip.compress(bytes(1000))[:7],
    "gzip with a wrong length": gzip.compress(bytes(3000))[:-4] + b"\1\2\3\4",
    "gzip of a gzip": gzip.compress(gzip.compress(bytes(3000))),
    "gzip of method 9": b"\x1f\x8b\x09" + bytes(100),
}
HARMLESS = {
    "an intent of noise": put(328, "16s", b"\xff\xfe<script>\0\n\x80"),
    "a description of noise": put(148, "80s", b"\xff\xfe<script>\0\n\x80"),
}


def cases() -> Iterator[Case]:
    """Each malformed header in the folder of one loader in turn, and the worst ones in that of each."""
    for number, (name, (damage, says)) in enumerate(HEADERS.items()):
        for loader in PLACES:
            packed = "bomb" not in name or PLACES[loader].endswith(".gz")
            in_turn = list(PLACES)[number % len(PLACES)] == loader
            if packed and (in_turn or "bomb" in name or "30000" in name or name in ("empty", "sform of NaN")):
                yield Case(
                    loader,
                    name,
                    lambda folder, loader=loader, damage=damage: damage(folder / PLACES[loader]),
                    says or ".",
                )
    for number, (name, content) in enumerate(PACKED.items()):
        loader = ("ct_nifti", "brains_flat", "atlas")[number % 3]
        yield Case(
            loader,
            name,
            lambda folder, loader=loader, content=content: (folder / PLACES[loader]).write_bytes(content),
            ".",
        )
    for name, damage in HARMLESS.items():
        for loader in PLACES:
            yield Case(
                loader, name, lambda folder, loader=loader, damage=damage: damage(folder / PLACES[loader])
            )
