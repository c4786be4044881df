"""What `precision="bf16"` does to the CT study's maps and scores, on a trained ResNet-50.

python benchmarks/precision.py
"""

import numpy as np
import pandas as pd
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
METHODS = combine(CT_BASES, ["", "smoothgrad", "smoothgrad_squared"], ["", "xrai"])
SLICES = 4


def trained_network():
    samples = chest_slices(240, size=128, seed=0, progress=False)
    training, validation, test = split(samples, seed=0)
    network, _, _ = fit(
        "resnet50",
        training,
        validation,
        max_epochs=20,
        batch_size=16,
        stop_at=0.05,
    )
    print(f"ResNet-50, test accuracy {accuracy(predict(network, test.images), test.labels):.2f}")
    return network, training, test[test.labels == 1][:SLICES]


def main():
    network, training, slices = trained_network()
    settings = {"steps": 20, "draws": 10, "references": training.images}
    exact, rough = (
        attribute(network, slices.images, 1, METHODS, precision=precision, **settings)
        for precision in ("float32", "bf16")
    )
    rows = []
    for name in METHODS:
        scores = [localization(maps[name], slices.masks) for maps in (exact, rough)]
        ranks = [spearmanr(a.ravel(), b.ravel())[0] for a, b in zip(exact[name], rough[name], strict=True)]
        change = {key: np.abs(scores[0][key] - scores[1][key]).max() for key in ("auc", "dice")}
        rows.append({"map": parse(name).label, "rank correlation": min(ranks), **change})
    table = pd.DataFrame(rows)
    print(f"worst of {len(slices)} slices, bf16 against float32:")
    print(table.to_string(index=False, float_format="{:.4f}".format))
    print(
        f"overall: rank correlation at least {table['rank correlation'].min():.3f}, "
        f"AUC within {table['auc'].max():.4f}, Dice within {table['dice'].max():.4f}"
    )


if __name__ == "__main__":
    main()
