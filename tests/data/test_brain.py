import json

import nibabel
import numpy as np
import pandas as pd
import pytest
import torch

from xaitools.data.brain import load_brains, load_oasis
from xaitools.data.grids import mni_grid
from xaitools.data.preparation import _mni_brain
from xaitools.data.samples import two_classes
from xaitools.data.scans import match_sessions
from xaitools.data.splits import split
from xaitools.errors import DataError, DataFileError, ParameterError, ShapeError
from xaitools.phantoms import synthetic_brains

SHAPE = (8, 9, 10)
AFFINE = np.array([[2.0, 0, 0, -7], [0, 2, 0, -8], [0, 0, 2, -9], [0, 0, 0, 1]])


def voxels(number):
    """A head: dark outside, a bright box that differs between heads."""
    image = np.zeros(SHAPE)
    image[2:6, 2:7, 3 : 7 + number % 3] = 100 + 10 * np.random.default_rng(number).random(
        (4, 5, 4 + number % 3)
    )
    return image


def save(path, array, affine=AFFINE, secrets=()):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(np.asarray(array, dtype=np.float32), affine)
    for field, secret in zip(("descrip", "db_name", "aux_file", "intent_name"), secrets, strict=False):
        image.header[field] = secret
    nibabel.save(image, path)
    return path


def write(path, text):
    path.write_text(text)
    return path


def load(folder, **arguments):
    return load_brains(
        folder, **({"label_column": "diagnosis", "progress": False, "intensity": (0, 120)} | arguments)
    )


@pytest.fixture
def flat(tmp_path):
    """Six participants in a flat folder with label maps, as IXI."""
    folder = tmp_path / "flat"
    for number in range(6):
        save(folder / "t1" / f"P{number}-HH_T1.nii.gz", voxels(number))
        save(folder / "dseg" / f"P{number}-HH_T1_DLMUSE.nii.gz", (voxels(number) > 0) * (number + 40))
    rows = [f"P{number}-HH,{20 + 10 * number},{'FM'[number % 2]}" for number in range(6)]
    write(folder / "participants.csv", "\n".join(["MRID,Age,Sex", *rows]))
    write(folder / "dseg_labels.csv", "Index,Name\n1,a\n")
    return folder


@pytest.mark.parametrize("spacing", [2, 4, 6])
def test_the_brain_of_mni_space_is_whole_at_every_spacing(spacing):
    assert 1.5e6 < _mni_brain(mni_grid(spacing)).sum() * spacing**3 < 1.9e6  # mm3


@pytest.fixture
def bids(tmp_path):
    """Three participants with one to three sessions."""
    folder = tmp_path / "bids"
    rows = ["participant_id\tdiagnosis\tage"]
    for number, n_sessions in enumerate((3, 1, 2)):
        rows.append(f"sub-0{number}\t{'CN' if number < 2 else 'AD'}\t{70 + number}")
        for session in range(n_sessions):
            name = f"sub-0{number}_ses-M{session}_T1w.nii.gz"
            save(folder / f"sub-0{number}" / f"ses-M{session}" / "anat" / name, voxels(10 * number + session))
    write(folder / "participants.tsv", "\n".join(rows))
    return folder


def test_a_flat_folder_with_ages_in_two_ranges(flat):
    volumes = load(flat, label_column="Age", classes={"young": "< 40", "old": ">= 50"}, numbers=["age"])
    assert volumes.class_names == ("young", "old")
    assert volumes.labels.tolist() == [0, 0, 1, 1, 1]
    assert [path.name[:2] for path in volumes.sources] == ["P0", "P1", "P3", "P4", "P5"]
    assert volumes.subjects == volumes.names == tuple(f"sub-00{number}" for number in range(1, 6))
    assert volumes.numbers["age"].tolist() == [20, 30, 50, 60, 70]
    np.testing.assert_allclose(volumes.images[2, 0], voxels(3) / 120, atol=1e-5)
    np.testing.assert_allclose(volumes.affine, AFFINE)
    np.testing.assert_array_equal(volumes.label_map(2), (voxels(3) > 0) * 43)
    assert json.loads(json.dumps(volumes.info))["classes"] == {"young": "< 40", "old": ">= 50"}


def test_a_column_of_two_values_and_one_of_numbers(flat):
    assert load(flat, label_column="sex").class_names == ("F", "M")
    assert load(flat, label_column="Sex").labels.tolist() == [0, 1, 0, 1, 0, 1]
    ages = load(flat, label_column="Age", unit="years")
    assert (ages.is_regression, ages.unit, ages.labels.tolist()) == (True, "years", [20, 30, 40, 50, 60, 70])


def test_volumes_are_turned_to_right_front_and_head(flat):
    before = load(flat, label_column="Sex")
    for folder in ("t1", "dseg"):
        for path in (flat / folder).iterdir():
            image = nibabel.load(path)
            turned = image.as_reoriented(np.array([[2, -1], [0, -1], [1, 1]]))
            nibabel.save(nibabel.Nifti1Image(turned.get_fdata(dtype=np.float32), turned.affine), path)
    after = load(flat, label_column="Sex")
    assert torch.equal(before.images[:], after.images[:])
    assert torch.equal(before.label_maps[:], after.label_maps[:])
    np.testing.assert_allclose(before.affine, after.affine)
    assert before.fingerprint() == after.fingerprint()


def test_intensities_follow_each_volumes_percentiles(flat):
    images = load(flat, label_column="Sex", intensity=None).images[:]
    for number, image in enumerate(images):
        raw = voxels(number)
        low, high = np.percentile(raw, 1), np.percentile(raw[raw > raw.mean()], 99.5)
        np.testing.assert_allclose(image[0], np.clip((raw - low) / (high - low), 0, 1), atol=1e-4)
    brighter = flat.parent / "brighter"
    brighter.mkdir()
    for path in (flat / "t1").iterdir():
        save(brighter / path.name, 5 * nibabel.load(path).get_fdata())
    same = load(brighter, table=flat / "participants.csv", label_column="Sex", intensity=None)
    assert same.label_maps is None
    torch.testing.assert_close(same.images[:], images, atol=2e-5, rtol=0)


def test_the_brain_is_cut_out(flat):
    for path in (flat / "t1").iterdir():
        save(path, nibabel.load(path).get_fdata() + 7)
    for mask in ("dseg", flat / "dseg"):
        images = load(flat, label_column="Sex", brain_mask=mask).images[:]
        for number in range(6):
            inside = voxels(number) > 0
            assert (images[number, 0].numpy()[~inside] == 0).all()
            np.testing.assert_allclose(
                images[number, 0].numpy()[inside], (voxels(number)[inside] + 7) / 120, atol=1e-5
            )


def test_spacing_and_shape(flat):
    coarse = load(flat, label_column="Sex", spacing=4.0, shape=(6, 6, 6))
    assert (coarse.shape, coarse.spacing) == ((6, 6, 6), (4, 4, 4))
    assert coarse.label_maps.shape == coarse.images.shape
    # 16 x 18 x 20 mm become 4 x 4 x 5 voxels, then one more on each side of x and y, and one on one side of z
    middle = (np.array(SHAPE) - 1) / 2
    np.testing.assert_allclose(coarse.affine @ [2.5, 2.5, 3, 1], AFFINE @ [*middle, 1])


def test_heads_from_the_scanner_are_centered(flat):
    plain = load(flat, label_column="Sex")
    for folder in ("t1", "dseg"):
        for number, path in enumerate(sorted((flat / folder).iterdir())):
            moved = AFFINE.copy()
            moved[:3, 3] += [3.3 * number, -5.1 * number, 11 * number]
            image = nibabel.load(path)
            save(path, image.get_fdata(), moved)
    with pytest.raises(ShapeError, match=r"sub-001 has .*sub-002 has .*centered"):
        load(flat, label_column="Sex")
    volumes = load(flat, label_column="Sex", space="centered")
    for position in range(6):
        inside = volumes.label_map(position) > 0
        mm = np.argwhere(inside).mean(axis=0) @ volumes.affine[:3, :3] + volumes.affine[:3, 3]
        assert np.abs(mm).max() <= 1.0 + 1e-9
        assert inside.sum() == (plain.label_map(position) > 0).sum()
        np.testing.assert_allclose(volumes.images[position].sum(), plain.images[position].sum(), rtol=1e-3)


@pytest.fixture
def flat_mni(flat):
    """The six participants with synthetic brains in MNI space."""
    brains = synthetic_brains(6, spacing=6, seed=0, progress=False)
    for number in range(6):
        image = brains.images[number, 0].numpy()
        save(flat / "t1" / f"P{number}-HH_T1.nii.gz", 100 * image, brains.affine)
        save(flat / "dseg" / f"P{number}-HH_T1_DLMUSE.nii.gz", (image > 0.2) * (number + 40), brains.affine)
    return flat


def test_volumes_in_mni_space_come_onto_its_grid(flat_mni, caplog):
    for arguments in ({"brain_mask": "dseg"}, {"shape": (12, 14, 12)}):
        volumes = load(flat_mni, label_column="Sex", space="mni", spacing=8, **arguments)
        assert volumes.shape == arguments.get("shape", (23, 28, 23))
        assert volumes.images[0].max() > 0.5
        assert volumes.label_map(0).max() == 40
    load(flat_mni, label_column="Sex", space="file", brain_mask="mni")
    assert not caplog.records


def move(folder, numbers, mm):
    for number in numbers:
        for path in (folder / "t1").glob(f"P{number}-*"):
            image = nibabel.load(path)
            affine = image.affine.copy()
            affine[1, 3] += mm
            save(path, image.get_fdata(), affine)


def test_a_volume_that_is_elsewhere_is_not_taken_for_one_in_mni_space(flat_mni):
    move(flat_mni, [3], 300)
    for arguments in ({}, {"brain_mask": "mni"}, {"shape": (12, 14, 12)}):
        for _ in range(2):
            with pytest.raises(
                DataFileError, match=r"sub-004: .*not in MNI space, or displaced.*space=\'centered\'"
            ):
                load(flat_mni, label_column="Sex", label_maps="none", space="mni", spacing=8, **arguments)
    move(flat_mni, [3], -600)
    with pytest.raises(DataFileError, match=r"sub-004: signal in 0%.*not in MNI space"):
        load(flat_mni, label_column="Sex", label_maps="none", space="mni", spacing=8)
    move(flat_mni, [0, 1, 2, 4, 5], -300)
    with pytest.raises(DataFileError, match=r"sub-001: .*not in MNI space"):
        load(flat_mni, label_column="Sex", label_maps="none", brain_mask="mni")


def test_volumes_that_are_slightly_elsewhere_are_warned_of_from_the_cache_too(flat_mni, caplog):
    move(flat_mni, [1, 4], 24)
    for _ in range(2):
        caplog.clear()
        load(flat_mni, label_column="Sex", label_maps="none", space="mni", spacing=8)
        assert len(caplog.records) == 1
        assert "2 of 6 volumes (sub-002, sub-005) do not look like brains in MNI space" in caplog.text
    load(flat_mni, label_column="Sex", label_maps="none", space="centered", spacing=8)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("grid", ["file", "centered"])
def test_a_volume_without_contrast_after_its_preparation_is_refused(flat, grid):
    with pytest.raises(DataError, match=r"sub-001: all its voxels are 0 after.*intensity \(\[500, 600\]\)"):
        load(flat, label_column="Sex", space=grid, intensity=(500, 600))
    with pytest.raises(DataError, match=r"sub-001: all its voxels are 1 after"):
        load(flat, label_column="Sex", space=grid, intensity=(-20, -10))


def test_sessions_of_one_participant_keep_one_subject(bids):
    volumes = load(bids)
    assert volumes.subjects == ("sub-001",) * 3 + ("sub-002",) + ("sub-003",) * 2
    assert volumes.names[:4] == ("sub-001_img-1", "sub-001_img-2", "sub-001_img-3", "sub-002")
    assert volumes.class_names == two_classes(volumes) == ("CN", "AD")
    assert volumes.labels.tolist() == [0, 0, 0, 0, 1, 1]
    assert volumes[[0, 1, 2]].subjects == ("sub-001",) * 3
    np.testing.assert_allclose(volumes.images[4, 0], voxels(20) / 120, atol=1e-5)


def test_a_session_has_its_own_diagnosis_and_the_participants_sex(bids):
    write(bids / "participants.tsv", "participant_id\tsex\nsub-00\tF\nsub-01\tM\nsub-02\tF\n")
    for number, values in enumerate((("CN", "MCI", "AD"), ("CN",), ("n/a", "AD"))):
        rows = [f"ses-M{session}\t{value}" for session, value in enumerate(values)]
        write(
            bids / f"sub-0{number}" / f"sub-0{number}_sessions.tsv",
            "\n".join(["session_id\tdiagnosis", *rows]),
        )
    volumes = load(bids, classes=["CN", "AD"])
    assert [path.name[:13] for path in volumes.sources] == [
        "sub-00_ses-M0",
        "sub-00_ses-M2",
        "sub-01_ses-M0",
        "sub-02_ses-M1",
    ]
    assert volumes.labels.tolist() == [0, 1, 0, 1]
    assert load(bids, classes=["AD", "CN"]).labels.tolist() == [1, 0, 1, 0]
    assert load(bids, label_column="sex").labels.tolist() == [0, 0, 0, 1, 0, 0]


def test_sessions_come_in_the_order_of_their_numbers(bids):
    for old, new in (("M1", "M120"), ("M2", "M24")):
        path = bids / "sub-00" / f"ses-{old}" / "anat" / f"sub-00_ses-{old}_T1w.nii.gz"
        path.rename(path.with_name(f"sub-00_ses-{new}_T1w.nii.gz"))
    volumes = load(bids)
    assert [path.name[7:].split("_")[0] for path in volumes.sources[:3]] == ["ses-M0", "ses-M24", "ses-M120"]


def sessions(folder, participant, rows):
    path = folder / participant / f"{participant}_sessions.tsv"
    return write(path, "\n".join(["session_id\tdiagnosis", *rows]))


@pytest.mark.parametrize("everywhere", [True, False])
def test_a_session_that_no_row_is_about_has_not_the_participants_diagnosis(bids, everywhere):
    """The table of participants says CN, that of sessions AD, of a visit that the folder does not have."""
    if not everywhere:
        write(bids / "participants.tsv", "participant_id\tage\nsub-00\t70\nsub-01\t71\nsub-02\t72\n")
        sessions(bids, "sub-01", ["ses-M0\tCN"])
    sessions(bids, "sub-02", ["ses-M00\tAD", "ses-M001\tAD"])
    sessions(bids, "sub-00", ["ses-M0\tCN", "ses-M01\tCN", "ses-M12\tAD"])
    with pytest.raises(
        DataError,
        match=r"file 3 of 6 \(sorted\): the session 'M2', where .* sessions \['M0', 'M01', 'M12'\].*\(1 of 6 volumes\)",
    ):
        load(bids)
    volumes = load(bids, skip_missing=True)
    assert [path.name[4:13] for path in volumes.sources] == [
        "00_ses-M0",
        "00_ses-M1",
        "01_ses-M0",
        "02_ses-M0",
        "02_ses-M1",
    ]
    assert volumes.labels.tolist() == [0, 0, 0, 1, 1]
    assert volumes.info["sessions_without_row"] == 1


def test_a_volume_without_a_session_needs_one_where_the_rows_have(tmp_path):
    for number in range(2):
        save(tmp_path / f"sub-0{number}" / "anat" / f"sub-0{number}_T1w.nii", voxels(number))
    write(tmp_path / "participants.tsv", "participant_id\tdiagnosis\nsub-00\tCN\nsub-01\tAD\n")
    sessions(tmp_path, "sub-00", ["ses-M0\tAD"])
    with pytest.raises(DataError, match=r"file 1 of 2 \(sorted\): no session \(ses-...\) in its name, where"):
        load(tmp_path)


def test_volumes_whose_row_has_no_label_are_counted(bids):
    sessions(bids, "sub-00", ["ses-M0\tCN", "ses-M1\tMCI", "ses-M2\tn/a"])
    volumes = load(bids, classes=["CN", "AD"])
    assert (len(volumes), volumes.info["volumes_without_label"]) == (4, 2)


def test_a_table_of_sessions_of_somebody_else_is_refused(bids):
    sessions(bids, "sub-00", ["ses-M0\tCN"]).rename(bids / "sub-00" / "sub-01_sessions.tsv")
    with pytest.raises(
        DataError, match=r"sessions 1 of 1 \(sorted\): .* folder of another participant; .*move it"
    ):
        load(bids)


@pytest.mark.parametrize(
    ("scanned", "listed", "expected"),
    [
        ("M000 M012", "M00 M12 M24", {"M000": "M00", "M012": "M12"}),
        ("M12", "m012.0", {"M12": "m012.0"}),
        ("1", "01", {"1": "01"}),
        ("M12 M012", "M12", {"M12": "M12"}),
        ("M12 M012", "M12 M012", {"M12": "M12", "M012": "M012"}),
        ("M12 M012", "M0012", {}),
        ("M12", "M012 M0012", {}),
        ("M12", "M1 M2 Y12 12", {}),
        ("Baseline", "baseline", {"Baseline": "baseline"}),
        ("bl", "M00", {}),
    ],
)
def test_sessions_are_matched_as_numbers_if_that_is_unique(scanned, listed, expected):
    assert match_sessions(set(scanned.split()), set(listed.split())) == expected


def test_a_bids_folder_without_sessions_and_a_flat_one_named_so(tmp_path):
    rows = ["participant_id\tdiagnosis"]
    for number in range(4):
        save(tmp_path / "a" / f"sub-0{number}" / "anat" / f"sub-0{number}_T1w.nii", voxels(number))
        save(tmp_path / "b" / f"sub-0{number}_T1w.nii", voxels(number))
        rows.append(f"sub-0{number}\t{'CN' if number % 2 else 'AD'}")
    for name in "ab":
        write(tmp_path / name / "participants.tsv", "\n".join(rows))
    first, second = load(tmp_path / "a"), load(tmp_path / "b")
    assert first.labels.tolist() == second.labels.tolist() == [1, 0, 1, 0]
    assert first.fingerprint() == second.fingerprint()


@pytest.fixture
def caps(tmp_path):
    """Two participants as Clinica writes them: t1-linear, whole and cropped, and t1-volume."""
    for number in range(2):
        for session in ("M000", "M012"):
            folder = tmp_path / "caps" / "subjects" / f"sub-ADNI{number}" / f"ses-{session}"
            name = f"sub-ADNI{number}_ses-{session}"
            linear = f"{name}_space-MNI152NLin2009cSym_%sres-1x1x1_T1w.nii.gz"
            save(folder / "t1_linear" / (linear % ""), voxels(0))
            save(folder / "t1_linear" / (linear % "desc-Crop_"), voxels(number))
            for part in (
                "modulated-on_probability",
                "modulated-off_probability",
                "modulated-on_fwhm-8mm_probability",
            ):
                grey = f"{name}_T1w_segm-graymatter_space-Ixi549Space_{part}.nii.gz"
                save(
                    folder / "t1" / "spm" / "dartel" / "group-ADNIbl" / grey,
                    voxels(number) / 120 + 0.1 * ("on_p" in part),
                )
    table = write(
        tmp_path / "train.tsv",
        "participant_id\tsession_id\tdiagnosis\n"
        "sub-ADNI0\tses-M000\tCN\nsub-ADNI0\tses-M012\tCN\nsub-ADNI1\tses-M000\tAD\n",
    )
    return tmp_path / "caps", table


def test_the_folders_of_clinica(caps):
    folder, table = caps
    with pytest.raises(DataError, match=r"session 'M012', where .* sessions \['M000'\].*\(1 of 4 volumes\)"):
        load(folder, table=table)
    volumes = load(folder, table=table, skip_missing=True)
    assert volumes.labels.tolist() == [0, 0, 1]
    assert volumes.subjects == ("sub-001", "sub-001", "sub-002")
    assert volumes.info["sessions_without_row"] == 1
    assert all("desc-Crop" in path.name for path in volumes.sources)
    grey = load(folder, table=table, image="t1-volume", intensity=None, skip_missing=True)
    assert grey.info["intensity"] == [0, 1]
    np.testing.assert_allclose(grey.images[2, 0], np.minimum(voxels(1) / 120 + 0.1, 1), atol=1e-5)
    smoothed = load(
        folder,
        table=table,
        image="t1/spm/dartel/*/*modulated-on_fwhm-8mm_*.nii.gz",
        intensity=None,
        skip_missing=True,
    )
    np.testing.assert_allclose(smoothed.images[2, 0], voxels(1) / 120, atol=1e-5)
    with pytest.raises(ParameterError, match="t1-linear"):
        load(folder, table=table, image="t1linear")
    with pytest.raises(
        DataFileError, match=r"CAPS folder without .*BIDS folder .*as table: .*column participant_id"
    ):
        load(folder)


def test_the_tables_of_a_bids_folder_serve_a_caps_folder(caps, tmp_path):
    for number, values in enumerate((("CN", "MCI"), ("MCI", "AD"))):
        place = tmp_path / "bids" / f"sub-ADNI{number}"
        place.mkdir(parents=True)
        rows = [f"ses-{session}\t{value}" for session, value in zip(("M000", "M012"), values, strict=True)]
        write(place / f"{place.name}_sessions.tsv", "\n".join(["session_id\tdiagnosis", *rows]))
    write(tmp_path / "bids" / "participants.tsv", "participant_id\tsex\nsub-ADNI0\tF\nsub-ADNI1\tM\n")
    volumes = load(caps[0], table=tmp_path / "bids", classes=["CN", "AD"])
    assert [path.name[:18] for path in volumes.sources] == ["sub-ADNI0_ses-M000", "sub-ADNI1_ses-M012"]


def test_a_column_of_files_decides(tmp_path):
    for number in range(4):
        save(tmp_path / "scans" / f"{number}.nii", voxels(number))
    write(
        tmp_path / "table.csv", "file,subject,diagnosis\n3.nii,a,CN\nscans/1.nii,b,AD\n0,a,CN\n2.nii,c,AD\n"
    )
    volumes = load(tmp_path)
    assert [path.name for path in volumes.sources] == ["0.nii", "3.nii", "1.nii", "2.nii"]
    assert volumes.names == ("sub-001_img-1", "sub-001_img-2", "sub-002", "sub-003")
    write(tmp_path / "table.csv", "file,subject,diagnosis\n3.nii,a,CN\n7.nii,b,AD\n")
    with pytest.raises(
        DataFileError, match=r"its table, row 2 below the header: no image of that name.* Add the file"
    ):
        load(tmp_path)


@pytest.fixture
def oasis(tmp_path, monkeypatch):
    """What nilearn's fetcher gives, with six scans of five participants."""
    ids = ["0001_MR1", "0002_MR1", "0003_MR1", "0003_MR2", "0004_MR1", "0005_MR1"]
    paths = [
        save(
            tmp_path / f"OAS1_{scan}" / f"mwrc1OAS1_{scan}_mpr_anon_fslswapdim_bet.nii.gz",
            voxels(number) / 120,
        )
        for number, scan in enumerate(ids)
    ]
    table = pd.DataFrame(
        {
            "id": [f"OAS1_{scan}" for scan in reversed(ids)],
            "mf": list("FMFMFM"),
            "age": [80, 75, 61, 60, 22, 70],
            "cdr": [1.0, 0.0, 0.5, 0.5, np.nan, 0.0],
        }
    )
    asked = {}

    def fetch(**arguments):
        asked.update(arguments)
        return {"gray_matter_maps": [str(path) for path in paths], "ext_vars": table}

    monkeypatch.setattr("nilearn.datasets.fetch_oasis_vbm", fetch)
    return asked


def test_oasis(oasis, tmp_path):
    volumes = load_oasis(data_dir=tmp_path, progress=False)
    assert oasis == {"data_dir": str(tmp_path), "dartel_version": True, "verbose": 0}
    assert volumes.class_names == ("control", "dementia")
    assert volumes.labels.tolist() == [0, 1, 1, 0, 1]
    assert volumes.subjects == ("sub-001", "sub-002", "sub-002", "sub-003", "sub-004")
    assert volumes.numbers["age"].tolist() == [70, 60, 61, 75, 80]
    np.testing.assert_allclose(volumes.images[1, 0], voxels(2) / 120, atol=1e-5)
    assert load_oasis(label_column="mf", progress=False).class_names == ("F", "M")
    assert len(load_oasis(n_subjects=2, progress=False)) == 3


def test_oasis_from_nilearns_folder_without_a_network(tmp_path, monkeypatch):
    """The real fetcher, on a folder that holds all that it would download."""
    home = tmp_path / "nilearn" / "oasis1"
    content = save(tmp_path / "map.nii.gz", voxels(1) / 120).read_bytes()
    rows = ["ID,M/F,Hand,Age,Educ,SES,MMSE,CDR,eTIV,nWBV,ASF,Delay"]
    for number in range(1, 457):
        scan = f"OAS1_{number:04d}_MR1"
        (home / scan).mkdir(parents=True)
        for tissue in (1, 2):
            (home / scan / f"mwrc{tissue}{scan}_mpr_anon_fslswapdim_bet.nii.gz").write_bytes(content)
        cdr = ("", "0.5", "0", "1", "0")[number % 5]
        rows.append(f"{scan},{'MF'[number % 2]},R,{20 + number % 70},,,,{cdr},1400,0.8,1.2,N/A")
    write(home / "oasis_cross-sectional.csv", "\n".join(rows))
    write(home / "data_usage_agreement.txt", "")
    monkeypatch.setenv("NILEARN_DATA", str(tmp_path / "nilearn"))
    monkeypatch.setattr("socket.socket.connect", None)
    arguments = {"spacing": 4, "shape": (4, 4, 4), "n_subjects": 6, "cache_dir": tmp_path, "progress": False}
    for classes, names in ((None, ("control", "dementia")), (["0", "1"], ("0", "1"))):
        volumes = load_oasis(label_column="cdr", classes=classes, **arguments)
        assert two_classes(volumes) == names
        assert volumes.labels.bincount().tolist() == [3, 3]
        assert (volumes.shape, volumes.spacing) == ((4, 4, 4), (4, 4, 4))
        rating = [int(path.name[10:14]) % 5 for path in volumes.sources]
        assert [number in (1, 3) for number in rating] == volumes.labels.bool().tolist()


def test_oasis_without_a_network(monkeypatch):
    def fetch(**_):
        raise OSError("no route")

    monkeypatch.setattr("nilearn.datasets.fetch_oasis_vbm", fetch)
    with pytest.raises(DataFileError, match="NILEARN_DATA"):
        load_oasis(progress=False)


def test_the_first_subjects_of_each_class_in_turn(bids, flat):
    volumes = load(flat, label_column="Age", classes={"young": "< 50", "old": ">= 50"}, n_subjects=3)
    assert [path.name[:2] for path in volumes.sources] == ["P0", "P1", "P3"]
    assert volumes.subjects == ("sub-001", "sub-002", "sub-004")
    assert load(bids, n_subjects=2).subjects == ("sub-001",) * 3 + ("sub-003",) * 2


def test_a_second_load_reads_no_image(flat, monkeypatch):
    first = load(flat, label_column="Sex")

    def fail(path, orientation):
        raise AssertionError(path)

    monkeypatch.setattr("xaitools.data.preparation.read_volume", fail)
    assert torch.equal(load(flat, label_column="Sex").images[:], first.images[:])
    with pytest.raises(AssertionError):
        load(flat, label_column="Sex", intensity=(0, 100))


def test_missing_files_and_rows_are_counted(flat, bids):
    (flat / "t1" / "P1-HH_T1.nii.gz").unlink()
    with pytest.raises(
        DataFileError,
        match=r"participant in row 2 below the header \(1 of 6 participants\); add files.*skip_missing=True.*image",
    ):
        load(flat, label_column="Sex")
    volumes = load(flat, label_column="Sex", skip_missing=True)
    assert (len(volumes), volumes.info["participants_without_volume"]) == (5, 1)
    save(flat / "t1" / "Q_T1.nii.gz", voxels(0))
    with pytest.raises(
        DataError,
        match=r"file 6 of 6 \(sorted\): no row .* is about it \(1 of 6 volumes\); add rows.*skip_missing=",
    ):
        load(flat, label_column="Sex")
    assert load(flat, label_column="Sex", skip_missing=True).info["volumes_without_row"] == 1
    write(bids / "participants.tsv", "participant_id\tdiagnosis\nsub-00\tCN\nsub-02\tAD\nsub-77\tAD\n")
    with pytest.raises(DataError, match=r"file 4 of 6 \(sorted\): no row of .*1 of 6 volumes"):
        load(bids)
    assert len(load(bids, skip_missing=True)) == 5


def test_a_participant_of_a_table_of_sessions_lacks_one(caps):
    folder, table = caps
    write(table, table.read_text() + "sub-ADNI1\tses-M024\tAD\n")
    with pytest.raises(
        DataFileError, match="no volume of the participant in row 4 below the header, session 'M024'"
    ):
        load(folder, table=table)


@pytest.mark.parametrize(
    ("rows", "arguments", "error", "message"),
    [
        (
            "MRID,Sex\nP0-HH,F\nP0-HH,M\n",
            {},
            DataError,
            "row 1 below .* and row 2 below .* are about one participant",
        ),
        ("MRID,Age\nP0-HH,3\n", {}, DataError, r"no column 'Sex'; its columns are \['MRID', 'Age'\]"),
        (
            "name,Sex\nP0-HH,F\n",
            {},
            DataError,
            "no column of participants.*rename it to participant_id, or name it with subject_column",
        ),
        ("name,Sex\nP0-HH,F\n", {"subject_column": "ID"}, DataError, "no column 'ID'"),
        ("MRID,Sex\nP0-HH,F\nP1-HH,F\n", {}, DataError, "only value"),
        ("MRID,Sex\nP0-HH,F\nQ,M\n", {"skip_missing": True}, DataError, "no volume of the class 'M'"),
        ("MRID,Sex\nQ,F\nR,M\n", {"skip_missing": True}, DataError, "no volume of the class 'F'"),
        ("MRID,Sex\n", {}, DataError, "no rows"),
    ],
)
def test_bad_tables_are_refused(flat, rows, arguments, error, message):
    write(flat / "participants.csv", rows)
    with pytest.raises(error, match=message):
        load(flat, label_column="Sex", **arguments)


def test_codes_for_missing_are_neither_ages_nor_classes_and_counted(flat):
    rows = [f"P{number}-HH,{age},{sex}" for number, (age, sex) in enumerate(zip(AGES, "F-FMMM", strict=True))]
    write(flat / "participants.csv", "\n".join(["MRID,Age,Sex", *rows]).replace(",-\n", ",-4\n"))
    volumes = load(flat, label_column="Sex", numbers=["Age"])
    assert (volumes.class_names, volumes.labels.tolist()) == (("F", "M"), [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(volumes.numbers["Age"], [20, 40, 50, np.nan, np.nan])
    assert volumes.info["volumes_without_label"] == 1
    assert volumes.info["codes_for_missing"] == {"Sex": {"-4": 1}, "Age": {"-9999": 1, "999": 1}}
    values = load(flat, label_column="Sex", classes=["F", "M"], numbers=["Age"], missing=["999"])
    np.testing.assert_array_equal(values.numbers["Age"], [20, 40, 50, -9999, np.nan])


AGES = [20, 30, 40, 50, -9999, 999]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["P0-HH", "", "P2-HH"], r"no subject in row 2 below the header \(1 of 3 rows\)"),
        (
            ["P0-HH", "p0-hh", "P2-HH"],
            "the subjects of row 1 below .* and row 2 below .* are written in two ways",
        ),
        (
            ["7", "P1-HH", "7.0"],
            "the subjects of row 1 below .* and row 3 below .* are written in two ways",
        ),
    ],
)
def test_persons_without_an_id_or_with_two_are_refused(flat, ids, message):
    rows = [f"{participant},{sex}" for participant, sex in zip(ids, "FMF", strict=True)]
    write(flat / "participants.csv", "\n".join(["MRID,Sex", *rows]))
    with pytest.raises(DataError, match=message):
        load(flat, label_column="Sex", skip_missing=True)


@pytest.mark.parametrize("skip_missing", [True, False])
def test_ids_that_lost_their_zeros_are_told(tmp_path, skip_missing):
    for layout in ("flat", "bids"):
        for number in (1, 2):
            place = "" if layout == "flat" else f"sub-00{number}/anat/sub-"
            save(tmp_path / layout / f"{place}00{number}_T1w.nii", voxels(number))
        write(tmp_path / layout / "participants.tsv", "participant_id\tdiagnosis\n1\tCN\n2\tAD\n")
        with pytest.raises(
            DataError, match="'1' in the table looks like '001' in a file's name: write them alike"
        ):
            load(tmp_path / layout, skip_missing=skip_missing)


def test_bad_volumes_are_refused(flat):
    path = flat / "t1" / "P2-HH_T1.nii.gz"
    whole = path.read_bytes()
    with_nan = voxels(2)
    with_nan[3, 3, 3] = np.nan
    for array, error, message in [
        (np.zeros((*SHAPE, 2)), DataError, "expected one volume"),
        (with_nan, DataError, "1 voxels are NaN"),
        (np.full(SHAPE, 3), DataError, "cannot be told apart"),
        (np.zeros((8, 9, 11)), ShapeError, "sub-001 has .*sub-003 has "),
    ]:
        save(path, array)
        with pytest.raises(error, match=message):
            load(flat, label_column="Sex")
    for kept in (len(whole) - 40, 200, 0):
        path.write_bytes(whole[:kept])
        with pytest.raises(DataFileError, match=r"^sub-003: ") as caught:
            load(flat, label_column="Sex")
        assert caught.value.file == path
    path.write_bytes(whole)
    assert len(load(flat, label_column="Sex")) == 6


def test_bad_maps_are_refused(flat):
    path = flat / "dseg" / "P3-HH_T1_DLMUSE.nii.gz"
    for array, affine, error, message in [
        (np.ones((8, 9, 11)), AFFINE, ShapeError, "sub-004's label map has .*its volume sub-004"),
        (np.ones(SHAPE), np.eye(4), ShapeError, "sub-004's label map has .*its volume sub-004"),
        (np.full(SHAPE, 0.5), AFFINE, DataError, "not whole numbers"),
    ]:
        save(path, array, affine)
        with pytest.raises(error, match=message):
            load(flat, label_column="Sex")
    save(path, np.zeros(SHAPE))
    with pytest.raises(DataError, match="brain mask is empty"):
        load(flat, label_column="Sex", brain_mask="dseg")
    path.unlink()
    with pytest.raises(
        DataFileError, match=r"no files named after .* of sub-004 \(1 of 6 volumes\).*label map"
    ):
        load(flat, label_column="Sex")
    assert load(flat, label_column="Sex", label_maps="none").label_maps is None
    with pytest.raises(ParameterError, match=r"without label maps.*'dseg'.*label_maps names"):
        load(flat, label_column="Sex", label_maps="none", brain_mask="dseg")


def test_two_volumes_of_one_session_need_a_choice(flat, bids):
    save(flat / "t1" / "P0-HH_T2.nii.gz", voxels(0))
    with pytest.raises(
        DataError, match=r"file 1 of 7 .* and file 2 of 7 \(sorted\): .*column 'file'.*with image"
    ):
        load(flat, label_column="Sex")
    assert len(load(flat, label_column="Sex", image="t1/*_T1.nii.gz")) == 6
    save(bids / "sub-00" / "ses-M0" / "anat" / "sub-00_ses-M0_run-2_T1w.nii.gz", voxels(0))
    with pytest.raises(
        DataError, match=r"file 1 of 7 .* and file 2 of 7 .*: .*move one out of .*, or .*with image"
    ):
        load(bids)


def test_a_volume_named_after_one_participant_in_the_folder_of_another_is_refused(tmp_path):
    for number in (1, 2):
        save(tmp_path / f"P{number}" / f"P{3 - number}_T1.nii", voxels(number))
    write(tmp_path / "participants.csv", "id,diagnosis\nP1,CN\nP2,AD\n")
    with pytest.raises(DataError, match=r"file 1 of 2 .*several participants, \['P1', 'P2'\].*column 'file'"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"space": "talairach"}, "space='talairach' is unknown"),
        ({"spacing": 0}, "spacing=0"),
        ({"shape": (4, 4)}, "shape="),
        ({"intensity": (1, 1)}, "intensity="),
        ({"brain_mask": "skull"}, "brain_mask='skull'"),
        ({"brain_mask": "mni", "space": "centered"}, "only for volumes in MNI space"),
        ({"n_subjects": 1}, "n_subjects=1"),
        ({"image": "/abs/*.nii"}, "relative to the folder"),
    ],
)
def test_impossible_parameters_are_refused(flat, arguments, message):
    with pytest.raises(ParameterError, match=message):
        load(flat, label_column="Sex", **arguments)


def test_folders_without_volumes_or_tables_are_refused(tmp_path, flat):
    (tmp_path / "empty").mkdir()
    for folder, message in (
        (tmp_path / "gone", "no such folder"),
        (tmp_path / "empty", "no NIfTI file.*Found instead: no file"),
        (
            flat / "participants.csv",
            r"participants\.csv: a file; expected a folder; give the folder that holds",
        ),
    ):
        with pytest.raises(DataFileError, match=message):
            load(folder)
    with pytest.raises(DataFileError, match="no NIfTI file"):
        load(tmp_path / "empty", table=flat / "participants.csv", label_column="Sex")
    save(tmp_path / "alone" / "P0-HH_T1.nii.gz", voxels(0))
    with pytest.raises(DataFileError, match=r"no tables .*with table"):
        load(tmp_path / "alone")
    with pytest.raises(
        DataFileError, match=r"that fits '\*\.nii' in it.*BIDS.*Found instead: .*\.nii\.gz.*with image"
    ):
        load(flat, label_column="Sex", image="*.nii")
    (flat / "participants.csv").rename(flat / "people.csv")
    with pytest.raises(DataFileError, match=r"2 tables.*as participants\.csv.*participant_id.*with table"):
        load(flat, label_column="Sex")
    with pytest.raises(DataFileError, match="no such folder of label maps"):
        load(flat, label_column="Sex", table=flat / "people.csv", label_maps=flat / "gone")
    with pytest.raises(DataFileError, match=r"people\.csv: a file; expected a folder of label maps"):
        load(flat, label_column="Sex", table=flat / "people.csv", label_maps=flat / "people.csv")


def test_nothing_of_a_header_or_a_participant_is_shown(flat, secrets, tmp_path):
    for number in range(6):
        save(flat / "t1" / f"P{number}-HH_T1.nii.gz", voxels(number), secrets=secrets[:4])
    volumes = load(flat, label_column="Sex", cache_dir=tmp_path / "cache")
    shown = f"{volumes!r} {volumes.info} {volumes.names} {volumes.subjects} {volumes.images!r}"
    assert not [word for word in (*secrets, "P0", "HH") if word in shown]
    for path in (tmp_path / "cache").rglob("*.safetensors"):
        content = path.name.encode() + path.read_bytes()
        assert not [word for word in (*secrets, "HH_T1") if word.encode() in content]


def test_real_heads(real_data, tmp_path):
    volumes = load_brains(
        real_data / "ixi",
        label_column="Age",
        classes={"young": "< 40", "old": ">= 60"},
        space="centered",
        spacing=4,
        brain_mask="dseg",
        n_subjects=20,
        progress=False,
    )
    assert volumes.images.shape == (20, 1, 45, 60, 60)
    assert volumes.labels.bincount().tolist() == [10, 10]
    subjects = [set(part.subjects) for part in split(volumes, seed=0)]
    assert sum(map(len, subjects)) == len(set.union(*subjects)) == 20
    for position in range(0, 20, 5):
        brain = volumes.label_map(position) > 0
        assert 900 < brain.sum() * 0.064 < 2200  # ml
        center = np.argwhere(brain).mean(axis=0) * 4 + volumes.affine[:3, 3]
        assert np.abs(center).max() < 2.5
        image = volumes.images[position, 0].numpy()
        assert image[brain].mean() > 0.4 > 0.02 > image[~brain].mean()
        assert {47, 48} <= set(np.unique(volumes.label_map(position)))


def test_label_maps_keep_large_numbers_apart(flat):
    for path in (flat / "dseg").iterdir():
        image = nibabel.load(path)
        labels = (image.get_fdata() > 0) * (312782560 + 4 * (np.indices(SHAPE)[0] % 2)).astype(np.int32)
        nibabel.save(nibabel.Nifti1Image(labels, image.affine), path)
    for spacing in (None, 1.0):
        brains = load(flat, label_column="Sex", spacing=spacing)
        assert brains.label_maps.dtype == torch.int64
        labels, sizes = np.unique(brains.label_map(0), return_counts=True)
        assert labels.tolist() == [0, 312782560, 312782564]
        assert sizes[1] == sizes[2]


@pytest.mark.parametrize("broken", [1e9, -1e9, 1e30])
@pytest.mark.parametrize("space", ["file", "centered"])
def test_one_broken_voxel_does_not_black_out_a_brain(flat, broken, space, caplog):
    """The right values are those of the same head, the broken voxel as bright as its brightest."""
    right = flat.parent / "right"
    for path in (flat / "t1").iterdir():
        array = nibabel.load(path).get_fdata()
        wrong = array.copy()
        array[3, 3, 4] = np.sort(array, axis=None)[-1] if broken > 0 else 0
        save(right / path.name, array)
        wrong[3, 3, 4] = broken
        save(path, wrong)
    asked = {"label_column": "Sex", "intensity": None, "space": space, "label_maps": "none"}
    expected = load(right, table=flat / "participants.csv", **asked)
    assert "far beyond" not in caplog.text
    found = load(flat, **asked)
    assert (found.images[:] > 0.5).float().mean() > 0.05
    torch.testing.assert_close(found.images[:], expected.images[:], atol=0.03, rtol=0)
    assert caplog.text.count("1 of 720 voxels") == 6


def test_a_number_of_a_well_known_word_is_no_participant(tmp_path):
    for name in ("1.5T_of_3", "2x2x2mm_of_1", "3"):
        save(tmp_path / f"{name}.nii", voxels(len(name)))
    write(tmp_path / "participants.csv", "id,diagnosis\n1,CN\n2,AD\n3,AD\n")
    with pytest.raises(DataError, match=r"file 1 of 3 \(sorted\): no row of the table .*\(2 of 3 volumes\)"):
        load(tmp_path)
