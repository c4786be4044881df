import hashlib
import json
import re
import zipfile

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from xaitools.errors import DataFileError
from xaitools.seals import (
    BLANK,
    SEAL,
    NoSealError,
    check_seal,
    checksum,
    is_sealed,
    read_json,
    seal,
    write_json,
)

CONTENT = {"a": [1, None, "ä"], "seal of another": BLANK, "b": {"seal": BLANK}, "c": float("inf")}


def as_json(folder):
    return write_json(folder / "a.json", CONTENT)


def as_safetensors(folder):
    path = folder / "a.safetensors"
    metadata = {SEAL: BLANK, "note": json.dumps({SEAL: BLANK}), "x": "y" * 5000}
    save_file({"array": np.arange(4.0)}, path, metadata=metadata)
    seal(path)
    return path


def as_zip(folder):
    path = folder / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data", bytes(2**21))
        archive.comment = json.dumps({SEAL: BLANK}).encode()
    seal(path)
    return path


FORMATS = [as_json, as_safetensors, as_zip]


@pytest.mark.parametrize("write", FORMATS)
def test_the_checksum_is_that_of_the_file_with_zeros_in_its_place(tmp_path, write):
    path = write(tmp_path)
    content = path.read_bytes()
    places = [
        found for found in re.finditer(rb"sha256:([0-9a-f]{64})", content) if set(found[1]) != {ord("0")}
    ]
    (place,) = places
    blank = content[: place.start(1)] + b"0" * 64 + content[place.end(1) :]
    assert place[1].decode() == hashlib.sha256(blank).hexdigest()
    check_seal(path)
    assert is_sealed(path)
    assert checksum(path) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("write", FORMATS)
def test_any_byte_that_changed_is_found(tmp_path, write):
    path = write(tmp_path)
    content = path.read_bytes()
    places = {*range(0, len(content), max(1, len(content) // 300)), *range(len(content) - 120, len(content))}
    for place in sorted(places):
        path.write_bytes(content[:place] + bytes([content[place] ^ 32]) + content[place + 1 :])
        with pytest.raises(DataFileError):
            check_seal(path)
    path.write_bytes(content)
    check_seal(path)


def test_sealed_files_are_files_of_their_formats(tmp_path):
    np.testing.assert_array_equal(load_file(as_safetensors(tmp_path))["array"], np.arange(4.0))
    with zipfile.ZipFile(as_zip(tmp_path)) as archive:
        assert archive.testzip() is None
    found = json.loads(as_json(tmp_path).read_text())
    assert {name: value for name, value in found.items() if name != SEAL} == CONTENT
    assert read_json(tmp_path / "a.json") == CONTENT


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b'{"seal": "sha256:0"}', b'{"sea\0": 1}', b"[" * 10**5]
)
def test_what_is_damaged_is_not_taken_for_old(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DataFileError) as caught:
        read_json(path, unsealed=True)
    assert not isinstance(caught.value, NoSealError)


def test_a_file_without_a_checksum_is_told_from_a_damaged_one(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1}')
    save_file({"array": np.arange(4.0)}, tmp_path / "a.safetensors")
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("data", b"1")
    for path in tmp_path.iterdir():
        with pytest.raises(NoSealError):
            check_seal(path)
        assert not is_sealed(path)
    with pytest.raises(NoSealError):
        read_json(tmp_path / "a.json")
    assert read_json(tmp_path / "a.json", unsealed=True) == {"a": 1}


def test_no_file(tmp_path):
    for check in (check_seal, read_json):
        with pytest.raises(DataFileError, match="no file at"):
            check(tmp_path / "a.json")
    assert not is_sealed(tmp_path / "a.json")
