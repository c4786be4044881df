import zlib

import numpy as np
import pytest
import SimpleITK

from xaitools.data.meta_image import read_meta_image
from xaitools.errors import DataError, DataFileError

TURN = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
HEADER = "ObjectType = Image\nNDims = 3\nDimSize = 2 3 4\nElementType = MET_UCHAR\n"


def itk_image(dtype, shape=(4, 3, 2)):
    """Voxels (z, y, x) with a turned grid."""
    values = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    image = SimpleITK.GetImageFromArray(values)
    n_axes = len(shape)
    image.SetSpacing((0.5, 1.5, 2.5)[:n_axes])
    image.SetOrigin((-7.25, 3, 11)[:n_axes])
    image.SetDirection((TURN if n_axes == 3 else np.array([[0.6, -0.8], [0.8, 0.6]])).ravel())
    return image


def write(path, header, voxels=bytes(range(24))):
    path.write_bytes(header.encode() + voxels)
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["a.mhd", "a.mha"])
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_every_type_is_read_as_itk_reads_it(tmp_path, dtype, name, packed):
    image = itk_image(dtype)
    SimpleITK.WriteImage(image, tmp_path / name, useCompression=packed)
    read = read_meta_image(tmp_path / name)
    assert read.voxels.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(read.voxels, SimpleITK.GetArrayFromImage(image).T)
    np.testing.assert_array_equal(read.spacing, image.GetSpacing())
    np.testing.assert_array_equal(read.origin, image.GetOrigin())
    np.testing.assert_allclose(read.direction.ravel(), image.GetDirection(), atol=1e-15)


def test_a_slice_is_a_volume_of_one(tmp_path):
    image = itk_image("i2", (3, 2))
    SimpleITK.WriteImage(image, tmp_path / "a.mhd")
    read, joined = read_meta_image(tmp_path / "a.mhd"), SimpleITK.JoinSeries(image)
    np.testing.assert_array_equal(read.voxels, SimpleITK.GetArrayFromImage(joined).T)
    np.testing.assert_allclose(read.direction.ravel(), joined.GetDirection())
    np.testing.assert_array_equal(read.spacing, joined.GetSpacing())
    np.testing.assert_array_equal(read.origin, joined.GetOrigin())


@pytest.mark.parametrize(
    "fields",
    [
        "ElementByteOrderMSB = True\nOrientation = 0 1 0 1 0 0 0 0 1\nPosition = 1 2 3\nElementSize = 1 2 3\n",
        "BinaryDataByteOrderMSB = True\nRotation = 0 0 1 1 0 0 0 1 0\nOrigin = 1 2 3\nElementSpacing = 1 2 3\n",
        "HeaderSize = -1\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n",
        "HeaderSize = 16\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n",
    ],
)
def test_every_spelling_of_a_header_is_read_as_itk_reads_it(tmp_path, fields):
    (tmp_path / "a.raw").write_bytes(bytes(range(64)))
    header = HEADER.replace("UCHAR", "SHORT") + fields + "ElementDataFile = a.raw\n"
    path = write(tmp_path / "a.mhd", header, b"")
    image, read = SimpleITK.ReadImage(path), read_meta_image(path)
    np.testing.assert_array_equal(read.voxels, SimpleITK.GetArrayFromImage(image).T)
    np.testing.assert_array_equal(read.spacing, image.GetSpacing())
    np.testing.assert_array_equal(read.origin, image.GetOrigin())
    np.testing.assert_array_equal(read.direction.ravel(), image.GetDirection())


def test_a_header_that_names_no_directions_has_none(tmp_path):
    assert read_meta_image(write(tmp_path / "a.mha", f"{HEADER}ElementDataFile = LOCAL\n")).direction is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("ElementDataFile = ../a.raw\n", "outside of its folder.*Move"),
        ("ElementDataFile = /etc/passwd\n", "outside of its folder.*Move"),
        ("ElementDataFile = LIST\na.raw\n", "in several files; expected one"),
        ("ElementDataFile = %03d.raw 1 4 1\n", "in several files; expected one"),
        ("BinaryData = False\nElementDataFile = LOCAL\n", "voxels as text"),
        ("ElementNumberOfChannels = 3\nElementDataFile = LOCAL\n", "one value a voxel"),
    ],
)
def test_other_forms_are_refused_by_name(tmp_path, fields, words):
    with pytest.raises(DataError, match=words):
        read_meta_image(write(tmp_path / "a.mha", HEADER + fields))


@pytest.mark.parametrize("shape", ["3 3 3", "30000 30000 30000", "0 3 4", "-2 -3 4"])
def test_a_size_that_the_file_cannot_hold_is_refused(tmp_path, shape):
    header = HEADER.replace("2 3 4", shape) + "ElementDataFile = LOCAL\n"
    with pytest.raises(DataFileError, match=r"a\.mha: .* by its header"):
        read_meta_image(write(tmp_path / "a.mha", header))
    packed = header.replace("ElementDataFile", "CompressedData = True\nElementDataFile")
    with pytest.raises((DataFileError, ValueError), match=r"by its header|fewer voxels"):
        read_meta_image(write(tmp_path / "a.mha", packed, zlib.compress(bytes(24))))
