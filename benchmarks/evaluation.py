"""What sharing and sorting once save in the evaluation, against the loops a user would write.

Thirty maps of two 128 x 128 slices and ResNet-10. Localization: scikit-learn's ROC AUC and the best Dice over 100
thresholds, a map at a time. Fidelity: a map at a time, each with its own two ends and random control, in batches of
the same size. Both ways run in turn in this process, and their numbers are compared.

    python benchmarks/evaluation.py
"""

import statistics
import time
from functools import partial

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from xaitools.evaluation import fidelity_curves, localization
from xaitools.models import build_network, predict

REPEATS = 3
FRACTIONS = np.linspace(0, 1, 11)


def seconds(function):
    """Median time, and the last result."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return statistics.median(times), result


def example():
    """Two images, ten methods, each also squared (the same ranking) and in regions of 8 x 8 pixels."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 1, 128, 128, generator=generator)
    maps = {}
    for index in range(10):
        values = torch.rand(2, 1, 128, 128, generator=generator)
        regions = torch.nn.functional.avg_pool2d(values, 8).repeat_interleave(8, -1).repeat_interleave(8, -2)
        maps |= {f"{index}": values, f"{index} squared": values**2, f"{index} regions": regions}
    masks = torch.zeros(2, 1, 128, 128, dtype=torch.bool)
    masks[:, :, 40:80, 50:90] = True
    return images, maps, masks


def ours_localization(maps, masks):
    return [localization(values, masks) for values in maps.values()]


def naive_localization(maps, masks):
    scores = []
    for values in maps.values():
        for own, mask in zip(values.numpy(), masks.numpy(), strict=True):
            best = 0.0
            for threshold in np.quantile(own, np.linspace(0, 1, 100)):
                kept = own >= threshold
                best = max(best, 2 * (kept & mask).sum() / (kept.sum() + mask.sum()))
            scores.append((roc_auc_score(mask.ravel(), own.ravel()), best))
    return np.array(scores)


def ours_fidelity(ask, images, maps):
    return fidelity_curves(ask, images, maps, 0, fractions=FRACTIONS, progress=False)


def naive_fidelity(ask, images, maps):
    curves = {}
    evaluations = 0
    for name, values in maps.items():
        alone = fidelity_curves(ask, images, {name: values}, 0, fractions=FRACTIONS, progress=False)
        curves |= alone.curves
        evaluations += alone.n_evaluations
    return curves, evaluations


def main():
    images, maps, masks = example()
    ask = partial(predict, build_network("resnet10"), device="cpu")
    ask(images)

    naive, expected = seconds(lambda: naive_localization(maps, masks))
    ours, found = seconds(lambda: ours_localization(maps, masks))
    auc = np.concatenate([scores["auc"] for scores in found])
    dice = np.concatenate([scores["dice"] for scores in found])
    print(
        f"localization: {ours:.3f} s, by scikit-learn and thresholds {naive:.3f} s: {naive / ours:.1f} times faster"
    )
    print(f"  largest difference of AUC {np.abs(auc - expected[:, 0]).max():.1e}")
    print(f"  Dice found by 100 thresholds is lower by up to {(dice - expected[:, 1]).max():.1e}")

    ours, shared = seconds(lambda: ours_fidelity(ask, images, maps))
    naive, (curves, evaluations) = seconds(lambda: naive_fidelity(ask, images, maps))
    difference = max(np.abs(curve - curves[key]).max() for key, curve in shared.curves.items())
    print(
        f"fidelity: {ours:.2f} s for {shared.n_evaluations} evaluations, map by map {naive:.2f} s for {evaluations}"
    )
    print(f"  {naive / ours:.1f} times faster, largest difference {difference:.1e}")


if __name__ == "__main__":
    main()
