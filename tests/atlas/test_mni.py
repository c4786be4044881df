import nibabel
import numpy as np
import pytest

from xaitools.atlas import mni, mni_regions, region_table


@pytest.fixture(scope="module")
def own():
    return mni_regions()


def centre(atlas, index):
    return nibabel.affines.apply_affine(atlas.affine, np.argwhere(atlas.labels == index)).mean(axis=0)


def test_our_regions_cover_the_grey_matter(own):
    from nilearn.datasets import load_mni152_gm_template

    grey = load_mni152_gm_template(resolution=2)
    np.testing.assert_array_equal(grey.affine, own.affine)
    assert (own.labels[grey.get_fdata() > 0.5] > 0).mean() > 0.995
    assert region_table(np.ones(own.labels.shape), own)["n_voxels"].min() > 50


def test_our_regions_are_mirrored(own):
    off_midline = own.labels[np.arange(99) != 49]
    merged = own.merge_hemispheres()
    assert len(merged.names) == 38
    mirrored = merged.labels[np.arange(99) != 49]
    assert (mirrored == mirrored[::-1]).mean() > 0.999
    names = {name: index for index, name in own.names.items()}
    for name, index in names.items():
        if name.startswith("Left "):
            right = (off_midline == names["Right " + name[5:]]).sum()
            assert (off_midline == index).sum() == pytest.approx(right, rel=0.02)
            assert centre(own, index)[0] < 0


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("Left Hippocampus", (-25, -21, -10)),
        ("Right Amygdala", (27, 1, -18)),
        ("Left Thalamus", (-11, -18, 8)),
        ("Right Putamen", (28, 5, 2)),
        ("Left Caudate", (-11, 11, 9)),
        ("Right Pallidum", (21, 0, 0)),
        ("Left Insula", (-35, 7, 3)),
    ],
)
def test_our_nuclei_lie_where_the_aal_publication_has_them(own, name, place):
    index = next(index for index, other in own.names.items() if other == name)
    assert np.linalg.norm(centre(own, index) - place) < 8


AAL_CENTRES = {
    "Precentral": "Precentral Gyrus",
    "Frontal_Inf_Oper": "Inferior Frontal Gyrus",
    "Frontal_Inf_Tri": "Inferior Frontal Gyrus",
    "Frontal_Sup_Medial": "Superior Frontal Gyrus",
    "Supp_Motor_Area": "Superior Frontal Gyrus",
    "Rectus": "Orbitofrontal Cortex",
    "Rolandic_Oper": "Rolandic Operculum",
    "Insula": "Insula",
    "Cingulate_Ant": "Anterior Cingulate",
    "Cingulate_Mid": "Middle Cingulate",
    "Cingulate_Post": "Posterior Cingulate",
    "Postcentral": "Postcentral Gyrus",
    "Parietal_Sup": "Superior Parietal Lobule",
    "SupraMarginal": "Supramarginal Gyrus",
    "Angular": "Angular Gyrus",
    "Precuneus": "Precuneus",
    "Occipital_Mid": "Lateral Occipital Cortex",
    "Occipital_Inf": "Lateral Occipital Cortex",
    "Occipital_Sup": "Lateral Occipital Cortex",
    "Calcarine": "Medial Occipital Cortex",
    "Cuneus": "Medial Occipital Cortex",
    "Lingual": "Medial Occipital Cortex",
    "Fusiform": "Fusiform Gyrus",
    "ParaHippocampal": "Parahippocampal Gyrus",
    "Temporal_Sup": "Superior Temporal Gyrus",
    "Temporal_Mid": "Middle Temporal Gyrus",
    "Temporal_Inf": "Inferior Temporal Gyrus",
    "Temporal_Pole_Sup": "Temporal Pole",
    "Temporal_Pole_Mid": "Temporal Pole",
    "Thalamus": "Thalamus",
}
AAL_PARTS = {
    "Precentral Gyrus": ("Precentral", "Paracentral"),
    "Superior Frontal Gyrus": ("Frontal_Sup", "Supp_Motor"),
    "Middle Frontal Gyrus": ("Frontal_Mid",),
    "Inferior Frontal Gyrus": ("Frontal_Inf",),
    "Orbitofrontal Cortex": ("OFC", "Rectus", "Frontal_Inf_Orb", "Frontal_Med_Orb", "Frontal_Mid"),
    "Insula": ("Insula",),
    "Middle Cingulate": ("Cingulate_Mid",),
    "Postcentral Gyrus": ("Postcentral",),
    "Precuneus": ("Precuneus",),
    "Fusiform Gyrus": ("Fusiform",),
    "Parahippocampal Gyrus": ("ParaHippocampal", "Hippocampus"),
    "Superior Temporal Gyrus": ("Temporal_Sup",),
    "Middle Temporal Gyrus": ("Temporal_Mid",),
    "Inferior Temporal Gyrus": ("Temporal_Inf",),
}


def test_our_published_centres_are_those_of_the_aal_regions(aal2):
    """AAL2 keeps most regions of AAL, moved by 2 mm towards another version of the template."""
    ours = {name: [point.split()[:3] for point in text.split(",")] for name, text in mni.CORTEX.items()}
    ours |= {name: [point.split()[:3] for point in text.split(",")] for name, text in mni.INNER.items()}
    for name, region in AAL_CENTRES.items():
        index = next(index for index, other in aal2.names.items() if other == f"{name}_L")
        offsets = np.array(ours[region], dtype=float) - centre(aal2, index)
        assert np.linalg.norm(offsets - [0, 1.3, 1.5], axis=1).min() < 2, name


def test_most_of_our_points_lie_in_the_region_they_stand_for(aal2):
    inverse = np.linalg.inv(aal2.affine)
    for name, parts in AAL_PARTS.items():
        for point in mni.CORTEX[name].split(","):
            *place, _ = map(float, point.split())
            voxel = np.round(nibabel.affines.apply_affine(inverse, place)).astype(int)
            near = aal2.labels[tuple(slice(n - 2, n + 3) for n in voxel)]
            assert any(aal2.names[n].startswith(parts) for n in np.unique(near[near > 0])), (name, place)


@pytest.mark.parametrize(
    ("name", "dice"),
    [("Hippocampus", 0.55), ("Thalamus", 0.7), ("Putamen", 0.65), ("Lateral Ventricle", 0.6)],
)
def test_our_regions_overlap_with_real_ones(own, neuromorphometrics, name, dice):
    real = neuromorphometrics.on_grid(own.labels.shape, own.affine)
    for side in ("Left", "Right"):
        full = f"{side} {name}{' Proper' if name == 'Thalamus' else ''}"
        theirs = real.labels == next(index for index, other in real.names.items() if other == full)
        ours = own.labels == next(index for index, other in own.names.items() if other == f"{side} {name}")
        assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > dice
