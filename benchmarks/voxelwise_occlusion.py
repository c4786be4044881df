"""Occlusion of a whole brain voxel by voxel, which was called computationally unfeasible, beside larger cubes.

Trains the network of Eitel and Ritter on synthetic brains of 2 mm (or takes it from the cache), explains one patient of
the test set with cubes of 10, 5 and 1 voxels, and prints for each the number of cubes, the time, and how well the map
finds the voxels that the disease changed (AUC within the brain). Compares 20 random single voxels with full passes.

    python benchmarks/voxelwise_occlusion.py [--brains 60] [--epochs 30] [--figure voxels.html]
"""

import argparse
import time
from math import ceil, prod

import numpy as np
import torch
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from xaitools.attribution import attribute
from xaitools.data import split
from xaitools.models import fit, log_odds, predict
from xaitools.phantoms import synthetic_brains
from xaitools.plots import map_panel

PATCHES = (10, 5, 1)
VIEWS = {"coronal": (1, -20), "axial": (2, -14), "sagittal": (0, -24)}  # axis and mm of MNI space


def trained(brains, epochs):
    training, validation, test = split(brains, (0.6, 0.15, 0.25), seed=0)
    network, _, _ = fit(
        "eitel_cnn",
        training,
        validation,
        augment="sagittal_flip",
        seed=0,
        max_epochs=epochs,
        patience=epochs,
        batch_size=4,
        learning_rate=1e-4,
        weight_decay=1e-4,
        optimizer="adam",
    )
    scores = predict(network, test.images, batch_size=4)
    found = scores.argmax(dim=1)
    print(f"balanced accuracy on {len(test)} test brains: {balanced_accuracy_score(test.labels, found):.1%}")
    surest = torch.where(test.labels == 1, scores[:, 1], 0).argmax()
    return network, test[[int(surest)]]


def explained(network, image):
    maps = {}
    for patch in PATCHES:
        start = time.perf_counter()
        name = f"occlusion[{patch}]"
        maps[patch] = attribute(network, image, None, [name])[name][0, 0].numpy()
        cubes = prod(ceil(size / patch) for size in image.shape[2:])
        seconds = time.perf_counter() - start
        print(f"patch {patch}: {cubes} cubes in {seconds:.1f} s, {1e3 * seconds / cubes:.3f} ms a cube")
    return maps


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--brains", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--figure", help="HTML file to write the maps to")
    options = parser.parse_args()
    brains = synthetic_brains(options.brains, spacing=2, atrophy=0.6, seed=0)
    network, patient = trained(brains, options.epochs)
    image = patient.images[[0]]
    network = log_odds(network, image)
    print(f"one brain of {' x '.join(map(str, image.shape[2:]))} voxels, {torch.get_num_threads()} threads")
    maps = explained(network, image)
    brain, truth = image[0, 0].numpy() > 0, patient.masks[0][0].numpy()
    for patch, found in maps.items():
        print(f"patch {patch}: AUC of |map| {roc_auc_score(truth[brain], np.abs(found[brain])):.3f}")
    print(
        f"largest difference from full passes: {largest_error(network, image, maps[1]):.1e} of the largest value"
    )
    if options.figure:
        figure = map_panel(
            np.stack([slice_of(image[0, 0], brains.affine, view) for view in VIEWS]),
            {
                view: {f"{p} x {p} x {p}": slice_of(found, brains.affine, view) for p, found in maps.items()}
                for view in VIEWS
            },
            mask=np.stack([slice_of(truth, brains.affine, view) for view in VIEWS]).astype(bool),
            mask_name="changed regions",
            title="Occlusion of one brain by cubes of 10, 5 and 1 voxels of 2 mm: what the network looks at",
            subtitle="Red: hiding the cube lowers the log-odds of 'patient'. In percent of each slice's largest value.",
        )
        figure.write_html(options.figure)


if __name__ == "__main__":
    main()
