"""Fixtures for every test, and the shape checks: jaxtyping's annotations are verified while the tests run."""

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
import pytest
from jaxtyping import install_import_hook
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

if workers := os.environ.get(
    "PYTEST_XDIST_WORKER_COUNT"
):  # before torch asks, and for kernels that tests start
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # large pages, as in reports: sooner done

# As for mypy, an int is welcome where a float is expected.
install_import_hook("xaitools", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")


@pytest.fixture(scope="session", autouse=True)
def _hears_signals() -> None:
    """A suite that was started in the background ignores SIGINT, or SIGHUP, and so would all that it starts."""
    usual = {signal.SIGINT: signal.default_int_handler}
    if os.name == "posix":
        usual[signal.SIGHUP] = signal.SIG_DFL
    for number, handler in usual.items():
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the user's cache of weights, and few draw still pictures: see `draws_stills`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XAITOOLS_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("BROWSER_PATH", "no browser, to save its seconds")
        yield


@pytest.fixture
def draws_stills(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs find the browser that draws still pictures."""
    monkeypatch.delenv("BROWSER_PATH")


@pytest.fixture(scope="session")
def notebooks() -> Path:
    """The tests' own notebooks: tiny, broken and slow."""
    return Path(__file__).parent / "notebooks"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data that XAITOOLS_DATA names."""
    if not (folder := os.environ.get("XAITOOLS_DATA")):
        pytest.skip("needs real data: set XAITOOLS_DATA to its folder")
    path = Path(folder).resolve()
    assert path.is_dir(), f"XAITOOLS_DATA names no folder: {path}"
    return path


@dataclass
class Browser:
    """A page of headless Chromium without a network, and what happened in it."""

    page: object
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def open(self, path: Path) -> object:
        """Open a file, wait until it has loaded, return the playwright page."""
        self.page.goto(Path(path).resolve().as_uri(), wait_until="load")
        return self.page


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Headless Chromium: `browser.open(path)`, then look at `browser.requests` and `browser.errors`."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        pytest.skip("needs Chromium: on Debian and Ubuntu, apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        context = chromium.new_context(offline=True, viewport={"width": 1280, "height": 900})
        result = Browser(context.new_page())
        result.page.on("request", lambda request: result.requests.append(request.url))
        result.page.on("pageerror", lambda error: result.errors.append(str(error)))
        result.page.on(
            "console", lambda message: message.type == "error" and result.errors.append(message.text)
        )
        yield result
        chromium.close()


def _fail_instead_of_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    expected_failure = hasattr(report, "wasxfail")
    if os.environ.get("XAITOOLS_NO_SKIP") and report.skipped and not expected_failure:
        report.outcome = "failed"
        report.longrepr = f"skipped, where XAITOOLS_NO_SKIP forbids it: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    _fail_instead_of_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    report = yield
    _fail_instead_of_skip(report)
    return report


SECRETS = ("Mustermann", "Erika", "MRN-4711", "Sauerbruch", "Charite-Nord", "19630812")


@pytest.fixture
def ramp():
    """HU, 20 x 28, growing to the patient's left and, faster, to the back: tells every orientation apart.

    Air in one corner, without which the values could not be HU.
    """
    hu = np.add.outer(np.arange(20) * 8.0, np.arange(28) * 3.0) - 100
    hu[0, 0] = -900
    return hu


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
