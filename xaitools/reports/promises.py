"""What a finished run left in its folder, and whether it is still there."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xaitools.seals import checksum
from xaitools.study.replacing import own_files


def promises(folder: Path, manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """For the manifest of a run that is done: the files that make it whole.

    Parameters
    ----------
    folder
        The run's output folder.
    manifest
        Where `key` and `notebook` tell whose files they are.

    Returns
    -------
    dict
        ``files``: SHA-256 of numbers, figures, report and executed notebook by path; ``maps``: size in bytes by path,
        for there may be gigabytes of them, and a damaged one is found out and made again by whoever reads it.
    """
    files = {path.relative_to(folder).as_posix(): checksum(path) for path in own_files(folder, manifest)}
    maps = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in (folder / "maps").rglob("*")
        if path.is_file()
    }
    return {"files": dict(sorted(files.items())), "maps": dict(sorted(maps.items()))}


def broken(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    """What the folder of a run that was done lacks of what its `manifest` promises, in words; empty if it is whole."""
    if "files" not in manifest:
        return ["its manifest does not tell which files belong to it"]
    return list(_broken(folder, manifest))


def _broken(folder: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    for name, content in manifest["files"].items():
        try:
            if checksum(folder / name) != content:
                yield f"{name} is damaged or was changed"
        except OSError:
            yield f"{name} is missing"
    for name, size in manifest.get("maps", {}).items():
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing"
        elif path.stat().st_size != size:
            yield f"{name} is damaged or was changed"
