"""Malformed MetaImage files, and files of our own: weights, checkpoints, maps and what the cache keeps."""

import io
import json
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from tests.hostile.case import Case

META = {
    "a length of 30000": {"DimSize": "30000 30000 30000"},
    "a length of 0": {"DimSize": "0 9 10"},
    "a length of -8": {"DimSize": "-8 9 10"},
    "a length of 9 digits": {"DimSize": "999999999 999999999 999999999"},
    "a length of text": {"DimSize": "a b c"},
    "lengths that are missing": {"DimSize": ""},
    "more lengths than axes": {"DimSize": "8 9 10 11"},
    "1000 axes": {"NDims": "1000"},
    "-1 axes": {"NDims": "-1"},
    "axes of text": {"NDims": "three"},
    "a type unknown": {"ElementType": "MET_OTHER"},
    "a type of text": {"ElementType": "%s%s%s%n"},
    "a file out of the folder": {"ElementDataFile": "../../../../../../etc/passwd"},
    "a file anywhere": {"ElementDataFile": "/etc/passwd"},
    "a device without end": {"ElementDataFile": "/dev/zero"},
    "a list of files": {"ElementDataFile": "LIST"},
    "a pattern of files": {"ElementDataFile": "%1000000d.raw 1 1000000 1"},
    "a pattern of memory": {"ElementDataFile": "%s%s%n.raw 1 9 1"},
    "no file": {"ElementDataFile": ""},
    "itself": {"ElementDataFile": "a.mhd"},
    "its folder": {"ElementDataFile": "."},
    "a name of 5000 letters": {"ElementDataFile": "a" * 5000},
    "a header of -5 bytes": {"HeaderSize": "-5"},
    "a header of 9 digits": {"HeaderSize": "999999999"},
    "spacing NaN": {"ElementSpacing": "nan nan nan"},
    "spacing 0": {"ElementSpacing": "0 0 0"},
    "spacing of one number": {"ElementSpacing": "1"},
    "directions of 0": {"TransformMatrix": "0 0 0 0 0 0 0 0 0"},
    "directions of NaN": {"TransformMatrix": "nan 0 0 0 1 0 0 0 1"},
    "directions of 4 numbers": {"TransformMatrix": "1 0 0 1"},
    "directions that run together": {"TransformMatrix": "1 3e+38 0 0 1 0 0 0 1"},
    "no directions": {"TransformMatrix": None},
    "an offset of inf": {"Offset": "inf 0 0"},
    "-1 channels": {"ElementNumberOfChannels": "-1"},
    "9 digits of channels": {"ElementNumberOfChannels": "999999999"},
    "packed that is not": {"CompressedData": "True"},
    "packed of 15 digits": {"CompressedData": "True", "CompressedDataSize": "9" * 15},
    "a line of a megabyte": {"Comment": "a" * 10**6},
}  # fmt: skip


def header(**fields: str | None) -> Callable[[Path], None]:
    """Other fields; None leaves one out."""

    def damage(folder: Path) -> None:
        path = folder / "a.mhd"
        given = dict(line.split(" = ", 1) for line in path.read_text().splitlines())
        data_file = given.pop("ElementDataFile")
        merged = (
            given | {"ElementDataFile": data_file} | fields
            if "Comment" not in fields
            else fields | given | {"ElementDataFile": data_file}
        )
        last = {"ElementDataFile": merged.pop("ElementDataFile")}
        path.write_text(
            "".join(f"{name} = {value}\n" for name, value in (merged | last).items() if value is not None)
        )

    return damage


def packed_bomb(folder: Path) -> None:
    """A MetaImage file of some MB that inflates to 2 GiB."""
    deflater = zlib.compressobj(9)
    start = deflater.compress(b"\0") + deflater.flush(zlib.Z_FULL_FLUSH)
    zeros = deflater.compress(bytes(2**24)) + deflater.flush(zlib.Z_FULL_FLUSH)
    part = start + zeros * 128 + deflater.flush()
    text = "ObjectType = Image\nNDims = 3\nCompressedData = True\nDimSize = 2048 1024 1024\nElementType = MET_UCHAR\n"
    (folder / "b.mha").write_bytes((text + "ElementDataFile = LOCAL\n").encode() + part)


class _Code:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("hostile"),)


def archive(name: str, content: bytes) -> bytes:
    """A zip file of one file."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, content)
    return out.getvalue()


def npy(shape: str, dtype: str = "<f4", data: bytes = bytes(168)) -> bytes:
    """An array by its header."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode() + data


def info(**fields: object) -> bytes:
    """A file of weights that says this of itself."""
    given = {"network": "resnet10", "in_channels": 1, "class_names": ["a", "b"]} | fields
    return save({"weight": torch.zeros(2)}, metadata={"xaitools": json.dumps(given)})


def torch_file(value: object) -> bytes:
    """What torch.save makes of a value."""
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


def described(header: str, data: bytes = b"") -> bytes:
    """A safetensors file by its header."""
    return struct.pack("<Q", len(header)) + header.encode() + data


WHOLE = {"identity": {"seed": 0}, "history": {}, "model": {}, "optimizer": {}, "best": {}}
SAFETENSORS = {
    "empty": b"",
    "a header of 2**63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "a header of 0 bytes": struct.pack("<Q", 0),
    "a header that is no JSON": struct.pack("<Q", 5) + b"{{{{{",
    "a header 100000 deep": struct.pack("<Q", 10**5) + b"[" * 10**5,
    "a tensor out of the file": described('{"array":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'),
    "a tensor of 2**64 values": described(
        '{"array":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,4]}}', bytes(4)
    ),
    "noise": np.random.default_rng(0).bytes(500),
    "pickle": pickle.dumps(_Code()),
}  # fmt: skip
INFOS = {
    "a network of a list": info(network=["resnet10"]),
    "-1 channels": info(in_channels=-1),
    "channels of text": info(in_channels="1"),
    "10**9 channels": info(in_channels=10**9),
    "a size of 10**6": info(input_size=[10**6] * 3),
    "a size of text": info(input_size=["a"]),
    "classes of a number": info(class_names=2),
    "classes of numbers": info(class_names=[1, 2]),
    "a field too many": info(code="import os"),
    "no object": save({"weight": torch.zeros(2)}, metadata={"xaitools": "[1, 2]"}),
    "no JSON": save({"weight": torch.zeros(2)}, metadata={"xaitools": "{"}),
    "JSON 100000 deep": save({"weight": torch.zeros(2)}, metadata={"xaitools": "[" * 10**5}),
    "no word of itself": save({"weight": torch.zeros(2)}),
}
TORCH = {
    "empty": b"",
    "pickle that runs code": pickle.dumps(_Code()),
    "pickle in torch that runs code": torch_file(_Code()),
    "pickle of an opcode too many": b"\x80\x02" + b"(" * 10**5,
    "pickle of 2**31 bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**31) + b"a",
    "a list": torch_file([1, 2]),
    "numbers": torch_file({"a": 1}),
    "names of numbers": torch_file({1: torch.zeros(2)}),
    "a zip file of nothing": archive("nothing", b""),
    "a zip bomb": archive("archive/data.pkl", bytes(2**28)),
    "noise": np.random.default_rng(0).bytes(500),
}
CHECKPOINTS = {
    **TORCH,
    "identity of a list": torch_file({"identity": [1]}),
    "identity alone": torch_file({"identity": {"seed": 0}}),
    "a history of another": torch_file(WHOLE | {"history": {"a": 1}}),
    "a model of nothing": torch_file(WHOLE),
    "a model of a number": torch_file(WHOLE | {"model": 5, "optimizer": 6}),
}
MAPS = {
    "empty": b"",
    "another array": archive("other.npy", npy("(6, 7)")),
    "a shape of 10**9": archive("map.npy", npy("(1000000000,)")),
    "a shape of 10**18": archive("map.npy", npy("(1000000000, 1000000000)")),
    "a shape of -1": archive("map.npy", npy("(-1,)")),
    "a shape of code": archive("map.npy", npy("__import__('os').system('touch hostile')")),
    "objects": archive("map.npy", npy("(1,)", "|O", pickle.dumps(_Code()))),
    "a bomb": archive("map.npy", npy("(400000000,)", "<f4", bytes(2**28))),
    "noise": np.random.default_rng(0).bytes(500),
}
SIDECARS = {
    "empty": "",
    "a list": "[1]",
    "100000 deep": "[" * 10**5,
    "a number of 10000 digits": '{"key": {"a": ' + "1" * 10000 + "}}",
    "no key": "{}",
}


def cases() -> Iterator[Case]:
    """Each file in the folder of its loader."""
    for name, fields in META.items():
        yield Case("ct_meta", name, header(**fields), "?" if fields.get("CompressedDataSize") else ".")
    yield Case("ct_meta", "a bomb", packed_bomb, "more than .* voxels")
    for loader, files, target in (
        ("weights", SAFETENSORS | INFOS, "a.safetensors"),
        ("cache", SAFETENSORS | INFOS, "a.safetensors"),
        ("torch_weights", TORCH, "a.pt"),
        ("checkpoint", CHECKPOINTS, "a.pt"),
        ("maps", MAPS, "sub-001_desc-gradient_map.npz"),
    ):
        made_again = loader in ("cache", "maps")  # it is no input, and is made again
        for name, content in files.items():
            yield Case(
                loader,
                name,
                lambda folder, target=target, content=content: (folder / target).write_bytes(content),
                "" if made_again or (loader, name) == ("checkpoint", "empty") else ".",
            )
    for name, text in SIDECARS.items():
        yield Case(
            "maps",
            f"{name} as a sidecar",
            lambda folder, text=text: (folder / "sub-001_desc-gradient_map.json").write_text(text),
        )
