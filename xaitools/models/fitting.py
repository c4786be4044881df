"""A trained network for given data: from the cache if it is there, else trained and put there."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xaitools.errors import WeightsError
from xaitools.models.checkpoint import Checkpoint
from xaitools.models.devices import resolve_device
from xaitools.models.epochs import has_epochs
from xaitools.models.history import History
from xaitools.models.images import LabelledImages, digest
from xaitools.models.kept import keep_training, kept_history, kept_model
from xaitools.models.networks import build_network
from xaitools.models.settings import TrainingSettings
from xaitools.models.training import checked_loop
from xaitools.models.weights import WeightsInfo, cached_weights, fingerprint_of


def fit(
    network: str,
    training: LabelledImages,
    validation: LabelledImages,
    *,
    pretrained: bool = False,
    start: Mapping[str, Tensor] | None = None,
    device: str | torch.device = "auto",
    progress: bool = True,
    keep_epochs: str | Path | None = None,
    **settings: Any,
) -> tuple[nn.Module, History, bool]:
    """Train a network by name, or take it from the cache if it was trained so before.

    A training that was killed or interrupted goes on from its last finished epoch when the call is made again, and
    ends with the same weights: its state lies beside the cached weights until it is done. What is damaged in the cache
    is made again, and the log says so.

    Parameters
    ----------
    network
        Key of :data:`~xaitools.models.networks.NETWORKS`.
    training, validation
        As :func:`~xaitools.models.training.train` takes them; their class names, none for a regression, say how
        many outputs the network gets.
    pretrained
        Start from ImageNet weights.
    start
        Weights of some or all layers to start from, by name as in ``state_dict()``, such as the encoder that
        :func:`~xaitools.models.autoencoder.pretrain_autoencoder` returns; the others are new.
    device, progress, keep_epochs
        As for :func:`~xaitools.models.training.train`; a network in the cache is trained anew where the folder lacks
        an epoch of it.
    **settings
        Options of :class:`~xaitools.models.settings.TrainingSettings`, plain values; the seed also fixes the
        weights that the network starts with.

    Returns
    -------
    model
        On `device`, in evaluation mode.
    history
        Course of the training that made it.
    cached
        Whether it came from the cache.

    Raises
    ------
    WeightsError
        If `start` does not fit the network.
    XaitoolsError
        As :func:`~xaitools.models.training.train` and :func:`~xaitools.models.networks.build_network` raise.
    """
    options = TrainingSettings(**settings)
    in_channels, input_size = training.images.shape[1], tuple(training.images.shape[2:])
    info = WeightsInfo(network, in_channels, tuple(training.class_names), training.unit, input_size)
    build = partial(
        build_network, network, in_channels=in_channels, n_outputs=info.n_outputs, input_size=input_size
    )
    path = cached_weights(
        network,
        {
            "pretrained": pretrained,
            "seed": options.seed,
            "augment": options.augment,
            "shape": [in_channels, *input_size],
            **settings,
            **({} if start is None else {"start": fingerprint_of(start)}),
        },
        digest(training.images, training.labels, validation.images, validation.labels),
    )
    known = kept_history(path)
    if known and (keep_epochs is None or has_epochs(keep_epochs, len(known), path.stem)):
        trained = kept_model(path, build)
        if trained is not None:
            return trained.to(resolve_device(device)).eval(), known, True
    model = build(pretrained=pretrained, seed=options.seed)
    _fill(model, start or {}, network)
    checkpoint = Checkpoint(path.with_suffix(".checkpoint.pt"), {"key": path.stem}, cached=True)
    loop = checked_loop(model, training, validation, options, device)
    if keep_epochs is not None:
        loop.keep_epochs, loop.key = Path(keep_epochs), path.stem
    history = loop.run(checkpoint, progress)
    keep_training(path, model, info, history)
    checkpoint.remove()
    again = kept_model(
        path, build
    )  # so that the layout in memory, and with it the last bits, are those of later runs
    return (model if again is None else again.to(resolve_device(device)).eval()), history, False


def _fill(model: nn.Module, state: Mapping[str, Tensor], network: str) -> None:
    """Put weights into the layers of their names."""
    own = model.state_dict()
    wrong = [name for name, value in state.items() if name not in own or own[name].shape != value.shape]
    if wrong:
        raise WeightsError(
            f"start has {wrong[0]!r}, which {network} lacks or has in another shape; expected weights of its own "
            "layers: pre-train the same network with images of the same channels."
        )
    model.load_state_dict({**own, **state})
