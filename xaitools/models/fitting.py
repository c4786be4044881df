"""A trained network for given data: from the cache if it is there, else trained and put there."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from xaitools.errors import ParameterError
from xaitools.models.augmentation import AUGMENTATIONS
from xaitools.models.images import ImageStack, digest
from xaitools.models.networks import build_network
from xaitools.models.training import History, train
from xaitools.models.weights import WeightsInfo, cached_weights, load_weights, save_weights


def fit(
    network: str,
    images: Float[Tensor, "n channel *spatial"] | ImageStack,
    labels: Shaped[Tensor, " n_labels"],
    val_images: Float[Tensor, "m channel *spatial"] | ImageStack,
    val_labels: Shaped[Tensor, " m_labels"],
    *,
    class_names: Sequence[str] = (),
    unit: str = "",
    pretrained: bool = False,
    augment: str = "flip_and_shift",
    seed: int = 0,
    device: str = "auto",
    progress: bool = True,
    **settings: Any,
) -> tuple[nn.Module, History, bool]:
    """Train a network by name, or take it from the cache if it was trained so before.

    A training that was killed goes on from its last epoch.

    Parameters
    ----------
    network
        Key of `xaitools.models.networks.NETWORKS`.
    images, labels, val_images, val_labels
        As `xaitools.models.training.train` takes them.
    class_names
        What each label stands for; empty for a regression.
    unit
        Unit of the labels of a regression.
    pretrained
        Start from ImageNet weights.
    augment
        Key of `xaitools.models.augmentation.AUGMENTATIONS`; "" for none.
    **settings
        More arguments of `xaitools.models.training.train`, plain values.

    Returns
    -------
    model
        In evaluation mode.
    history
        Course of the training that made it.
    cached
        Whether it came from the cache.
    """
    if augment and augment not in AUGMENTATIONS:
        raise ParameterError(f"unknown augmentation {augment!r}; known: {', '.join(AUGMENTATIONS)}")
    in_channels, input_size = images.shape[1], tuple(images.shape[2:])
    n_outputs = len(class_names) or 1
    build = partial(
        build_network, network, in_channels=in_channels, n_outputs=n_outputs, input_size=input_size
    )
    options = {"pretrained": pretrained, "seed": seed, "augment": augment}
    data = digest(images, labels, val_images, val_labels)
    path = cached_weights(network, {**options, "shape": [in_channels, *input_size], **settings}, data)
    if path.exists() and _history_file(path).exists():
        model = build()
        load_weights(model, path)
        return model.eval(), _read_history(path), True
    model = build(pretrained=pretrained, seed=seed)
    history = train(
        model,
        images,
        labels,
        val_images,
        val_labels,
        seed=seed,
        device=device,
        progress=progress,
        augment=AUGMENTATIONS.get(augment),
        checkpoint_dir=path.with_suffix(".checkpoint"),
        **settings,
    )
    _history_file(path).parent.mkdir(parents=True, exist_ok=True)
    _history_file(path).write_text(json.dumps(asdict(history)))
    save_weights(model, path, WeightsInfo(network, in_channels, tuple(class_names), unit, input_size))
    return model.eval(), history, False


def _history_file(path: Path) -> Path:
    return path.with_suffix(".json")


def _read_history(path: Path) -> History:
    return History(
        **{name: tuple(values) for name, values in json.loads(_history_file(path).read_text()).items()}
    )
