"""A coarse atlas of our own in MNI space."""

from collections.abc import Mapping

import nibabel
import numpy as np
from scipy import ndimage

from xaitools.atlas.regions import Atlas

# Points "x y z radius, ..." in mm of MNI space, left side, that stand for each region of mni_regions.
CORTEX = {
    "Precentral Gyrus": "-39 -6 51 10, -54 2 28 8, -26 -18 66 8, -6 -26 60 8",
    "Superior Frontal Gyrus": "-18 35 42 12, -5 49 31 10, -5 5 61 10, -20 10 60 9, -14 64 4 9",
    "Middle Frontal Gyrus": "-33 33 35 14, -38 14 50 10, -36 52 12 10",
    "Inferior Frontal Gyrus": "-48 13 19 10, -46 30 14 12",
    "Orbitofrontal Cortex": "-36 31 -12 12, -17 47 -13 12, -5 37 -18 10, -31 50 -10 10",
    "Rolandic Operculum": "-47 -8 14 9",
    "Insula": "-35 7 3 11, -38 -12 2 7",
    "Anterior Cingulate": "-4 35 14 10",
    "Middle Cingulate": "-5 -15 42 10, -4 8 38 7",
    "Posterior Cingulate": "-5 -43 25 10",
    "Postcentral Gyrus": "-42 -23 49 10, -58 -14 28 8, -24 -38 66 8",
    "Superior Parietal Lobule": "-23 -60 59 12",
    "Supramarginal Gyrus": "-56 -34 30 12",
    "Angular Gyrus": "-44 -61 36 12",
    "Precuneus": "-7 -56 48 11, -6 -60 32 9",
    "Lateral Occipital Cortex": "-32 -81 16 12, -36 -78 -8 11, -17 -84 28 9",
    "Medial Occipital Cortex": "-7 -79 6 12, -6 -80 27 9, -15 -68 -5 11",
    "Fusiform Gyrus": "-31 -40 -20 13, -34 -22 -28 9, -30 -64 -13 11",
    "Parahippocampal Gyrus": "-21 -16 -21 6, -23 -28 -20 8",
    "Entorhinal Cortex": "-23 -4 -32 6",
    "Superior Temporal Gyrus": "-53 -21 7 11, -60 -36 14 8, -52 0 -6 8",
    "Middle Temporal Gyrus": "-56 -34 -2 11, -58 -10 -16 9, -52 -60 8 9",
    "Inferior Temporal Gyrus": "-50 -28 -23 12, -48 -8 -34 9, -52 -56 -12 9",
    "Temporal Pole": "-40 15 -20 10, -36 15 -34 10",
}
INNER = {
    "Hippocampus": "-25 -13 -20 7.5, -28 -20 -16 6, -29 -28 -11 5.5, -25 -35 -4 5",
    "Amygdala": "-23 -3 -18 6",
    "Thalamus": "-11 -18 8 10, -7 -10 6 7, -16 -26 6 9",
    "Caudate": "-11 14 2 7.5, -13 10 10 7, -15 0 16 6, -17 -12 20 4.5",
    "Putamen": "-22 12 0 8, -27 2 2 8, -30 -10 2 6",
    "Pallidum": "-18 -1 -1 6, -21 -7 -1 5.5",
    "Accumbens": "-9 12 -8 4",
    "Ventral Diencephalon": "-9 -15 -10 9, -4 -7 -13 7",
    "Basal Forebrain": "-6 4 -13 6, -15 4 -14 5",
    "Brain Stem": "0 -28 -14 10, 0 -27 -32 14, 0 -38 -50 9, 0 -42 -64 8",
    "Cerebellum": "-28 -62 -38 24, -12 -52 -18 11, -42 -62 -38 15, -4 -64 -28 18",
}
VENTRICLES = {
    "Lateral Ventricle": "-8 20 8 12, -12 0 20 12, -16 -24 20 12, -24 -42 10 16, -22 -60 8 10",
    "Fourth Ventricle": "0 -46 -32 13",
}
_WHITE = "Cerebral White Matter"
_MIDLINE = ("Brain Stem", "Fourth Ventricle")


def mni_regions(resolution: int = 2) -> Atlas:
    """A coarse atlas of the whole brain in MNI space, made offline from points and the templates in nilearn.

    Each region stands for one or more points with a radius, mirrored to the right. A voxel goes to the region
    whose sphere is nearest (distance to the point less the radius), by tissue of the ICBM 2009 template: grey
    matter to a cortical region within 30 mm, or to the brain stem, cerebellum or a deep nucleus within 5 mm;
    other tissue to one of the latter if inside its sphere, else to the white matter; fluid to a ventricle if
    inside its sphere, else to none.

    Of each region of the cortex but the entorhinal at least one point, and the first of the thalamus, is the centre
    published for a region of the AAL template, rounded to mm. The others, and all radii, were set by hand and
    adjusted until sizes and places were near those in the Neuromorphometrics and AAL2 atlases, so overlap with these
    two is no independent test.

    It is meant for examples, teaching and synthetic brains: nuclei are about where they are, but borders between
    gyri are not anatomical. For results about real brains use a real atlas.

    Parameters
    ----------
    resolution
        Size of a voxel in mm.

    Returns
    -------
    Atlas
        Names such as ``"Left Hippocampus"``; brain stem and fourth ventricle are not divided. Voxels at x = 0
        count as left.

    References
    ----------
    Tzourio-Mazoyer et al., Automated anatomical labeling of activations in SPM using a macroscopic anatomical
    parcellation of the MNI MRI single-subject brain, NeuroImage 2002. Fonov et al., Unbiased nonlinear average
    age-appropriate brain templates from birth to adulthood, NeuroImage 2009.
    """
    from nilearn import datasets

    template = datasets.load_mni152_template(resolution=resolution)
    head = template.get_fdata() > 0.2
    grey = datasets.load_mni152_gm_template(resolution=resolution).get_fdata()
    white = datasets.load_mni152_wm_template(resolution=resolution).get_fdata()
    brain = ndimage.binary_fill_holes(ndimage.binary_closing(head, iterations=max(round(6 / resolution), 1)))
    xyz = nibabel.affines.apply_affine(template.affine, np.argwhere(brain))
    side = xyz[:, 0] > 0
    xyz[:, 0] = -np.abs(xyz[:, 0])
    is_fluid, is_grey = (grey + white < 0.5)[brain], (grey >= white)[brain]
    regions = [*CORTEX, *INNER, *VENTRICLES, _WHITE]
    cortex, to_cortex = _nearest(CORTEX, xyz)
    inner, to_inner = _nearest(INNER, xyz)
    ventricle, to_ventricle = _nearest(VENTRICLES, xyz)
    inner, ventricle, none = inner + len(CORTEX), ventricle + len(CORTEX) + len(INNER), len(regions)
    is_inner = np.where(is_grey, (to_inner < to_cortex) & (to_inner <= 5), to_inner <= 0)
    outer = np.where(is_grey, np.where(to_cortex <= 30, cortex, none), regions.index(_WHITE))
    fluid = np.where(to_ventricle <= 0, ventricle, none)
    found = np.where(is_fluid, fluid, np.where(is_inner, inner, outer))
    names, numbers = _numbered(regions)
    labels = np.zeros(brain.shape, dtype=np.int64)
    labels[brain] = numbers[found, side.astype(int)]
    return Atlas(
        labels, template.affine, names, source="xaitools: points on the MNI152 templates", space="mni"
    )


def _numbered(regions: list[str]) -> tuple[dict[int, str], np.ndarray]:
    """Index to name of the halves, and the indices (region, left or right), with a row of 0 for none at the end."""
    names: dict[int, str] = {}
    numbers = np.zeros((len(regions) + 1, 2), dtype=np.int64)
    for row, region in zip(numbers, regions, strict=False):
        for half, prefix in enumerate([""] if region in _MIDLINE else ["Left ", "Right "]):
            names[len(names) + 1] = prefix + region
            row[half:] = len(names)
    return names, numbers


def _nearest(points: Mapping[str, str], xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank of the region whose sphere is nearest to each position, and the distance to it, negative inside."""
    distance = np.full(len(xyz), np.inf)
    nearest = np.zeros(len(xyz), dtype=int)
    for index, text in enumerate(points.values()):
        for point in text.split(","):
            *centre, radius = map(float, point.split())
            own = np.linalg.norm(xyz - centre, axis=1) - radius
            nearest[own < distance] = index
            distance = np.minimum(distance, own)
    return nearest, distance
