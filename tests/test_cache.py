from pathlib import Path

from xaitools.cache import cache_dir


def test_the_folder_given_goes_before_the_variable_and_that_before_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XAITOOLS_CACHE", "~/scratch")
    assert cache_dir("~/mine") == tmp_path / "mine"
    assert cache_dir(Path("relative")) == Path("relative")
    assert cache_dir() == cache_dir("") == tmp_path / "scratch"
    for unset in (
        lambda: monkeypatch.setenv("XAITOOLS_CACHE", ""),
        lambda: monkeypatch.delenv("XAITOOLS_CACHE"),
    ):
        unset()
        assert cache_dir() == tmp_path / ".cache" / "xaitools"
