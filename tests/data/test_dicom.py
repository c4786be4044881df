import numpy as np
import pydicom
import pytest
from pydicom.uid import EnhancedCTImageStorage, JPEGLosslessSV1, LegacyConvertedEnhancedCTImageStorage

from xaitools.data.dicom import (
    axial_slices,
    is_dicom,
    n_mixed_series,
    others_in_words,
    read_dicom,
    read_header,
    read_headers,
    slice_of_series,
    stacks,
)
from xaitools.data.folders import find_files
from xaitools.errors import DataError, DataFileError


def test_hounsfield_units_come_from_slope_and_intercept(tmp_path, write_dicom, ramp):
    path = write_dicom(tmp_path / "a.dcm", RescaleSlope=2, RescaleIntercept=-500)
    np.testing.assert_allclose(read_dicom(path).hu, (ramp + 1024) * 2 - 500)


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        ([1, 0, 0, 0, 1, 0], lambda hu: hu),
        ([-1, 0, 0, 0, -1, 0], lambda hu: hu[::-1, ::-1]),
        ([-1, 0, 0, 0, 1, 0], lambda hu: hu[:, ::-1]),
        ([1, 0, 0, 0, -1, 0], lambda hu: hu[::-1]),
        ([0, 1, 0, 1, 0, 0], lambda hu: hu.T),
        ([0, -1, 0, 1, 0, 0], lambda hu: hu[::-1].T),
        ([0, -1, 0, -1, 0, 0], lambda hu: hu[::-1, ::-1].T),
        ([0.99, 0.1, 0.05, -0.1, 0.99, 0], lambda hu: hu),
    ],
)
def test_every_orientation_is_shown_radiologically(tmp_path, write_dicom, ramp, orientation, stored):
    spacing = [2, 1] if stored(ramp).shape == ramp.shape else [1, 2]
    hu = stored(ramp)
    path = write_dicom(tmp_path / "a.dcm", hu, ImageOrientationPatient=orientation, PixelSpacing=spacing)
    read = read_dicom(path)
    np.testing.assert_allclose(read.hu, ramp)
    assert read.spacing == (2, 1)
    np.testing.assert_allclose(read.display(hu), ramp)


@pytest.mark.parametrize(
    "padding",
    [
        {"PixelPaddingValue": 3000},
        {"PixelPaddingValue": 2900, "PixelPaddingRangeLimit": 3100},
    ],
)
def test_padding_becomes_air(tmp_path, write_dicom, ramp, padding):
    ramp[0, :3] = 3000 - 1024
    read = read_dicom(write_dicom(tmp_path / "a.dcm", ramp, **padding))
    assert (read.hu[0, :3] == -1000).all()
    np.testing.assert_allclose(read.hu[1:], ramp[1:])


@pytest.mark.parametrize("unsigned_tag", [True, False])
def test_minus_2000_outside_the_circle_becomes_air(tmp_path, write_dicom, ramp, unsigned_tag):
    stored = ramp.round().astype(np.int16)
    stored[:2] = -2000

    def change(dataset):
        dataset.PixelRepresentation = 1
        dataset.PixelData = stored.tobytes()
        if unsigned_tag:
            dataset.add_new("PixelPaddingValue", "US", 63536)

    read = read_dicom(write_dicom(tmp_path / "a.dcm", RescaleIntercept=0, change=change))
    assert (read.hu[:2] == -1000).all()
    np.testing.assert_allclose(read.hu[2:], ramp[2:])


def test_hounsfield_units_do_not_depend_on_the_photometric_interpretation(tmp_path, write_dicom, ramp):
    path = write_dicom(tmp_path / "a.dcm", PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(read_dicom(path).hu, ramp)


def lookup(unit, values):
    """A change of a header: `values` for the stored numbers from 24 on, instead of slope and intercept."""

    def change(dataset):
        del dataset.RescaleSlope, dataset.RescaleIntercept
        table = pydicom.Dataset()
        table.LUTDescriptor = [len(values), 24, 16]
        table.ModalityLUTType = unit
        table.add_new("LUTData", "US", np.asarray(values).astype(np.int16).view(np.uint16).tolist())
        dataset.ModalityLUTSequence = [table]

    return change


def test_hounsfield_units_come_from_the_table_of_a_file(tmp_path, write_dicom, ramp):
    table = {stored: stored - (1000 if stored < 500 else 974) for stored in range(24, 1300)}
    read = read_dicom(write_dicom(tmp_path / "a.dcm", change=lookup("HU", list(table.values()))))
    np.testing.assert_array_equal(read.hu, np.vectorize(table.get)(ramp.astype(int) + 1024))
    assert read.hu.min() == -876
    assert read.doubt == ""


def test_values_without_slope_and_intercept_are_in_doubt(tmp_path, write_dicom):
    path = write_dicom(tmp_path / "a.dcm", RescaleSlope=None, RescaleIntercept=None)
    assert "124 to 1157, next to nothing below -200 HU" in read_dicom(path).doubt


def test_padding_is_no_air_that_was_measured(tmp_path, write_dicom, ramp):
    ramp[:3] = -1024
    ramp[0, 0] = 3000 - 1024
    path = write_dicom(tmp_path / "a.dcm", ramp, RescaleIntercept=0, PixelPaddingValue=0)
    assert "nothing below" in read_dicom(path).doubt


@pytest.mark.parametrize("orientation", [[1, 0, 0, 0, 1, 0], [-1, 0, 0, 0, 1, 0], [-1, 0, 0, 0, -1, 0]])
def test_a_series_is_sorted_by_position_not_by_name(tmp_path, write_dicom, orientation):
    heights = [30, -20, 10, 0, 20]
    headers = [
        read_header(write_dicom(tmp_path / f"{i}.dcm", height=height, ImageOrientationPatient=orientation))
        for i, height in enumerate(heights)
    ]
    assert [slice_of_series(headers, f).height for f in (0, 0.25, 0.5, 1)] == [-20, 0, 10, 30]


def test_the_longest_series_of_a_patient_is_taken(tmp_path, write_dicom):
    headers = [
        read_header(write_dicom(tmp_path / f"long{i}.dcm", height=i, series="1.2.1")) for i in range(3)
    ]
    headers += [
        read_header(write_dicom(tmp_path / f"short{i}.dcm", height=i, series="1.2.9")) for i in range(2)
    ]
    assert slice_of_series(headers, 0.5).path.name == "long1.dcm"


def test_only_dicom_files_are_found(tmp_path, write_dicom):
    write_dicom(tmp_path / "deep" / "b.dcm")
    write_dicom(tmp_path / "IM0001")
    write_dicom(tmp_path / "1.2.840.10008.12345")
    (tmp_path / "README").write_text("not DICOM")
    (tmp_path / "notes.xml").write_text("<a/>")
    assert [path.name for path in find_files(tmp_path, is_dicom)] == [
        "1.2.840.10008.12345",
        "IM0001",
        "b.dcm",
    ]


def test_only_axial_ct_slices_are_taken(tmp_path, write_dicom):
    others = {
        "scout": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        "coronal": {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]},
        "pet": {"Modality": "PT"},
        "note": {"Modality": "SR", "ImageOrientationPatient": None},
    }
    paths = [write_dicom(tmp_path / f"{name}.dcm", **tags) for name, tags in others.items()]
    with pytest.raises(
        DataError, match=r"localizer \(1\), not axial \(1\), PT \(1\), SR \(1\); expected axial CT"
    ):
        axial_slices(read_headers(paths, progress=False), tmp_path)
    assert axial_slices(read_headers(paths, progress=False), tmp_path, needed=False) == []
    paths += [write_dicom(tmp_path / f"{k}.dcm", height=k) for k in range(2)]
    headers = read_headers(paths, progress=False)
    assert [header.height for header in axial_slices(headers, tmp_path)] == [0, 1]
    assert others_in_words(headers) == "localizer (1), not axial (1), PT (1), SR (1)"
    with pytest.raises(DataError, match="no DICOM file"):
        axial_slices([], tmp_path)


def written(folder, write_dicom, heights, **tags):
    """Headers of slices at these heights, in a folder of their own."""
    own = folder / f"part{len(list(folder.iterdir()))}"
    return [
        read_header(write_dicom(own / f"{k}.dcm", height=height, **tags)) for k, height in enumerate(heights)
    ]


@pytest.mark.parametrize(
    "tags",
    [
        {"ImageOrientationPatient": [0.94, 0.342, 0, -0.342, 0.94, 0]},
        {"PixelSpacing": [2, 2]},
        {"hu": np.zeros((10, 10))},
        {"AcquisitionNumber": 2},
    ],
)
def test_stacks_under_one_series_uid_are_taken_apart(tmp_path, write_dicom, tags):
    """The longest is taken: the one of the slices at 0 to 30 mm, or the other one if it has five."""
    first = written(tmp_path, write_dicom, [0, 10, 20, 30], AcquisitionNumber=1)
    for n_others in (3, 5):
        hu = tags.get("hu")
        others = {key: value for key, value in tags.items() if key != "hu"}
        second = written(tmp_path, write_dicom, range(0, 10 * n_others, 10), hu=hu, **others)
        headers = [*second, *first]
        assert sorted(map(len, stacks(headers))) == sorted([4, n_others])
        assert n_mixed_series(headers) == 1
        assert slice_of_series(headers, 1) is (first[3] if n_others == 3 else second[4])
    assert n_mixed_series(first) == 0


def test_a_tilt_with_jitter_and_the_acquisitions_of_a_step_are_one_stack(tmp_path, write_dicom):
    parts = [
        written(
            tmp_path,
            write_dicom,
            [height],
            AcquisitionNumber=height,
            ImageOrientationPatient=[1, 0, 0, 0, 0.9385, -0.3449 - 1e-4 * height],
        )
        for height in range(3)
    ]
    headers = [header for part in parts for header in part]
    assert len(stacks(headers)) == 1
    assert n_mixed_series(headers) == 0


def test_a_copy_of_a_slice_counts_once_and_another_slice_at_its_place_is_refused(tmp_path, write_dicom):
    headers = written(tmp_path, write_dicom, [0, 10, 20])
    (tmp_path / "copy.dcm").write_bytes(headers[1].path.read_bytes())
    copied = [*headers, read_header(tmp_path / "copy.dcm")]
    assert slice_of_series(copied, 0.5).height == 10
    other = [*headers, *written(tmp_path, write_dicom, [10])]
    with pytest.raises(
        DataError, match=r"1\.dcm and .*0\.dcm: 2 slices of one series at one position; expected one"
    ):
        slice_of_series(other, 0.5)
    assert [slice_of_series(other, fraction).height for fraction in (0, 1)] == [0, 20]


@pytest.mark.parametrize("storage", [EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage])
@pytest.mark.parametrize("read", [read_header, read_dicom])
def test_an_enhanced_ct_is_refused_by_name(tmp_path, write_dicom, storage, read):
    def enhance(dataset):
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = storage
        dataset.NumberOfFrames = 3
        dataset.PixelData = 3 * dataset.PixelData

    path = write_dicom(tmp_path / "a.dcm", change=enhance)
    with pytest.raises(DataError, match=r"a\.dcm: enhanced CT, 3 slices in one file.*Split it"):
        read(path)


def test_a_tilted_gantry_turns_and_orders_nothing_else(tmp_path, write_dicom, ramp):
    """Slices tilted by 20 degrees, stacked along the table: their order and pixels are as without tilt."""
    tilt = np.deg2rad(20)
    tags = {"ImageOrientationPatient": [1, 0, 0, 0, np.cos(tilt), -np.sin(tilt)], "PixelSpacing": [2, 1]}
    headers = [
        read_header(write_dicom(tmp_path / f"{k}.dcm", ramp + k, height=height, **tags))
        for k, height in enumerate([10, -5, 0, 5, -10])
    ]
    chosen = [slice_of_series(headers, fraction).path for fraction in (0, 0.5, 1)]
    assert [path.name for path in chosen] == ["4.dcm", "2.dcm", "0.dcm"]
    read = read_dicom(chosen[1])
    np.testing.assert_allclose(read.hu, ramp + 2)
    assert read.spacing == pytest.approx((2, 1))


def compress(dataset):
    dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9"])
    dataset["PixelData"].is_undefined_length = True


def without_pixels(dataset):
    del dataset.PixelData


@pytest.mark.parametrize(
    ("tags", "error", "message"),
    [
        ({"change": without_pixels}, DataFileError, "no pixel data"),
        ({"change": compress}, DataFileError, "compressed as JPEG Lossless.*pylibjpeg"),
        ({"PixelSpacing": None}, DataFileError, "PixelSpacing"),
        ({"ImageOrientationPatient": None}, DataFileError, "ImageOrientationPatient"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, DataError, "not an axial slice"),
        ({"NumberOfFrames": 2}, DataError, "multi-frame"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, DataError, "PALETTE COLOR image.*MONOCHROME"),
        ({"PhotometricInterpretation": "RGB"}, DataError, "a colour image.*MONOCHROME"),
        ({"PhotometricInterpretation": None}, DataError, "a colour image.*MONOCHROME"),
        *[
            ({"Modality": other}, DataError, f"Modality is {other}; expected CT")
            for other in ("MR", "RTDOSE", "SEG")
        ],
        ({"Modality": "DOE JOHN"}, DataError, "Modality is unknown"),
        ({"RescaleType": "HU_MOD"}, DataError, "RescaleType.* is HU_MOD; expected HU"),
        ({"change": lookup("OD", range(1300))}, DataError, "ModalityLUTType.* is OD; expected HU"),
    ],
)
def test_a_file_that_is_no_ct_slice_is_named(tmp_path, write_dicom, tags, error, message):
    path = write_dicom(tmp_path / "bad.dcm", **tags)
    with pytest.raises(error, match=f"(?s)bad.dcm.*{message}"):
        read_dicom(path)


@pytest.mark.parametrize("kept", [100, 140, 400, -200])
def test_a_truncated_file_is_named(tmp_path, write_dicom, kept):
    path = write_dicom(tmp_path / "short.dcm")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataFileError, match=r"short\.dcm"):
        read_dicom(path)


def test_a_missing_or_foreign_file_is_named(tmp_path):
    (tmp_path / "text.dcm").write_text("no DICOM at all" * 20)
    for name in ("text.dcm", "gone.dcm"):
        with pytest.raises(DataFileError, match=name):
            read_dicom(tmp_path / name)


def test_a_series_without_positions_is_refused(tmp_path, write_dicom):
    headers = [read_header(write_dicom(tmp_path / f"{i}.dcm", ImagePositionPatient=None)) for i in range(2)]
    with pytest.raises(DataFileError, match=r"0\.dcm.*ImagePositionPatient"):
        slice_of_series(headers, 0.5)
