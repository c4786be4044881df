"""A network put into a few rules: a decision tree on the densities of brain regions, and how faithful it is."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy.stats import binomtest
from sklearn.tree import DecisionTreeClassifier, export_text
from torch import Tensor, nn

from xaitools.checks import as_tensor, check_counts, checked_images
from xaitools.data import Volumes
from xaitools.errors import DataError, ShapeError, TargetError
from xaitools.interpretation.features import as_stack
from xaitools.models import ImageStack, predict

COLUMNS = ("node", "depth", "region", "threshold", "below", "above", "n", "class")


@dataclass(frozen=True, eq=False, repr=False)
class Surrogate:
    """A decision tree that was taught a network's answers, and what it is worth.

    Attributes
    ----------
    tree
        The fitted scikit-learn tree.
    scores
        A row each for "tree", "network" and "majority" (the network's most frequent training answer; for the accuracy
        the most frequent training label): ``fidelity`` is the share of held-out images on which it gives the network's
        answer, ``low`` and ``high`` its interval of 95 % (Wilson), ``accuracy`` the share on which it gives the label
        (NaN without labels), ``n`` the held-out images.
    rules
        A row for each node: ``node``, ``depth``, ``region`` ("" for a leaf), ``threshold`` (a density), ``below`` and
        ``above`` (nodes to go on with, -1 for a leaf; below counts the threshold itself), ``n`` training images, and
        the ``class`` most of these have.
    text
        The tree in words.
    """

    tree: DecisionTreeClassifier
    scores: pd.DataFrame
    rules: pd.DataFrame
    text: str

    @property
    def fidelity(self) -> float:
        """Share of the held-out images on which the tree gives the network's answer."""
        return float(self.scores.fidelity.iloc[0])

    def __repr__(self) -> str:
        return f"{self.scores.to_string(index=False)}\n\n{self.text}"


def region_densities(
    images: Float[Tensor, "n 1 x y z"] | Float[np.ndarray, "n 1 x y z"] | ImageStack,
    label_maps: Int[Tensor, "n 1 x y z"]
    | Int[Tensor, "x y z"]
    | Int[np.ndarray, "n 1 x y z"]
    | Int[np.ndarray, "x y z"]
    | ImageStack,
    names: Mapping[int, str] | None = None,
) -> pd.DataFrame:
    """Mean intensity of each image in each region.

    Parameters
    ----------
    images
        Volumes, or a stack that reads them.
    label_maps
        A map of regions for each image, or one for all, on the grid of the images; 0 is outside.
    names
        Names of the regions, by number: those to count. None for all numbers of the first image's map, as "region 17".

    Returns
    -------
    DataFrame
        A row for each image and a column for each region, in the unit of the images; NaN where a region is absent.

    Raises
    ------
    ShapeError
        If images and label maps are not on one grid, or not as many.
    DataError
        If there is no region.
    """
    stack = as_stack(images)
    shape = tuple(stack.shape)
    maps = label_maps if isinstance(label_maps, ImageStack) else as_tensor(label_maps, "label_maps")
    shared = len(maps.shape) == 3
    expected = shape[2:] if shared else shape
    if len(shape) != 5 or shape[1] != 1 or tuple(maps.shape) != expected:
        raise ShapeError(
            f"label maps of shape {tuple(maps.shape)} for images of shape {shape}; expected {shape}, or "
            f"{shape[2:]} for all, on the grid of the images (n, 1, x, y, z): resample the maps to the images first."
        )
    one = np.asarray(maps if shared else maps[:1][0, 0])
    if names is None:
        names = {int(number): f"region {int(number)}" for number in np.unique(one) if number != 0}
    if not names:
        raise DataError(
            "there is no region: the label map is 0 everywhere; expected a number for each region."
        )
    rows = []
    for position in range(len(stack)):
        image = checked_images(stack[position : position + 1])[0, 0].double().cpu().numpy()
        own = one if shared else np.asarray(maps[position : position + 1][0, 0])
        rows.append(_means(image, own, list(names)))
    return pd.DataFrame(np.array(rows), columns=list(names.values()))


def surrogate_tree(
    model: nn.Module,
    training: Volumes,
    held_out: Volumes,
    names: Mapping[int, str] | None = None,
    *,
    max_depth: int = 3,
    min_leaf: int = 5,
    seed: int = 0,
) -> Surrogate:
    """Teach a decision tree the network's answers from the densities of brain regions.

    Parameters
    ----------
    model
        Network that returns a score a class; it stays as it is.
    training, held_out
        Volumes with label maps, of different subjects: the tree learns the network's answers on the first, and is
        judged on the second.
    names
        Regions by number, as for :func:`region_densities`.
    max_depth, min_leaf, seed
        As for :func:`fit_surrogate`.

    Raises
    ------
    DataError
        If label maps are missing, a subject is in both sets, or a region is absent in an image.
    TargetError
        If the network has one output, so that it gives no class.

    References
    ----------
    Craven and Shavlik 1996, Extracting tree-structured representations of trained networks, NeurIPS: trees of a
    network's answers, and fidelity.
    """
    for volumes, which in ((training, "training"), (held_out, "held_out")):
        if volumes.label_maps is None:
            raise DataError(
                f"{which} has no label maps; expected one for each volume: load them with a folder 'dseg' of label "
                "maps, or give densities of your own to fit_surrogate."
            )
    if both := sorted(set(training.subjects) & set(held_out.subjects)):
        raise DataError(
            f"{len(both)} subjects are in training and held_out, the first {both[0]}; expected different ones: split "
            "by subject."
        )
    if names is None:
        numbers = np.unique(training.label_map(0))
        names = {int(number): f"region {int(number)}" for number in numbers if number != 0}
    tables, answers = [], []
    for volumes in (training, held_out):
        assert volumes.label_maps is not None
        tables.append(region_densities(volumes.images, volumes.label_maps, names))
        probabilities = predict(model, volumes.images)
        if probabilities.shape[1] == 1:
            raise TargetError(
                "the network has one output, as of a regression; expected a score for each class: a tree of classes "
                "cannot be taught a quantity."
            )
        answers.append(probabilities.argmax(1).numpy())
    return fit_surrogate(
        tables[0],
        answers[0],
        tables[1],
        answers[1],
        labels=training.labels.numpy(),
        held_out_labels=held_out.labels.numpy(),
        class_names=training.class_names,
        max_depth=max_depth,
        min_leaf=min_leaf,
        seed=seed,
    )


def fit_surrogate(
    densities: pd.DataFrame,
    answers: Int[np.ndarray, " n"],
    held_out: pd.DataFrame,
    held_out_answers: Int[np.ndarray, " m"],
    *,
    labels: Int[np.ndarray, " n"] | None = None,
    held_out_labels: Int[np.ndarray, " m"] | None = None,
    class_names: tuple[str, ...] = (),
    max_depth: int = 3,
    min_leaf: int = 5,
    seed: int = 0,
) -> Surrogate:
    """The tree of :func:`surrogate_tree`, from tables of features and a network's answers.

    Parameters
    ----------
    densities, held_out
        A row for each image, a column for each feature.
    answers, held_out_answers
        The class that the network gives each.
    labels, held_out_labels
        The true classes, for the accuracies.
    class_names
        Names of the classes, by number; their numbers if there are none.
    max_depth
        Questions to the leaf at most.
    min_leaf
        Training images in a leaf at least.
    seed
        Decides between questions that are as good.

    Raises
    ------
    ShapeError
        If there is not one answer and label for each row.
    DataError
        If a density is NaN or infinite, the columns differ, or the network gives all training images one class.
    """
    check_counts(max_depth=max_depth, min_leaf=min_leaf)
    _check_tables(densities, answers, labels, "training")
    _check_tables(held_out, held_out_answers, held_out_labels, "held-out")
    if list(densities.columns) != list(held_out.columns):
        raise DataError(
            "the training and held-out densities have different columns; expected the same regions."
        )
    if len(np.unique(answers)) < 2:
        raise DataError(
            f"the network gives all {len(answers)} training images the class {int(answers[0])}; expected two answers "
            "or more: there is nothing to teach a tree. Train the network further."
        )
    tree = DecisionTreeClassifier(max_depth=max_depth, min_samples_leaf=min_leaf, random_state=seed)
    tree.fit(densities.to_numpy(), answers)
    given = {
        "tree": (tree.predict(held_out.to_numpy()),) * 2,
        "network": (held_out_answers,) * 2,
        "majority": (_most(answers), None if labels is None else _most(labels)),
    }
    scores = pd.DataFrame(
        [
            {
                "which": which,
                **_fidelity(as_network == held_out_answers),
                "accuracy": _accuracy(as_labels, held_out_labels),
                "n": len(held_out),
            }
            for which, (as_network, as_labels) in given.items()
        ]
    )
    called = [class_names[number] if class_names else str(number) for number in tree.classes_]
    text = export_text(tree, feature_names=list(map(str, densities.columns)), class_names=called, decimals=3)
    return Surrogate(tree, scores, _rules(tree, list(map(str, densities.columns)), called), text)


def _means(image: Float[np.ndarray, "x y z"], labels: np.ndarray, numbers: list[int]) -> np.ndarray:
    order = np.argsort(numbers)
    ranks = np.searchsorted(np.array(numbers)[order], labels.ravel())
    ranks = np.clip(ranks, 0, len(numbers) - 1)
    inside = np.array(numbers)[order][ranks] == labels.ravel()
    sums, sizes = (
        np.bincount(ranks[inside], weights, minlength=len(numbers))
        for weights in (image.ravel()[inside], None)
    )
    means = np.full(len(numbers), np.nan)
    means[order] = np.divide(sums, sizes, out=np.full(len(numbers), np.nan), where=sizes > 0)
    return means


def _check_tables(
    densities: pd.DataFrame, answers: np.ndarray, labels: np.ndarray | None, which: str
) -> None:
    if {len(densities)} != {len(answers), len(answers if labels is None else labels)} or not len(densities):
        raise ShapeError(
            f"{len(densities)} {which} rows with {len(answers)} answers and "
            f"{'no' if labels is None else len(labels)} labels; expected one for each row, and at least one row."
        )
    bad = ~np.isfinite(densities.to_numpy(dtype=float))
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise DataError(
            f"{int(bad.any(0).sum())} regions have no density in {int(bad.any(1).sum())} {which} images, first "
            f"{densities.columns[column]} in image {row}; expected all regions in all images: leave these regions out, "
            "as the grid may be too coarse for them."
        )


def _most(numbers: np.ndarray) -> np.int64:
    values, counts = np.unique(numbers, return_counts=True)
    most: np.int64 = values[counts.argmax()]
    return most


def _fidelity(same: Bool[np.ndarray, " m"]) -> dict[str, float]:
    low, high = binomtest(int(same.sum()), len(same)).proportion_ci(method="wilson")
    return {"fidelity": float(same.mean()), "low": float(low), "high": float(high)}


def _accuracy(answers: np.ndarray | np.int64 | None, labels: np.ndarray | None) -> float:
    return float("nan") if labels is None or answers is None else float(np.mean(answers == labels))


def _rules(tree: DecisionTreeClassifier, regions: list[str], classes: list[str]) -> pd.DataFrame:
    nodes = tree.tree_
    depth = np.zeros(nodes.node_count, dtype=int)
    for node in range(nodes.node_count):  # parents stand before their children
        for child in (nodes.children_left[node], nodes.children_right[node]):
            if child >= 0:
                depth[child] = depth[node] + 1
    rows = [
        {
            "node": node,
            "depth": int(depth[node]),
            "region": "" if nodes.children_left[node] < 0 else regions[nodes.feature[node]],
            "threshold": float("nan") if nodes.children_left[node] < 0 else float(nodes.threshold[node]),
            "below": int(nodes.children_left[node]),
            "above": int(nodes.children_right[node]),
            "n": int(nodes.n_node_samples[node]),
            "class": classes[int(nodes.value[node, 0].argmax())],
        }
        for node in range(nodes.node_count)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))
