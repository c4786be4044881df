"""docs/loaders.md lists what the loaders have: their parameters, the keys of their info."""

import inspect
import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

import xaitools
from xaitools.data.missing import CODES, WORDS
from xaitools.data.participants import ID_COLUMNS
from xaitools.data.subjects import without_known_words

PAGE = (Path(__file__).parents[1] / "docs" / "loaders.md").read_text(encoding="utf-8")
LOADERS = [
    "load_ct", "load_brains", "load_oasis", "load_fetal", "load_volumes", "load_pictures", "load_atlas",
]  # fmt: skip
USUAL = {"data_dir", "path", "cache_dir", "n_jobs", "progress"}


def section(title):
    return re.split(r"^## ", PAGE.split(f"\n## {title}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(text, header):
    """The names in the first column of a section's table."""
    _, _, rows = text.partition(f"| {header} |")
    rows = rows.split("\n\n")[0].splitlines()[2:]
    return [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]


@pytest.mark.parametrize("loader", LOADERS)
def test_each_parameter_stands_there_and_no_other(loader):
    function = getattr(xaitools.data, loader, None) or getattr(xaitools, loader)
    known = set(inspect.signature(function).parameters)
    listed = first_cells(section(f"`{loader}`"), "Parameter")
    assert len(listed) == len(set(listed))
    assert set(listed) == known - USUAL


def listed_info(loader):
    found = set(first_cells(section(f"`{loader}`"), "`info`"))
    return found | {"stated_orientation", "volumes_with_stated_orientation"}


@pytest.fixture
def volumes(tmp_path):
    for number in range(4):
        voxels = np.random.default_rng(number).uniform(1, 2, (6, 6, 6)).astype(np.float32)
        voxels[:3] = 0
        image = nibabel.Nifti1Image(voxels, np.eye(4))
        image.header["sform_code"] = 0
        nibabel.save(image, tmp_path / f"p{number}.nii")
    (tmp_path / "people.csv").write_text("id,dx\np0,CN\np1,AD\np2,CN\np3,-4\n")
    return tmp_path


def test_each_key_of_info_of_volumes_stands_there(volumes):
    options = {"orientation": "RAS", "cache_dir": volumes / "cache", "progress": False}
    brains = xaitools.load_brains(volumes, label_column="dx", **options)
    assert set(brains.info) == listed_info("load_brains")
    assert brains.info["codes_for_missing"] == {"dx": {"-4": 1}}
    assert set(xaitools.load_volumes(volumes, **options).info) == listed_info("load_volumes")


def test_each_key_of_info_of_slices_stands_there(tmp_path, write_dicom):
    kinds = ["Omnipaque 350", "barium", "", None, "Gadovist"]
    for number, agent in enumerate(kinds):
        write_dicom(
            tmp_path / f"{number}.dcm", patient=f"p{number}", series=f"1.{number}", ContrastBolusAgent=agent
        )
    write_dicom(tmp_path / "scout.dcm", patient="p0", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_dicom(tmp_path / "other.dcm", patient="p0", series="1.0", height=5.0, PixelSpacing=[2, 2])
    samples = xaitools.load_ct(
        tmp_path, skip_unknown=True, check_hu=False, masks="heart-and-vessels", progress=False
    )
    assert set(samples.info) == listed_info("load_ct") - {
        "stated_orientation",
        "volumes_with_stated_orientation",
    }


def test_each_key_of_info_of_pictures_stands_there(tmp_path):
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(tmp_path / "a.png")
    found = set(xaitools.load_pictures(tmp_path, progress=False).info)
    assert found == set(first_cells(section("`load_pictures`"), "`info`"))


def test_words_codes_and_columns_are_those_of_the_code():
    tables = section("Tables")
    codes = re.search(r"Codes for missing \| (.*?) where", tables)[1]
    assert {int(code) for code in codes.split(", ")} == CODES
    words = re.search(r"Missing values \| (.*?) and their like", tables)[1]
    assert {word.lower() for word in re.findall(r"`(.+?)`", words)} <= WORDS
    assert all(f"`{column}`" in section("`load_brains`") for column in ID_COLUMNS)
    names = re.search(r"Numbers of these words are nobody's: (.*?)Any other", section("Persons"), re.DOTALL)[
        1
    ]
    shown = [name for name in re.findall(r"`(.+?)`", names) if name != "sub-"]
    assert len(shown) > 15
    assert not [name for name in shown if without_known_words(name)]


def test_every_name_of_the_packages_loads():
    for package in (xaitools, xaitools.data):
        assert all(getattr(package, name) is not None for name in package.__all__)
