import os
import subprocess
import sys
import time

import psutil
import pytest

from xaitools import files
from xaitools.files import abandoned, replacing, write_csv, write_text
from xaitools.processes import token


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = write_text(tmp_path / "a.csv", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "new \ud800")
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]
    assert path.read_text() == "old"


def test_a_table_is_written_as_read_csv_reads_it(tmp_path):
    path = write_csv(tmp_path / "new" / "t.csv", ("a", "b"), [{"a": 'x,"y"', "b": 1}, {"a": "", "b": 0.5}])
    assert path.read_bytes() == b'a,b\n"x,""y""",1\n,0.5\n'


HALF = """
import os, signal, sys
from xaitools.files import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_swept", set())
    command = [sys.executable, "-c", HALF, str(tmp_path / "weights.safetensors")]
    subprocess.run(command, check=False, timeout=60)
    (left,) = tmp_path.iterdir()
    assert left.suffix == ".safetensors"
    assert list(abandoned(tmp_path)) == [left]
    write_text(tmp_path / "other.txt", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["other.txt"]


def test_temporary_files_of_others_that_still_run_stay(tmp_path, monkeypatch):
    place = token().rpartition(".")[2]
    parents = f"{os.getppid():x}.{int(psutil.Process(os.getppid()).create_time()):x}.{place}"
    with replacing(tmp_path / "a.txt") as mine:
        mine.write_text("half")
        assert list(abandoned(tmp_path)) == []
    assert token() in mine.name
    elsewhere = tmp_path / mine.name.replace(token()[-6:], "0" * 6)
    parent = tmp_path / mine.name.replace(token(), parents)
    users = tmp_path / ".xaitools-notes.txt"
    for path in (elsewhere, parent, users):
        path.write_text("half")
    assert list(abandoned(tmp_path)) == []
    two_days_ago = time.time() - 2 * 86400
    for path in (elsewhere, parent, users):
        os.utime(path, (two_days_ago, two_days_ago))
    assert list(abandoned(tmp_path)) == [elsewhere]


def test_names_of_any_length_are_written(tmp_path):
    path = write_text(tmp_path / ("a" * 250 + ".txt"), "text")
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
