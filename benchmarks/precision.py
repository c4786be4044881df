"""What `precision="bf16"` does to the CT study's maps and scores, on a trained ResNet-50.

python benchmarks/precision.py
"""

import numpy as np
import pandas as pd
from _harness import Bench, Size
from scipy.stats import spearmanr

from xaitools.attribution import attribute, combine, parse
from xaitools.data import split
from xaitools.evaluation import localization
from xaitools.models import accuracy, fit, predict
from xaitools.phantoms import chest_slices

CT_BASES = (
    "gradient",
    "integrated_gradients[black]",
    "integrated_gradients[black+white]",
    "expected_gradients",
    "deconvolution",
)
"""The five methods of the CT study."""
SLICES = 4


def trained_network(bench):
    samples = chest_slices(bench.slices, size=bench.size, seed=0, progress=False)
    training, validation, test = split(samples, seed=0)
    network, _, _ = fit(
        "resnet10" if bench.quick else "resnet50",
        training,
        validation,
        max_epochs=bench.epochs,
        batch_size=16,
        stop_at=0.05,
        progress=False,
    )
    right = accuracy(predict(network, test.images), test.labels)
    return network, training, test[test.labels == 1][:SLICES], right


def scores(bench):
    network, training, slices, right = trained_network(bench)
    smoothings, regions = (
        ([""], [""]) if bench.quick else (["", "smoothgrad", "smoothgrad_squared"], ["", "xrai"])
    )
    methods = combine(CT_BASES, smoothings, regions)
    settings = {"steps": bench.steps, "draws": bench.draws, "references": training.images, "progress": False}
    exact, rough = (
        attribute(network, slices.images, 1, methods, precision=precision, **settings)
        for precision in ("float32", "bf16")
    )
    rows = []
    for name in methods:
        found = [localization(maps[name], slices.masks) for maps in (exact, rough)]
        ranks = [spearmanr(a.ravel(), b.ravel())[0] for a, b in zip(exact[name], rough[name], strict=True)]
        change = {key: np.abs(found[0][key] - found[1][key]).max() for key in ("auc", "dice")}
        rows.append({"map": parse(name).label, "rank correlation": min(ranks), **change})
    table = pd.DataFrame(rows)
    print(f"worst of {len(slices)} slices, bf16 against float32:")
    print(table.to_string(index=False, float_format="{:.4f}".format))
    setting = f"{len(methods)} maps of {len(slices)} slices, test accuracy {right:.2f}"
    for column, unit in (("rank correlation", "rank correlation"), ("auc", "AUC"), ("dice", "Dice")):
        values = table[column].tolist()
        kind = "worst slices" if column == "rank correlation" else "largest changes"
        bench.figure(values, unit, name=column, setting=f"{setting}; {kind} of the maps")


if __name__ == "__main__":
    Bench(
        __doc__,
        slices=Size(240, quick=40, least=40, help="slices, half of them to train on"),
        size=Size(128, quick=32, least=32, help="pixels of a side"),
        epochs=Size(20, quick=1, help="epochs at most"),
        steps=Size(20, quick=2, least=2, help="path steps"),
        draws=Size(10, quick=2, least=2, help="noisy copies"),
    ).run({"scores": scores})
