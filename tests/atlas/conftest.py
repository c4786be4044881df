"""Real atlases, read once."""

import pytest

from xaitools.atlas import load_atlas


@pytest.fixture(scope="session")
def neuromorphometrics(real_data):
    return load_atlas(real_data / "atlases/neuromorphometrics_spm12/labels_Neuromorphometrics.nii.gz")


@pytest.fixture(scope="session")
def aal2(real_data):
    return load_atlas(real_data / "atlases/aal2_clinica/atlas-AAL2_dseg.nii.gz")
