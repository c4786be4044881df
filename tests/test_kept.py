import os
import time

import numpy as np
import pytest
from click.testing import CliRunner
from torch import nn

from xaitools.cache import set_study
from xaitools.cli import main
from xaitools.data.lazy import CachedArray, cache_path
from xaitools.kept import in_words, pieces, useless
from xaitools.models import History, WeightsInfo
from xaitools.models.kept import keep_training

KEY = "0123456789abcdef"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A training, a volume of each of two studies, an unfinished training, a killed run's file, and the user's own."""
    monkeypatch.setenv("XAITOOLS_CACHE", str(tmp_path))
    info = WeightsInfo("resnet10", 1, ("a", "b"))
    history = History((1.0,), (0.5,), (0.9,))
    for number, study in enumerate(("ct_contrast", "ad_mask")):
        set_study(study)
        CachedArray(cache_path(None, "brains", {"a": number}), lambda: np.zeros((2, 3))).prepare()
    keep_training(tmp_path / "weights" / f"resnet10-{KEY}.safetensors", nn.Linear(2, 2), info, history)
    set_study("")
    (tmp_path / "weights" / f"vgg8-{KEY}.checkpoint.pt").write_bytes(b"no checkpoint")
    for path in (
        tmp_path / "weights" / "notes.txt",
        tmp_path / "brains" / "mine.safetensors",
        tmp_path / "a.txt",
    ):
        path.write_text("the user's")
    return tmp_path


def volume(cache, number):
    return cache_path(cache, "brains", {"a": number})


def told(*arguments):
    result = CliRunner().invoke(main, ["cache", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_it_shows_what_is_there_by_study(cache):
    an_hour_ago = time.time() - 3700
    os.utime(volume(cache, 0), (an_hour_ago, an_hour_ago))
    _, shown = told()
    lines = [line.split("  ") for line in shown.splitlines()]
    rows = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    first, second = (in_words(volume(cache, number).stat().st_size) for number in (1, 0))
    assert rows[0] == ["what", "study", "pieces", "size", "made"]
    assert rows[1:3] == [
        ["brains", "ad_mask", "1", first, "a moment ago"],
        ["brains", "ct_contrast", "1", second, "1 hour ago"],
    ]
    assert [row[:3] for row in rows[3:5]] == [
        ["unfinished training of vgg8", "-", "1"],
        ["weights of resnet10", "ad_mask", "1"],
    ]
    total = sum(piece.size for piece in pieces(cache))
    assert shown.endswith(f"{in_words(total)} in {cache}\n")


def test_an_empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XAITOOLS_CACHE", str(tmp_path / "none"))
    assert told() == (0, f"Nothing in the cache, {tmp_path / 'none'}.\n")
    assert told("verify") == (0, "All 0 pieces are as they were written.\n")
    assert told("prune") == (0, "Freed 0 B.\n")


def test_a_damaged_piece_is_named_and_pruned_and_the_user_s_files_stay(cache):
    (cache / "weights" / f"vgg8-{KEY}.checkpoint.pt").unlink()
    assert told("verify") == (0, "All 3 pieces are as they were written.\n")
    whole = volume(cache, 1).read_bytes()
    volume(cache, 1).write_bytes(whole[:-1] + b"x")
    code, shown = told("verify")
    assert code == 1
    assert f"{volume(cache, 1).name} is not as it was written\n" in shown
    assert "1 of 3 pieces are made again" in shown
    for arguments, verb in ((["--dry-run"], "Would free"), ([], "Freed")):
        assert volume(cache, 1).exists()
        _, shown = told("prune", *arguments)
        assert shown.splitlines() == [
            f"{volume(cache, 1).name} is not as it was written: brains, {in_words(len(whole))}",
            f"{verb} {in_words(len(whole))}.",
        ]
    assert not volume(cache, 1).exists()
    assert told("verify") == (0, "All 2 pieces are as they were written.\n")
    told("prune", "--older-than", "0")
    left = sorted(path.name for path in cache.rglob("*") if path.is_file())
    assert left == ["a.txt", "mine.safetensors", "notes.txt"]


def test_old_pieces_go_where_it_is_asked(cache):
    two_days_ago = time.time() - 2 * 86400
    os.utime(volume(cache, 0), (two_days_ago, two_days_ago))
    (cache / "weights" / f"vgg8-{KEY}.checkpoint.pt").unlink()
    assert [reason for _, reason in useless(pieces(cache), days=3)] == []
    (old,) = useless(pieces(cache), days=1)
    assert old[0].files == (volume(cache, 0),)
    assert old[1] == f"{volume(cache, 0).name} is more than 1 days old"


def test_sizes_in_words():
    assert [in_words(size) for size in (0, 999, 1000, 123_456, 10**9, 5 * 10**12)] == [
        "0 B", "999 B", "1.0 kB", "123.5 kB", "1.0 GB", "5000.0 GB",
    ]  # fmt: skip
