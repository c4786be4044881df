import nibabel
import numpy as np
import pytest

from xaitools.atlas import load_atlas
from xaitools.data.brain import load_brains
from xaitools.data.ct import load_ct
from xaitools.data.orientation import centered_affine, check_orientation
from xaitools.data.volumes import check_one_grid, read_grid, read_label_map, read_volume
from xaitools.errors import DataError, ParameterError

SHAPE = (11, 9, 7)
MARKED = np.zeros(SHAPE, dtype=np.int16)
MARKED[8, 2, 5] = 1000  # the voxel that a guess of the side moves to x = 2


def save(path, *, sform=None, qform=None, pixdim=None, unit="mm", voxels=MARKED):
    """A file whose header says what is given here: (affine, code) each."""
    image = nibabel.Nifti1Image(voxels, None)
    for set_matrix, stated in ((image.set_qform, qform), (image.set_sform, sform)):
        if stated:
            set_matrix(*stated)
    if pixdim or sform:
        image.header.set_zooms(pixdim or nibabel.affines.voxel_sizes(sform[0]))
    image.header.set_xyzt_units(unit)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return path


def affine(*diagonal, at=(0, 0, 0)):
    matrix = np.diag([*map(float, diagonal), 1.0])
    matrix[:3, 3] = at
    return matrix


RAS, LAS = affine(2, 2, 2, at=(-10, -8, -6)), affine(-2, 2, 2, at=(10, -8, -6))
TILTED = affine(1, 1, 2)
TILTED[1, 2] = 1.0  # slices of a tilted gantry: a shear that no qform can say
TURNED = affine(1, 1, 1) @ np.array([[-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
UNKNOWN = {
    "no code": ({"pixdim": (2, 2, 2)}, "neither sform nor qform is set"),
    "sform of 2 mm, pixdim of 4": (
        {"sform": (RAS, 1), "pixdim": (4, 4, 4)},
        "2 x 2 x 2 mm in sform and 4 x 4 x 4",
    ),
    "mirrored": ({"sform": (LAS, 1), "qform": (RAS, 1)}, "run to LAS by sform and to RAS by qform"),
    "mirrored, other codes": (
        {"sform": (LAS, 4), "qform": (RAS, 1)},
        "run to LAS by sform and to RAS by qform",
    ),
    "turned about": ({"sform": (TURNED, 1), "qform": (affine(1, 1, 1), 1)}, "run to LPS by sform and to RAS"),
    "two places": (
        {"sform": (RAS, 1), "qform": (affine(2, 2, 2), 1)},
        "the first voxel at two places, 14.1 mm apart",
    ),
    "metres": (
        {"sform": (affine(0.002, 0.002, 0.002), 1), "unit": "meter"},
        "in the unit 'meter'; expected mm",
    ),
}
KNOWN = {
    "sform": {"sform": (LAS, 2)},
    "qform": {"qform": (LAS, 1)},
    "both": {"sform": (LAS, 1), "qform": (LAS, 1)},
    "no unit": {"sform": (LAS, 1), "unit": "unknown"},
    "moved to a template": {"sform": (affine(-2, 2, 2, at=(90, -126, -72)), 4), "qform": (LAS, 1)},
    "tilted": {"sform": (TILTED, 1), "qform": (affine(1, 1, 5**0.5), 1)},
    "tilted, nearest qform": {"sform": (TILTED, 1), "qform": (TILTED, 1)},
    "tilted, distance of slices": {"sform": (TILTED, 1), "pixdim": (1, 1, 2)},
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_a_header_that_does_not_say_is_refused_by_every_reader(case, tmp_path):
    header, words = UNKNOWN[case]
    path = save(tmp_path / "head.nii.gz", **header)
    for read in (read_volume, read_label_map, read_grid, lambda path: load_atlas(path, {1000: "a"})):
        with pytest.raises(
            DataError, match=rf"head\.nii\.gz: .*{words}.*state on purpose .* orientation: 'sform'"
        ):
            read(path)


@pytest.mark.parametrize("case", KNOWN)
def test_a_header_that_says_is_taken_at_its_word(case, tmp_path):
    header = KNOWN[case]
    path = save(tmp_path / "a.nii", **header)
    expected = header.get("sform", header.get("qform"))[0]
    for orientation in ("", "RPI", "qform"):  # for headers that do not say
        np.testing.assert_allclose(read_grid(path, orientation).affine, expected, atol=1e-5)


@pytest.mark.parametrize("letters", ["RAS", "LAS", "LPS", "PIR", "SRA", "ALS"])
def test_letters_say_how_the_axes_run(letters, tmp_path):
    path = save(tmp_path / "a.nii", pixdim=(1, 2, 3))
    volume = read_volume(path, letters)
    assert "".join(nibabel.aff2axcodes(volume.grid.affine)) == letters
    np.testing.assert_allclose(volume.grid.spacing, [1, 2, 3])
    np.testing.assert_allclose(volume.grid.affine @ [5, 4, 3, 1], [0, 0, 0, 1], atol=1e-9)
    turned = volume.turned()
    steps = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
    place = [0, 0, 0]
    for stored, (index, letter) in enumerate(zip((8, 2, 5), letters, strict=True)):
        axis, sign = steps[letter]
        place[axis] = index if sign > 0 else SHAPE[stored] - 1 - index
    assert turned.voxels[tuple(place)] == 1000


def test_a_matrix_is_taken_on_purpose(tmp_path):
    path = save(tmp_path / "a.nii", sform=(LAS, 1), qform=(RAS, 1))
    np.testing.assert_allclose(read_grid(path, "sform").affine, LAS, atol=1e-5)
    np.testing.assert_allclose(read_grid(path, "qform").affine, RAS, atol=1e-5)
    metres = save(tmp_path / "b.nii", sform=(affine(0.002, 0.002, 0.003), 1), unit="meter")
    np.testing.assert_allclose(read_grid(metres, "sform").spacing, [2, 2, 3], rtol=1e-5)
    unlabelled = save(tmp_path / "c.nii", sform=(affine(0.002, 0.002, 0.003), 1), unit="unknown")
    for orientation in ("", "sform"):
        with pytest.raises(
            DataError, match=r"voxels of 0\.002 x 0\.002 x 0\.003 mm; expected 0\.02 to 100 mm"
        ):
            read_grid(unlabelled, orientation)


def test_a_meta_image_without_directions_is_refused(tmp_path):
    (tmp_path / "a.raw").write_bytes(MARKED.T.tobytes())
    lines = ["NDims = 3", "DimSize = 11 9 7", "ElementSpacing = 1 2 3", "ElementType = MET_SHORT"]
    path = tmp_path / "a.mhd"
    path.write_text("\n".join([*lines, "ElementDataFile = a.raw", ""]))
    with pytest.raises(DataError, match=r"a\.mhd: no TransformMatrix.*orientation"):
        read_volume(path)
    np.testing.assert_allclose(
        read_volume(path, "LPS").grid.affine, centered_affine(np.array([1, 2, 3]), SHAPE, "LPS")
    )
    path.write_text("\n".join([*lines, "TransformMatrix = 1 0 0 0 1 0 0 0 1", "ElementDataFile = a.raw", ""]))
    np.testing.assert_allclose(read_volume(path).grid.affine, np.diag([-1, -2, 3, 1]))


@pytest.mark.parametrize("orientation", ["RAX", "RLS", "ras", "LA", "scanner", "AAS"])
def test_what_is_no_orientation_is_refused(orientation):
    with pytest.raises(ParameterError, match=rf"orientation={orientation!r}; expected"):
        check_orientation(orientation)


def head(number):
    voxels = np.zeros(SHAPE)
    voxels[2:8, 2:7, 1:6] = 100 + 10 * np.random.default_rng(number).random((6, 5, 5))
    voxels[8, 2, 5] = 200
    return voxels.astype(np.float32)


@pytest.mark.parametrize("space", ["file", "centered"])
def test_brains_are_loaded_as_their_orientation_is_stated(space, tmp_path):
    for number in range(4):
        for folder in ("t1", "dseg"):
            voxels = head(number) if folder == "t1" else (head(number) > 0).astype(np.float32)
            save(tmp_path / folder / f"P{number}.nii.gz", pixdim=(2, 2, 2), voxels=voxels)
    (tmp_path / "participants.csv").write_text("id,sex\nP0,F\nP1,M\nP2,F\nP3,M\n")
    asked = {"label_column": "sex", "space": space, "progress": False, "cache_dir": tmp_path / "cache"}
    with pytest.raises(DataError, match=r"neither sform nor qform is set.*orientation"):
        load_brains(tmp_path, **asked)
    right, left = (load_brains(tmp_path, orientation=letters, **asked) for letters in ("RAS", "LAS"))
    assert right.info["stated_orientation"] == "RAS"
    assert right.info["volumes_with_stated_orientation"] == 4
    if space == "file":
        for brains, x in ((right, 8), (left, 2)):
            assert brains.images[0, 0].flatten().argmax() == np.ravel_multi_index((x, 2, 5), SHAPE)
    assert not np.array_equal(right.images[0], left.images[0])
    with pytest.raises(ParameterError, match="in MNI space; letters do not say where 0 mm is"):
        load_brains(tmp_path, orientation="RAS", **(asked | {"space": "mni"}))


def test_files_that_say_are_not_counted_as_stated(tmp_path):
    for number in range(2):
        save(tmp_path / f"P{number}.nii.gz", sform=(LAS, 1), voxels=head(number))
    (tmp_path / "participants.csv").write_text("id,sex\nP0,F\nP1,M\n")
    brains = load_brains(
        tmp_path, label_column="sex", orientation="RAS", progress=False, cache_dir=tmp_path / "c"
    )
    assert brains.info["volumes_with_stated_orientation"] == 0
    assert brains.images[0, 0].flatten().argmax() == np.ravel_multi_index((2, 2, 5), SHAPE)


def test_ct_volumes_whose_side_is_unknown_are_refused(tmp_path):
    for number in range(2):
        save(tmp_path / f"P{number}.nii.gz", pixdim=(2, 2, 2), voxels=head(number) * 10 - 1000)
    (tmp_path / "labels.csv").write_text("file,contrast\nP0.nii.gz,1\nP1.nii.gz,0\n")
    with pytest.raises(DataError, match=r"sub-00.: neither sform nor qform is set"):
        load_ct(tmp_path, table=tmp_path / "labels.csv", size=32, progress=False)


def test_an_atlas_is_placed_as_stated(tmp_path):
    path = save(tmp_path / "a.nii", sform=(LAS, 1), qform=(RAS, 1))
    for orientation, x in (("sform", 2), ("qform", 8)):
        atlas = load_atlas(path, {1000: "a"}, orientation=orientation)
        assert atlas.on_grid(SHAPE, RAS).labels.argmax() == np.ravel_multi_index((x, 2, 5), SHAPE)


def test_real_heads_say_where_they_lie(real_data):
    heads = sorted((real_data / "ixi").glob("*/*.nii.gz"))
    assert len(heads) == 160
    for path in heads[::8]:
        np.testing.assert_array_equal(read_grid(path).affine, nibabel.load(path).affine)
    assert check_one_grid(heads[:1]).shape == tuple(read_grid(heads[0]).turned().shape)
