"""Files that are none, and names that nobody would give: what a file system can hold besides."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.hostile.case import Case
from tests.hostile.small import LOADERS, dicom, head, nifti, picture

SUFFIXES = {
    "ct_dicom": ".dcm",
    "ct_nifti": ".nii.gz",
    "ct_meta": ".mhd",
    "brains_bids": "_T1w.nii.gz",
    "volumes": ".nii.gz",
    "pictures": ".png",
    "fetal": "_HC.png",
}
NAMES = {
    "markup": "<script>alert(1)<",
    "a line feed": "a\nb",
    "letters from right to left": "a\u202egnp\u202c",
    "bytes that are no letters": os.fsdecode(b"a\xff\xfe"),
    "blanks": "  a  ",
    "signs of a shell": "$(touch hostile);`id`|&'\"",
    "signs of a pattern": "[a]*?",
    "a NUL that is written": "%00\\0",
    "a formula": "=cmd|' 'A0",
}


def replaced(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Something else in place of a file."""

    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


OTHERS: dict[str, Callable[[Path], object]] = {
    "a folder": replaced(Path.mkdir),
    "a FIFO": replaced(os.mkfifo),
    "a link to itself": replaced(lambda path: path.symlink_to(path)),
    "a link to nothing": replaced(lambda path: path.symlink_to("gone")),
    "a link to a device without end": replaced(lambda path: path.symlink_to("/dev/zero")),
    "a file that nobody may read": lambda path: path.chmod(0),
}


def longest(suffix: str) -> str:
    """A name of 255 bytes, the most that most file systems have."""
    return "a" * (255 - len(suffix)) + suffix


def add(folder: Path, name: str, suffix: str) -> None:
    """Another whole file of the kind that a suffix says."""
    path = folder / name
    if suffix == ".dcm":
        dicom(path, patient="p3")
    elif suffix.endswith(".nii.gz"):
        nifti(path, head(3))
    elif suffix == ".png":
        picture(path)


def loops(folder: Path) -> None:
    """Folders that lead back to where one came from."""
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "up").symlink_to("..", target_is_directory=True)


def deep(folder: Path) -> None:
    """Folders in folders, as deep as a path may be long."""
    place = folder
    for _ in range(200):
        place = place / "aaaaaaaaaa"
        place.mkdir()


def cases() -> Iterator[Case]:
    """What stands in place of each loader's files, and names beside them."""
    for loader, kind in LOADERS.items():
        for number, (name, damage) in enumerate(OTHERS.items()):
            target = kind.targets[number % len(kind.targets)]
            if loader not in ("cache", "save_maps"):  # their files are made by the package itself
                yield Case(
                    loader, name, lambda folder, target=target, damage=damage: damage(folder / target), "?"
                )
        if loader in SUFFIXES:
            yield Case(loader, "folders that lead back", loops, "?")
            yield Case(loader, "deep folders", deep, "?")
            yield Case(
                loader,
                "no file",
                lambda folder, targets=kind.targets: [(folder / target).unlink() for target in targets],
                "?",
            )
    for loader in ("ct_dicom", "volumes", "pictures"):
        suffix = SUFFIXES[loader]
        for name, word in NAMES.items():
            yield Case(
                loader,
                f"a name with {name}",
                lambda folder, word=word, suffix=suffix: add(folder, word + suffix, suffix),
            )
        yield Case(
            loader, "a name of 255 bytes", lambda folder, suffix=suffix: add(folder, longest(suffix), suffix)
        )
