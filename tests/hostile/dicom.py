"""Malformed DICOM files, for all loaders of slices and pictures."""

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import (
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
)

from tests.hostile.case import Case
from tests.hostile.small import dicom

EITHER = "?"
MARKER = bytes(128) + b"DICM"
SYNTAX = b"1.2.840.10008.1.2.1\0"


def tags(**values: object) -> Callable[[Path], object]:
    """Other tags; None leaves one out."""
    return lambda path: dicom(path, patient="p02", agent="Iohexol", **values)


def raw(keyword: str, value: bytes, vr: str = "") -> Callable[[Path], None]:
    """The bytes of an element as they are, of an even number."""

    def damage(path: Path) -> None:
        number = pydicom.datadict.tag_for_keyword(keyword)
        vr_here = (vr or pydicom.datadict.dictionary_VR(number)).encode()
        place = struct.pack("<2H", number >> 16, number & 0xFFFF)
        content = path.read_bytes()
        start = content.index(place + pydicom.datadict.dictionary_VR(number).encode())
        length = struct.unpack_from("<H", content, start + 6)[0]
        element = place + vr_here + struct.pack("<H", len(value)) + value
        path.write_bytes(content[:start] + element + content[start + 8 + length :])

    return damage


def syntax(uid: str) -> Callable[[Path], None]:
    """A transfer syntax in which the rest of the file is not."""

    def damage(path: Path) -> None:
        content = path.read_bytes()
        start = content.index(SYNTAX) - 8
        word = uid.encode() + b"\0" * (len(uid) % 2)
        element = content[start : start + 6] + struct.pack("<H", len(word)) + word
        path.write_bytes(content[:start] + element + content[start + 8 + len(SYNTAX) :])

    return damage


def deflated(content: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """A deflated file, of which `content` makes the deflated part from the one that it should have."""

    def damage(path: Path) -> None:
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        dataset.save_as(path)
        stored = path.read_bytes()
        start = 144 + struct.unpack_from("<I", stored, 140)[0]
        path.write_bytes(stored[:start] + content(stored[start:]))

    return damage


def bomb(part: bytes) -> bytes:
    """Some MB that inflate to 2 GiB, of the kind that a deflated DICOM file has."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    whole = zlib.decompressobj(-zlib.MAX_WBITS).decompress(part)
    start = deflater.compress(whole) + deflater.flush(zlib.Z_FULL_FLUSH)
    zeros = deflater.compress(bytes(2**24)) + deflater.flush(zlib.Z_FULL_FLUSH)
    return start + zeros * 128 + deflater.flush()


def nested(depth: int) -> Callable[[Path], None]:
    """Sequences within sequences."""

    def damage(path: Path) -> None:
        content = path.read_bytes()
        start = struct.pack("<2H2s2xI", 0x0008, 0x1140, b"SQ", 0xFFFFFFFF) + struct.pack(
            "<2HI", 0xFFFE, 0xE000, 0xFFFFFFFF
        )
        end = struct.pack("<2HI", 0xFFFE, 0xE00D, 0) + struct.pack("<2HI", 0xFFFE, 0xE0DD, 0)
        place = content.index(struct.pack("<2H2s", 0x0010, 0x0020, b"LO"))
        path.write_bytes(content[:place] + start * depth + end * depth + content[place:])

    return damage


def encapsulated(uid: str, frame: bytes, **values: object) -> Callable[[Path], None]:
    """A compressed file with these bytes as its one frame."""

    def damage(path: Path) -> None:
        dataset = dicom(path, patient="p02", agent="Iohexol", **values)
        dataset.file_meta.TransferSyntaxUID = uid
        dataset.PixelData = pydicom.encaps.encapsulate([frame])
        dataset["PixelData"].VR = "OB"
        pydicom.dcmwrite(path, dataset)

    return damage


def cut(length: int) -> Callable[[Path], None]:
    """Fewer bytes than there should be; from the end if below 0."""
    return lambda path: path.write_bytes(path.read_bytes()[:length])


FILES: dict[str, Callable[[Path], object]] = {
    "empty": cut(0),
    "preamble only": cut(128),
    "marker only": cut(132),
    "half a meta header": cut(180),
    "half a header": cut(500),
    "no pixel": cut(-336),
    "one byte short": cut(-1),
    "text": lambda path: path.write_text("no image"),
    "noise": lambda path: path.write_bytes(np.random.default_rng(0).bytes(2000)),
    "noise after the marker": lambda path: path.write_bytes(MARKER + np.random.default_rng(0).bytes(2000)),
    "zeros after the marker": lambda path: path.write_bytes(MARKER + bytes(2000)),
    "65535 rows": tags(Rows=65535),
    "65535 x 65535 pixels": tags(Rows=65535, Columns=65535),
    "0 rows": tags(Rows=0),
    "no rows": tags(Rows=None),
    "rows of text": raw("Rows", b"many", "LO"),
    "two rows": tags(Rows=[12, 12]),
    "7 bits": tags(BitsAllocated=7),
    "0 bits": tags(BitsAllocated=0),
    "1 bit": tags(BitsAllocated=1, BitsStored=1, HighBit=0),
    "64 bits": tags(BitsAllocated=64),
    "no bits": tags(BitsAllocated=None),
    "representation 7": tags(PixelRepresentation=7),
    "3 samples": tags(SamplesPerPixel=3),
    "0 samples": tags(SamplesPerPixel=0),
    "no photometric interpretation": tags(PhotometricInterpretation=None),
    "pixels of no byte": tags(PixelData=b""),
    "2147483647 frames": tags(NumberOfFrames=2147483647),
    "-1 frames": tags(NumberOfFrames=-1),
    "sequences 20000 deep": nested(20000),
    "JPEG that is none": syntax(JPEGBaseline8Bit),
    "JPEG 2000 that is none": syntax(JPEG2000),
    "RLE that is none": syntax(RLELossless),
    "big endian that is little": syntax(ExplicitVRBigEndian),
    "an unknown syntax": syntax("1.2.3.4.5"),
    "a syntax of text": syntax("<script>"),
    "deflated that is not": syntax(DeflatedExplicitVRLittleEndian),
    "deflated and cut": deflated(lambda part: part[: len(part) // 2]),
    "a deflate bomb": deflated(bomb),
    "an RLE bomb": encapsulated(
        RLELossless, struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\0" * 4000, Rows=65535, Columns=65535
    ),
    "RLE of 15 segments": encapsulated(RLELossless, struct.pack("<16I", 15, *[64] * 15) + bytes(100)),
    "JPEG of 65535 x 65535": encapsulated(
        JPEGBaseline8Bit,
        b"\xff\xd8\xff\xc0\0\x0b\x08\xff\xff\xff\xff\1\1\x11\0\xff\xda\0\x08\1\1\0\0\x3f\0" + bytes(100) + b"\xff\xd9",
        BitsAllocated=8,
        BitsStored=8,
        HighBit=7,
    ),
}  # fmt: skip
# Only a loader of CT asks for these.
CT_FILES: dict[str, Callable[[Path], object]] = {
    "slope NaN": raw("RescaleSlope", b"NaN "),
    "slope inf": raw("RescaleSlope", b"inf "),
    "slope 1e308": raw("RescaleSlope", b"1e308 "),
    "slope of text": raw("RescaleSlope", b"many"),
    "intercept NaN": raw("RescaleIntercept", b"NaN "),
    "slope 0": raw("RescaleSlope", b"0 "),
    "spacing NaN": raw("PixelSpacing", b"NaN\\NaN "),
    "spacing inf": raw("PixelSpacing", b"inf\\inf "),
    "spacing 0": raw("PixelSpacing", b"0\\0 "),
    "spacing -1": raw("PixelSpacing", b"-1\\-1 "),
    "spacing of one number": raw("PixelSpacing", b"1 "),
    "spacing of three numbers": raw("PixelSpacing", b"1\\1\\1 "),
    "spacing 1e-300": raw("PixelSpacing", b"1e-300\\1e-300 "),
    "spacing 1e300": raw("PixelSpacing", b"1e300\\1e-30 "),
    "no spacing": tags(PixelSpacing=None),
    "orientation NaN": raw("ImageOrientationPatient", b"NaN\\0\\0\\0\\1\\0 "),
    "orientation 0": raw("ImageOrientationPatient", b"0\\0\\0\\0\\0\\0 "),
    "orientation of 2 numbers": raw("ImageOrientationPatient", b"1\\0 "),
    "orientation 1e200": raw("ImageOrientationPatient", b"1e200\\0\\0\\0\\1e200\\0 "),
    "orientation of one direction": raw("ImageOrientationPatient", b"1\\0\\0\\1\\0\\0 "),
    "position of 2 numbers": raw("ImagePositionPatient", b"1\\0 "),
    "position NaN": raw("ImagePositionPatient", b"NaN\\0\\0 "),
    "position of text": raw("ImagePositionPatient", b"a\\b\\c "),
    "volume of agent NaN": tags(ContrastBolusVolume="NaN"),
}  # fmt: skip
HARMLESS: dict[str, Callable[[Path], object]] = {
    "a study of noise": tags(StudyDescription="<script>\udcff"),
    "sequences 20 deep": nested(20),
    "implicit that is explicit": syntax(ImplicitVRLittleEndian),
    "text after the pixels": lambda path: path.write_bytes(path.read_bytes() + bytes(20)),
}


def cases() -> Iterator[Case]:
    """Every file for both loaders that read such ones, those of CT for its own and the rule of masks."""
    for name, damage in FILES.items():
        for loader, file in (("ct_dicom", "b.dcm"), ("pictures", "d.dcm")):
            if loader == "ct_dicom" or "frames" not in name:
                yield Case(
                    loader, name, lambda folder, file=file, damage=damage: damage(folder / file), EITHER
                )
    for name, damage in CT_FILES.items():
        loaders = ("ct_dicom", "ct_rule") if "spacing" in name else ("ct_dicom",)
        for loader in loaders:
            yield Case(loader, name, lambda folder, damage=damage: damage(folder / "b.dcm"), EITHER)
    for name, damage in HARMLESS.items():
        yield Case("ct_dicom", name, lambda folder, damage=damage: damage(folder / "b.dcm"), EITHER)
