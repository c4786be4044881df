"""The network of a study: trained, taken from the cache, or loaded."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from torch import Tensor, nn

from xaitools.data import Samples, Volumes
from xaitools.errors import DivergedError, WeightsError
from xaitools.models import History, ImageStack, fingerprint, fit, load_model, resolve_device
from xaitools.models.prediction import outputs_of
from xaitools.plots import training_plot
from xaitools.study.run import Run


@dataclass(frozen=True)
class Trained:
    """A network ready to be asked.

    Attributes
    ----------
    name
        What the report calls it: letters, digits, "_" and "-", so that files can have it in their names.
    model
        In evaluation mode, on its device.
    start
        What it started from: "the file", "ImageNet weights", "pre-trained layers" or "random weights".
    history
        Course of its training; None for one that was loaded.
    cached
        Whether its weights came from the cache.
    """

    name: str
    model: nn.Module
    start: str
    history: History | None = None
    cached: bool = False

    @property
    def fingerprint(self) -> str:
        """Digest of the weights."""
        return fingerprint(self.model)


def train_or_load(
    model: str,
    network: str,
    training: Samples | Volumes,
    validation: Samples | Volumes,
    *,
    device: str = "auto",
    pretrained: bool = False,
    start: Mapping[str, Tensor] | None = None,
    seed: int = 0,
    **settings: Any,
) -> Trained:
    """The network that a user names, else one that is trained here or taken from the cache.

    Parameters
    ----------
    model
        A weights file or ``package.module:factory``, as `xaitools.models.load_model` takes it; "" to train.
    network
        Name of the architecture.
    training, validation
        What to train with; they also say how many channels and outputs the network has to have.
    device
        Where to train, and where the network is put.
    pretrained
        Start from ImageNet weights.
    start
        Weights of some layers to start from, as `xaitools.models.fit` takes them.
    seed, **settings
        As `xaitools.models.fit` takes them.

    Raises
    ------
    WeightsError, ParameterError
        As `xaitools.models.load_model` and `xaitools.models.fit` do; WeightsError also if the network that the user
        names does not take these images, or gives another number of outputs.
    """
    place = resolve_device(device)
    if model:
        size = tuple(training.images.shape[2:])
        n_outputs = len(training.class_names) or 1
        loaded = load_model(model, network=network, n_outputs=n_outputs, input_size=size).to(place)
        _check_takes(loaded, model, training.images[:1], n_outputs)
        return Trained(re.sub(r"[^\w-]+", "_", re.split(r"[\\/]", model)[-1]), loaded, "the file")
    net, history, cached = fit(
        network,
        training,
        validation,
        pretrained=pretrained,
        start=start,
        seed=seed,
        device=device,
        **settings,
    )
    origin = "ImageNet weights" if pretrained else "random weights"
    return Trained(network, net.to(place), origin if start is None else "pre-trained layers", history, cached)


def train_unless_diverged(
    model: str,
    network: str,
    training: Samples | Volumes,
    validation: Samples | Volumes,
    settings: Mapping[str, Any],
) -> Trained | DivergedError:
    """A network as :func:`train_or_load` gives it, or the error of a training that diverges."""
    try:
        return train_or_load(model, network, training, validation, progress=False, **settings)
    except DivergedError as error:
        return error


def _check_takes(loaded: nn.Module, model: str, image: Tensor | ImageStack, n_outputs: int) -> None:
    """Raise WeightsError unless the network gives `n_outputs` numbers for an image of the study."""
    size = tuple(image.shape[1:])
    try:
        found = outputs_of(loaded, image, None, 1, None)
    except (RuntimeError, TypeError, IndexError) as error:
        raise WeightsError(
            f"model={model!r} stops at the first image with {type(error).__name__}: {error}; expected a network for "
            f"images of shape {size} (channels and size), as the study's are: give the size that it was trained with."
        ) from error
    if found.shape[1] != n_outputs:
        raise WeightsError(
            f"model={model!r} gives {found.shape[1]} outputs for an image of shape {size}; expected {n_outputs}, one "
            "for each class, or one for a measurement: name a factory that wraps the network so."
        )


def training_figure(run: Run, net: Trained, *, unit: str = "", name: str = "training") -> go.Figure | None:
    """The course of a training, with the epoch whose weights were kept; also saved among the run's figures.

    Parameters
    ----------
    net
        The network; one that was loaded has no course, so there is no figure.
    unit
        Unit of the labels of a regression; "" for a classification.
    name
        Name of the figure's file.
    """
    if net.history is None:
        return None
    history = net.history
    curves = pd.DataFrame(
        {
            "epoch": range(1, len(history.val_loss) + 1),
            "training loss": history.train_loss,
            "validation loss": history.val_loss,
            f"validation MAE ({unit})" if unit else "validation accuracy": history.val_score,
        }
    )
    loss = (
        "mean absolute error in standard deviations of the training labels"
        if unit
        else "cross-entropy in nats"
    )
    figure = training_plot(
        curves,
        best_epoch=history.best_epoch + 1,
        title=f"Training of {net.name}",
        subtitle=f"Loss: {loss}. The dashed line marks the epoch whose weights were kept.",
    )
    run.save_figure(figure, name)
    return figure
