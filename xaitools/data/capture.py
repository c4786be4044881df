"""Maps as DICOM secondary captures, which an archive files with the images that they are of."""

import warnings
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from xaitools.data.dicom import anonymous_errors, open_dicom
from xaitools.files import replacing

# Of the source's tags those that file an image with its patient and study, and place it; no others.
EXPECTED = [
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
]  # of an archive, were they empty
KEPT = [
    *EXPECTED,
    "SpecificCharacterSet",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
    "PositionReferenceIndicator",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
]
STEPS = 65535


def write_capture(path: Path, values: np.ndarray, source: Path, method: str) -> Path:
    """Write a map (row, column) on the pixels of a DICOM file as a secondary capture of its study.

    Values are kept in 65535 steps; RescaleSlope and RescaleIntercept give them back.

    References
    ----------
    DICOM PS3.3 A.8.1, Secondary Capture Image IOD.
    """
    capture = pydicom.Dataset()
    with anonymous_errors(source):
        header = open_dicom(source, stop_before_pixels=True)
        for tag in KEPT:
            if tag in header:
                capture[tag] = header[tag]
            elif tag in EXPECTED:
                setattr(capture, tag, "")
    slope, low = (float(f"{number:.9g}") for number in (max(np.ptp(values) / STEPS, 1e-30), values.min()))
    stored = np.clip(np.rint((values.astype(np.float64) - low) / slope), 0, STEPS).astype("<u2")
    capture.file_meta = pydicom.dataset.FileMetaDataset()
    capture.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    capture.SOPClassUID = SecondaryCaptureImageStorage
    capture.SOPInstanceUID, capture.SeriesInstanceUID = generate_uid(), generate_uid()
    capture.Modality, capture.ConversionType = "OT", "WSD"
    capture.SeriesNumber, capture.InstanceNumber = "", "1"
    capture.SeriesDescription = f"Attribution: {method}"[:64]
    capture.ImageType = ["DERIVED", "SECONDARY"]
    capture.Rows, capture.Columns = stored.shape
    capture.SamplesPerPixel, capture.PhotometricInterpretation = 1, "MONOCHROME2"
    capture.BitsAllocated, capture.BitsStored, capture.HighBit, capture.PixelRepresentation = 16, 16, 15, 0
    capture.RescaleSlope, capture.RescaleIntercept, capture.RescaleType = f"{slope:.9g}", f"{low:.9g}", "US"
    capture.PixelData = stored.tobytes()
    with replacing(path) as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they quote the source's values
        capture.save_as(temporary, enforce_file_format=True)
    return path
