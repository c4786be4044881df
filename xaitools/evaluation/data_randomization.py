"""Does a map change when the network has learned labels that mean nothing? The data randomisation of Adebayo et al."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from xaitools.checks import Target, checked_images
from xaitools.errors import ParameterError
from xaitools.evaluation.randomization import (
    COLUMNS,
    UNDECIDED,
    Comparison,
    Explainer,
    Randomization,
    check_similarities,
)
from xaitools.models import LabelledImages, Network, accuracy, predict, predict_values, train
from xaitools.progress import Progress, Teller

MEMORISED = 0.95
"""Training accuracy, or share of the labels' variance, from which the permuted labels count as learned."""

TRAINING = {"max_epochs": 500, "augment": "", "weight_decay": 0.0, "stop_at": 0.02}
"""What makes a network memorise; may be overridden."""


@dataclass(frozen=True, eq=False, repr=False)
class DataRandomization(Randomization):
    """Similarity of maps to those of a network that was trained on permuted labels.

    Attributes
    ----------
    memorised
        How well the network knows the permuted labels of its training set: accuracy, or for quantities the share of
        their variance that it explains. Below 0.95 it has not memorised them, and verdicts are "undecided".
    model
        That network.
    """

    memorised: float = 0.0
    model: nn.Module | None = None

    def verdicts(self, **options: Any) -> pd.DataFrame:
        """As of :class:`~xaitools.evaluation.randomization.Randomization`; undecided if nothing was memorised."""
        found = super().verdicts(**options)
        return found if self.memorised >= MEMORISED else found.assign(verdict=UNDECIDED)

    def __repr__(self) -> str:
        return f"Permuted labels memorised: {self.memorised:.3f}\n\n{super().__repr__()}"

    def _repr_html_(self) -> str:
        return f"<p>Permuted labels memorised: {self.memorised:.3f}</p>{super()._repr_html_()}"


def data_randomization(
    model: nn.Module,
    training: LabelledImages,
    images: Float[Tensor, "batch channel *spatial"] | Float[np.ndarray, "batch channel *spatial"],
    target: Target = None,
    methods: str | Sequence[str] = ("gradient",),
    *,
    memorising: nn.Module | None = None,
    similarities: Sequence[str] = ("spearman", "ssim", "hog"),
    absolute: Sequence[bool] = (True, False),
    training_settings: dict[str, Any] | None = None,
    device: str | torch.device = "auto",
    seed: int = 0,
    progress: bool | Progress = True,
    **settings: Any,
) -> DataRandomization:
    """Train the same network on permuted labels until it knows them, and compare both networks' maps.

    The second network starts from redrawn weights, so it shares with the first its architecture and its images only.

    Parameters
    ----------
    model
        The trained network; it is not changed.
    training
        What it was trained on, as :func:`xaitools.models.train` takes it; labels are permuted among its images.
    images, target, methods, similarities, absolute, seed, **settings
        As for :func:`~xaitools.evaluation.randomization.model_randomization`; `images` as a rule others than those of
        `training`.
    memorising
        The second network, if it was trained already: then the labels of `training` are the permuted ones it had to
        learn. None to permute them and train it here.
    training_settings
        Options of :class:`xaitools.models.TrainingSettings` for the second network. By default up to 500 epochs without
        augmentation, weight decay and early stopping, until the loss on the training set itself is below 0.02.
    device
        Where it is trained and explained.
    progress
        As for :func:`~xaitools.evaluation.randomization.model_randomization`; training has a bar of its own.

    Returns
    -------
    DataRandomization
        `table` with ``k = 1`` for the second network, whose `layer` is "labels"; `memorised`; `verdicts()`.

    Raises
    ------
    ParameterError
        If permuting cannot change the labels, as all are the same.
    XaitoolsError
        As `xaitools.models.train` and `xaitools.attribute` raise.

    References
    ----------
    Adebayo et al. 2018, Sanity checks for saliency maps, arXiv:1810.03292, section 5.
    """
    images = checked_images(images)
    check_similarities(similarities, tuple(images.shape[2:]))
    permuted = _permuted(training, seed) if memorising is None else training
    network = Network.of(
        model, images[:1], settings.get("precision", "float32"), settings.pop("output", None)
    )
    explainer = Explainer(network, images, target, methods, "fixed", seed, settings)
    fixed = {"order": "data", "direction": "", "explained": "fixed"}
    with Teller(3, progress, "randomising labels", "network") as tell:
        comparison = Comparison(explainer, similarities, absolute, tell)
        rows = [{**fixed, "k": 0, "layer": "", "draw": 0, **row} for row in comparison.itself()["rows"]]
        tell(2)
        other = memorising or _fresh(model, network, seed)
        if memorising is None:
            options = {"seed": seed, **TRAINING, **(training_settings or {})}
            options.setdefault("patience", options["max_epochs"])
            train(other, permuted, permuted, device=device, progress=progress is True, **options)
        second = partial(Network, other, images[:1], network.precision, network.output)
        redrawn = comparison.of(second, 2)["rows"]
        tell(1)
    memorised = _known(other, permuted)
    rows += [{**fixed, "k": 1, "layer": "labels", "draw": 0, **row} for row in redrawn]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return DataRandomization(table, comparison.errors, memorised=memorised, model=other)


def _permuted(training: LabelledImages, seed: int) -> Any:
    """The set with its labels permuted among the images."""
    labels = training.labels
    if len(labels) == 0 or bool((labels == labels[0]).all()):
        raise ParameterError(
            "training has the same label for all images; expected different ones: permuting them changes nothing else."
        )
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return SimpleNamespace(
        images=training.images, labels=labels[order], class_names=training.class_names, unit=training.unit
    )


def _fresh(model: nn.Module, network: Network, seed: int) -> nn.Module:
    """A copy of the model to be trained, all its layers redrawn."""
    drawn = network.randomized(network.layers, seed).model
    other = copy.deepcopy(drawn)
    for parameter in other.parameters():
        parameter.requires_grad_(True)
    return other.train()


def _known(model: nn.Module, labelled: LabelledImages) -> float:
    """Accuracy, or for quantities the share of variance that is explained."""
    labels = labelled.labels
    if not labels.is_floating_point():
        return accuracy(predict(model, labelled.images), labels)
    missed = predict_values(model, labelled.images) - labels
    return float(1 - missed.square().mean() / labels.float().var(correction=0))
