"""Writers of small DICOM files, laid out as publishers ship them."""

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SECRETS = ("Mustermann", "Erika", "MRN-4711", "Sauerbruch", "Charite-Nord", "19630812")


@pytest.fixture
def ramp():
    """HU, 20 x 28, growing to the patient's left and, faster, to the back: tells every orientation apart."""
    return np.add.outer(np.arange(20) * 8.0, np.arange(28) * 3.0) - 100


@pytest.fixture
def secrets():
    """What must never be shown of the patient in `name_everything`."""
    return SECRETS


@pytest.fixture
def write_dicom(ramp):
    """Write a DICOM file; tags by keyword, None leaves one out, `change` gets the data set last."""

    def write(path, hu=None, *, patient="p1", series="1.2.3", height=0.0, change=None, **tags):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        stored = np.round((ramp if hu is None else np.asarray(hu)) + 1024).astype(np.uint16)
        fields = {
            "SOPClassUID": CTImageStorage,
            "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
            "Modality": "CT",
            "PatientID": patient,
            "SeriesInstanceUID": series,
            "ImagePositionPatient": [0, 0, height],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [1, 1],
            "RescaleSlope": 1,
            "RescaleIntercept": -1024,
            "Rows": stored.shape[0],
            "Columns": stored.shape[1],
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": 0,
            "PixelData": stored.tobytes(),
        }
        for tag, value in (fields | tags).items():
            if value is not None:
                setattr(dataset, tag, value)
        if change is not None:
            change(dataset)
        path.parent.mkdir(parents=True, exist_ok=True)
        pydicom.dcmwrite(path, dataset)
        return path

    return write


@pytest.fixture
def name_everything():
    """Fill a header with names and numbers that identify a patient."""

    def change(dataset):
        family, given, number, doctor, hospital, birth = SECRETS
        dataset.PatientName = f"{family}^{given}"
        dataset.PatientID = number
        dataset.PatientBirthDate = birth
        dataset.ReferringPhysicianName = doctor
        dataset.InstitutionName = hospital
        dataset.StudyDescription = f"Thorax {family} {doctor}"
        dataset.OtherPatientNames = f"{given}^{family}"
        dataset.PatientComments = f"{family} {number}"
        dataset.AccessionNumber = number

    return change
