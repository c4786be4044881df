import errno
import os
import subprocess
from collections import namedtuple
from pathlib import Path

import pytest

from xaitools.errors import StorageError
from xaitools.reports import places
from xaitools.reports.places import (
    check_folder,
    check_places,
    failure,
    in_words,
    plain_failures,
    reason,
)
from xaitools.reports.runner import run_study
from xaitools.study.manifest import read_manifest

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def full(monkeypatch):
    """A disk with 12 kB left."""
    monkeypatch.setattr(places.shutil, "disk_usage", lambda path: Usage(10**9, 10**9, 12_000))


@pytest.fixture
def roomy(monkeypatch):
    monkeypatch.setattr(places.shutil, "disk_usage", lambda path: Usage(10**12, 0, 10**12))


def refused(folder, least=0):
    with pytest.raises(StorageError) as raised:
        check_folder(folder, "output folder", "name another one with --out", least=least)
    message = str(raised.value)
    assert "Errno" not in message
    assert "name another one with --out" in message
    assert message.endswith("Nothing has been run")
    return message


def test_a_folder_that_can_be_written_to_is_made_and_stays_empty(tmp_path, roomy):
    check_folder(tmp_path / "a" / "b", "output folder", "", least=10**9)
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "taken").write_text("")
    assert f"{tmp_path}/taken is a file, where a folder is wanted" in refused(tmp_path / "taken")
    assert f"{tmp_path}/taken is a file, where a folder is wanted" in refused(
        tmp_path / "taken" / "in" / "it"
    )
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    assert f"{tmp_path}/nowhere is no folder" in refused(tmp_path / "nowhere")


def test_a_name_too_long_a_null_and_links_in_a_circle(tmp_path):
    message = refused(tmp_path / ("x" * 300))
    assert "a name is too long (300 bytes" in message
    assert "x" * 41 not in message
    assert "is no path (embedded null byte)" in refused(tmp_path / "a\0b")
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    refused(tmp_path / "one")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
@pytest.mark.parametrize("place", ["/proc/nothing", "/proc/self", "/sys/nothing"])
def test_what_no_user_can_write_to(place):
    assert place in refused(Path(place))


def test_too_little_space_is_refused_before_anything_runs(tmp_path, full):
    message = refused(tmp_path, least=10**7)
    assert f"the disk of {tmp_path} is full (12.0 kB free), where at least 10.0 MB are needed" in message


def test_output_and_cache_are_checked_in_the_first_second(notebooks, tmp_path, monkeypatch):
    """Before the kernel starts, and before a finished run there is moved."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XAITOOLS_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("xaitools.reports.runner.execute", lambda *_: pytest.fail("ran"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text('{"status": "done"}')
    with pytest.raises(StorageError, match=r"the cache cannot .* by the variable XAITOOLS_CACHE"):
        run_study(notebooks / "tiny.ipynb", out=tmp_path / "out", progress=False)
    assert read_manifest(tmp_path / "out")["status"] == "done"
    with pytest.raises(StorageError, match="the output folder cannot"):
        run_study(notebooks / "tiny.ipynb", out=tmp_path / "file", progress=False)
    monkeypatch.delenv("XAITOOLS_CACHE")
    monkeypatch.setenv("HOME", "/proc")
    with pytest.raises(StorageError, match="XAITOOLS_CACHE"):
        check_places(tmp_path / "out")


def test_a_user_without_a_home_as_in_some_containers_is_told_the_variable(tmp_path, monkeypatch):
    def home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(places.Path, "home", home)
    with pytest.raises(StorageError, match="name it by the variable HOME"):
        check_places(tmp_path)


def test_a_disk_that_gets_full_says_what_is_full_what_stays_and_what_to_do(tmp_path, full):
    error = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "maps" / "a.npz"))
    message = failure(error, tmp_path, wanted=94_371_840)
    assert f"the disk of {tmp_path}/maps/a.npz is full (12.0 kB free), 94.4 MB were wanted" in message
    assert f"What lies in {tmp_path} stays readable" in message
    assert "give the same command again" in message


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_write_that_fails_is_no_raw_error(tmp_path):
    with (
        pytest.raises(StorageError, match=r"the disk of .* give the same command") as raised,
        plain_failures(tmp_path),
    ):
        Path("/dev/full").write_bytes(b"1")
    assert "Errno" not in str(raised.value)


@pytest.mark.parametrize(
    "number",
    [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST,
     errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EIO, errno.ESTALE, errno.EMFILE],
)  # fmt: skip
def test_every_error_of_the_system_is_said_in_words_with_its_file(number):
    said = reason(OSError(number, os.strerror(number), "/data/x"))
    assert "/data/x" in said
    assert "Errno" not in said
    assert reason(OSError("bad magic")) == "bad magic"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[Errno 13] Permission denied: 'a.csv'", "this user has no permission for a.csv"),
        ("[Errno 2] No such file or directory: 'a b/c.csv'", "there is no a b/c.csv"),
        ("a.png: [Errno 5] Input/output error", "a.png: Input/output error"),
        ("Error while serializing: I/O error: Is a directory (os error 21)", "Is a directory"),
        ("the label column is missing", "the label column is missing"),
    ],
)
def test_what_a_cell_failed_with_in_words(text, said, tmp_path, roomy):
    shown = in_words(text, tmp_path)
    assert said in shown
    assert "rror 21" not in shown
    assert "Errno" not in shown
    assert "full" not in shown


@pytest.mark.parametrize(
    "text",
    [
        "[Errno 28] No space left on device: 'maps/a.npz'",
        "[Errno 28] No space left on device",
        "[Errno 122] Disk quota exceeded: 'maps/a.npz'",
        "Error while serializing: I/O error: No space left on device (os error 28)",
    ],
)
def test_a_full_disk_is_known_from_its_number(text, tmp_path, roomy):
    assert "give the same command again" in in_words(text, tmp_path)


def test_a_full_disk_that_a_library_does_not_name_is_seen(tmp_path, full):
    shown = in_words("PytorchStreamWriter failed writing file data/0: file write failed", tmp_path)
    assert shown.startswith("PytorchStreamWriter failed")
    assert "perhaps because the disk of" in shown


def test_a_full_disk_in_a_run_leaves_its_own_word_not_that_of_the_tidying(notebooks, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "notebook")

    monkeypatch.setattr("xaitools.reports.runner.execute", lambda *_: fails())
    monkeypatch.setattr("xaitools.reports.runner._write_hidden", fails)
    with pytest.raises(StorageError, match=r"the disk of notebook .* goes on from there"):
        run_study(notebooks / "tiny.ipynb", out=tmp_path, progress=False)
    assert read_manifest(tmp_path)["status"] == "failed"


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="mounts a small disk, as root")
def test_a_disk_that_is_really_full(tmp_path):
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=False)
    if mounted.returncode:
        pytest.skip("may not mount")
    try:
        (tmp_path / "filler").write_bytes(bytes(1 << 20))
        assert "is full (0 B free)" in refused(tmp_path / "out")
    finally:
        subprocess.run(["umount", tmp_path], check=True)
