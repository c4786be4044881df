"""What sharing and sorting once save in the evaluation, against the loops a user would write.

Thirty maps of two 128 x 128 slices and ResNet-10. Localization: scikit-learn's ROC AUC and the best Dice over 100
thresholds, a map at a time. Fidelity: a map at a time, each with its own two ends and random control, in batches of
the same size. Both ways run in turn in this process, and their numbers are compared.

    python benchmarks/evaluation.py
"""

from functools import partial

import numpy as np
import torch
from _harness import Bench, Size
from sklearn.metrics import roc_auc_score

from xaitools.evaluation import fidelity_curves, localization
from xaitools.models import build_network, predict

FRACTIONS = np.linspace(0, 1, 11)


def example(bench):
    """Two images, some methods, each also squared (the same ranking) and in regions of 8 x 8 pixels."""
    size = bench.size
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 1, size, size, generator=generator)
    maps = {}
    for index in range(bench.methods):
        values = torch.rand(2, 1, size, size, generator=generator)
        regions = torch.nn.functional.avg_pool2d(values, 8).repeat_interleave(8, -1).repeat_interleave(8, -2)
        maps |= {f"{index}": values, f"{index} squared": values**2, f"{index} regions": regions}
    masks = torch.zeros(2, 1, size, size, dtype=torch.bool)
    masks[:, :, size // 3 : 2 * size // 3, size // 2 :] = True
    return images, maps, masks


def ours_localization(maps, masks):
    found = [localization(values, masks) for values in maps.values()]
    return np.column_stack([np.concatenate([scores[key] for scores in found]) for key in ("auc", "dice")])


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


def naive_fidelity(ask, images, maps):
    curves = {}
    evaluations = 0
    for name, values in maps.items():
        alone = fidelity_curves(ask, images, {name: values}, 0, fractions=FRACTIONS, progress=False)
        curves |= alone.curves
        evaluations += alone.n_evaluations
    return curves, evaluations


def localize(bench):
    _, maps, masks = example(bench)
    loop = "scikit-learn, 100 thresholds"
    ways = {loop: partial(naive_localization, maps, masks), "ours": partial(ours_localization, maps, masks)}
    turns = bench.in_turn(ways)
    found, expected = turns.results["ours"], turns.results[loop]
    auc, dice = np.abs(found - expected)[:, 0].max(), (found - expected)[:, 1].max()
    assert auc < 1e-9, auc
    agreement = f"AUC {auc:.0e}; 100 thresholds miss up to {dice:.0e} of Dice"
    bench.ratio(turns, loop, setting=f"{len(maps)} maps of two images", agreement=agreement)


def fidelity(bench):
    images, maps, _ = example(bench)
    ask = partial(predict, build_network("resnet10"), device="cpu")
    shared = partial(fidelity_curves, ask, images, maps, 0, fractions=FRACTIONS, progress=False)
    turns = bench.in_turn({"map by map": partial(naive_fidelity, ask, images, maps), "ours": shared})
    ours, (curves, evaluations) = turns.results["ours"], turns.results["map by map"]
    off = max(np.abs(curve - curves[key]).max() for key, curve in ours.curves.items())
    bench.ratio(
        turns,
        "map by map",
        setting=f"{ours.n_evaluations} evaluations instead of {evaluations}",
        agreement=f"{off:.0e}",
    )


if __name__ == "__main__":
    Bench(
        __doc__,
        size=Size(128, quick=32, least=32, help="pixels of a side"),
        methods=Size(10, quick=1, help="methods, three maps each"),
    ).run({"localization": localize, "fidelity": fidelity})
