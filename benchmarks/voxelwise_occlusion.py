"""Occlusion of a whole brain voxel by voxel, which was called computationally unfeasible, beside larger cubes.

Trains the network of Eitel and Ritter on synthetic brains of 2 mm (or takes it from the cache), explains one patient
of the test set with cubes of 10, 5 and 1 voxels, and prints for each the number of cubes, the time, and how well the
map finds the voxels that the disease changed (AUC within the brain). Compares 20 random single voxels with full
passes.

    python benchmarks/voxelwise_occlusion.py [--brains 60] [--epochs 30] [--figure voxels.html]
"""

from functools import partial
from math import ceil, prod

import numpy as np
import torch
from _harness import Bench, Size
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from xaitools.attribution import attribute
from xaitools.data import split
from xaitools.models import fit, log_odds, predict
from xaitools.phantoms import synthetic_brains
from xaitools.plots import map_panel

PATCHES = (10, 5, 1)
VIEWS = {"coronal": (1, -20), "axial": (2, -14), "sagittal": (0, -24)}  # axis and mm of MNI space


def trained(bench, brains):
    training, validation, test = split(brains, (0.6, 0.15, 0.25), seed=0)
    network, _, _ = fit(
        "eitel_cnn_small" if bench.quick else "eitel_cnn",
        training,
        validation,
        augment="sagittal_flip",
        seed=0,
        max_epochs=bench.epochs,
        patience=bench.epochs,
        batch_size=4,
        learning_rate=1e-4,
        weight_decay=1e-4,
        optimizer="adam",
        progress=False,
    )
    scores = predict(network, test.images, batch_size=4)
    found = scores.argmax(dim=1)
    print(f"balanced accuracy on {len(test)} test brains: {balanced_accuracy_score(test.labels, found):.1%}")
    surest = torch.where(test.labels == 1, scores[:, 1], 0).argmax()
    return network, test[[int(surest)]]


def explained(network, image, patch):
    name = f"occlusion[{patch}]"
    return attribute(network, image, None, [name], progress=False)[name][0, 0].numpy()


def largest_error(network, image, found, n=20):
    """Largest difference from full passes, in units of the map's largest value."""
    brain = torch.nonzero(image[0, 0])
    voxels = brain[torch.randperm(len(brain), generator=torch.Generator().manual_seed(0))[:n]].tolist()
    errors = []
    with torch.no_grad():
        clean = network(image)[0, 0]
        for voxel in voxels:
            hidden = image.clone()
            hidden[(0, 0, *voxel)] = 0
            errors.append(abs(float(clean - network(hidden)[0, 0]) - found[tuple(voxel)]))
    return max(errors) / np.abs(found).max()


def slice_of(volume, affine, view):
    """One slice, head or front up, padded to a square so that slices of all views are of one size."""
    axis, mm = VIEWS[view]
    index = round((mm - affine[axis, 3]) / affine[axis, axis])
    flat = np.flipud(np.take(np.asarray(volume), index, axis=axis).T)
    missing = [max(volume.shape) - size for size in flat.shape]
    return np.pad(flat, [(n // 2, n - n // 2) for n in missing])


def cubes(bench):
    brains = synthetic_brains(bench.brains, spacing=bench.spacing, atrophy=0.6, seed=0, progress=False)
    network, patient = trained(bench, brains)
    image = patient.images[[0]]
    network = log_odds(network, image)
    turns = bench.in_turn({f"{patch}": partial(explained, network, image, patch) for patch in PATCHES})
    maps = {patch: turns.results[f"{patch}"] for patch in PATCHES}
    brain, truth = image[0, 0].numpy() > 0, patient.masks[0][0].numpy()
    off = largest_error(network, image, maps[1])
    for patch, found in maps.items():
        windows = prod(ceil(size / patch) for size in image.shape[2:])
        auc = roc_auc_score(truth[brain], np.abs(found[brain]))
        bench.figure(
            turns.processor[f"{patch}"],
            "s",
            name=f"patch {patch}",
            setting=f"{' x '.join(map(str, image.shape[2:]))}, {windows} cubes; AUC of |map| in the brain {auc:.3f}",
            agreement=f"20 full passes {off:.0e}" if patch == 1 else "",
            seconds={"ours": turns.wall[f"{patch}"][0]},
        )
    if bench.options.figure:
        draw(bench.options.figure, image, maps, truth, brains.affine)


def draw(path, image, maps, truth, affine):
    figure = map_panel(
        np.stack([slice_of(image[0, 0], affine, view) for view in VIEWS]),
        {
            view: {f"{p} x {p} x {p}": slice_of(found, affine, view) for p, found in maps.items()}
            for view in VIEWS
        },
        mask=np.stack([slice_of(truth, affine, view) for view in VIEWS]).astype(bool),
        mask_name="changed regions",
        title="Occlusion of one brain by cubes of 10, 5 and 1 voxels of 2 mm: what the network looks at",
        subtitle="Red: hiding the cube lowers the log-odds of 'patient'. In percent of each slice's largest value.",
    )
    figure.write_html(path)


if __name__ == "__main__":
    Bench(
        __doc__,
        flags={"--figure": {"help": "HTML file to write the maps to"}},
        brains=Size(60, quick=12, least=12, help="synthetic brains"),
        spacing=Size(2, quick=12, help="mm of a voxel"),
        epochs=Size(30, quick=1, help="epochs at most"),
    ).run({"cubes": cubes})
