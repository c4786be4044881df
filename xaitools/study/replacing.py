"""What becomes of an earlier run in the same folder: it stays whole until the next one is done."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xaitools.files import in_use
from xaitools.study.manifest import read_manifest

PREVIOUS = "previous"
_FIGURES = {".html", ".svg", ".png", ".js", ".md"}


def make_room(folder: Path) -> None:
    """Clear a run's folder for the next one.

    A run that was done moves into the folder ``previous`` there, report, numbers and figures together; what another
    one left is deleted. Maps stay, for each tells what it was made from. Nothing else in the folder is touched.
    """
    manifest, previous = read_manifest(folder), folder / PREVIOUS
    if manifest.get("status") != "done":
        for path in _files(folder, manifest):
            path.unlink()
        return
    drop_previous(folder)
    for path in _files(folder, manifest):
        place = previous / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
    (folder / "manifest.json").replace(previous / "manifest.json")  # the last: until then the run lies here


def drop_previous(folder: Path) -> None:
    """Delete the earlier run that `make_room` kept."""
    if (folder / PREVIOUS / "manifest.json").exists():
        shutil.rmtree(folder / PREVIOUS)


def replaced(folder: Path, parameters: Mapping[str, Any]) -> str:
    """What to say of the finished run that a run with these `parameters` replaces; empty if there is none."""
    manifest = read_manifest(folder)
    if manifest.get("status") != "done":
        return ""
    before = manifest.get("parameters", {})
    changes = [
        f"{name} was {before[name]!r}, is {value!r}"
        for name, value in parameters.items()
        if name in before and before[name] != value
    ]
    when = str(manifest.get("updated", "unknown date"))[:16].replace("T", " ")
    different = f" ({'; '.join(changes)})" if changes else ""
    return (
        f"This replaces the run of {when} UTC in '{folder.name}'{different}, which stays in '{folder.name}/{PREVIOUS}' "
        "until this one is done. To keep both, give another output folder."
    )


def drop_unused_maps(folder: Path) -> None:
    """Delete the stored maps that this process has neither read nor written, if it has others."""
    found = (path for path in folder.rglob("*_desc-*_map.*") if path.name.endswith((".npz", ".nii.gz")))
    maps = [path for path in found if not path.name.startswith(".")]  # which another run is writing
    unused = [path for path in maps if path.resolve() not in in_use]
    if len(unused) == len(maps):
        return  # a notebook that uses no maps has no say in them
    for path in unused:
        stem = path.name.removesuffix(".npz").removesuffix(".nii.gz")
        for name in (path.name, f"{stem}.json", f"{stem.removesuffix('_map')}_course.json"):
            path.with_name(name).unlink(missing_ok=True)


def _files(folder: Path, manifest: Mapping[str, Any]) -> Iterator[Path]:
    """What the run that wrote `manifest` wrote, but for the manifest itself and maps."""
    if not (folder / "manifest.json").exists():
        return
    names = ["metrics.csv", "per_image.csv"]
    if "key" in manifest:  # written by what runs a notebook, which also writes these
        names += [
            f"{manifest.get('notebook', manifest.get('study'))}{suffix}" for suffix in (".html", ".ipynb")
        ]
    yield from (path for name in names if (path := folder / name).is_file())
    figures = folder / "figures"
    if figures.is_dir():
        yield from [path for path in figures.iterdir() if path.suffix in _FIGURES]
