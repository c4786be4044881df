"""A convolutional autoencoder, whose encoder initialises a classifier."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from xaitools.errors import DataError, ParameterError, UnsupportedModelError
from xaitools.models.checkpoint import Checkpoint
from xaitools.models.devices import resolve_device
from xaitools.models.history import History
from xaitools.models.images import ImageStack, digest
from xaitools.models.kept import keep_training, kept_history, kept_model
from xaitools.models.loop import Loop
from xaitools.models.networks import build_network
from xaitools.models.prediction import outputs_of
from xaitools.models.settings import TrainingSettings
from xaitools.models.tasks import Task
from xaitools.models.weights import WeightsInfo, cached_weights

POOL = 2
"""Factor by which the features are pooled before they are decoded: without, the code could hold the image as it is."""


@dataclass(frozen=True)
class Pretrained:
    """What an autoencoder learnt, and whether it learnt anything.

    Attributes
    ----------
    encoder
        Weights of the classifier's ``features`` by name, as :func:`~xaitools.models.fitting.fit` takes for `start`.
    history
        Course of the training; the loss and the score are the mean squared error.
    error
        Mean squared error on the validation images.
    mean_image_error
        That of the mean of the training images, the best that one image can do for all.
    cached
        Whether it came from the cache.
    """

    encoder: Mapping[str, Tensor]
    history: History
    error: float
    mean_image_error: float
    cached: bool = False

    @property
    def explained(self) -> float:
        """Share of the variance about the mean image that it reconstructs, 1 at best; 0 or less: none, of no use."""
        return 1 - self.error / self.mean_image_error


class Autoencoder(nn.Module):
    """The features of a network, pooled, and their decoder: convolutions with linear upsampling, in mirrored order.

    What is decoded is the difference to the mean image, which is known; it begins with none. Called, it returns the
    mean squared error of each image, ``(batch, 1)``; see :meth:`reconstruct`.

    Parameters
    ----------
    features
        Convolutions (3D), batch norms, ReLUs and max poolings in a row.
    mean
        The mean image.
    """

    mean: Tensor

    def __init__(self, features: nn.Sequential, mean: Float[Tensor, "channel x y z"]) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("mean", mean.clone())
        convolutions = [layer for layer in features if isinstance(layer, nn.Conv3d)]
        blocks: list[nn.Module] = []
        for layer in reversed(convolutions):
            last = nn.Conv3d(layer.out_channels, layer.in_channels, kernel_size=3, padding=1)
            decoded: list[nn.Module] = [last]
            if layer is not convolutions[0]:
                decoded += [nn.BatchNorm3d(layer.in_channels), nn.ReLU()]
            else:
                for parameter in last.parameters():
                    nn.init.zeros_(parameter)
            blocks.append(nn.Sequential(*decoded))
        self.decoder = nn.ModuleList(blocks)

    def reconstruct(
        self, images: Float[Tensor, "batch channel x y z"]
    ) -> Float[Tensor, "batch channel x y z"]:
        """The images as they come back from the code."""
        sizes, values = [], images
        for layer in self.features:
            if isinstance(layer, nn.Conv3d):
                sizes.append(values.shape[2:])
            values = layer(values)
        values = functional.max_pool3d(values, POOL)
        for size, block in zip(reversed(sizes), self.decoder, strict=True):
            values = block(
                functional.interpolate(values, size=list(size), mode="trilinear", align_corners=False)
            )
        return self.mean + values

    def forward(self, images: Float[Tensor, "batch channel x y z"]) -> Float[Tensor, "batch 1"]:
        return (self.reconstruct(images) - images).square().flatten(1).mean(dim=1, keepdim=True)


def pretrain_autoencoder(
    network: str,
    images: ImageStack,
    validation: ImageStack,
    *,
    device: str | torch.device = "auto",
    progress: bool = True,
    **settings: Any,
) -> Pretrained:
    """Train a network's features to reconstruct images, or take them from the cache if they were trained so before.

    Labels are not asked for, so none can be learnt. To keep that true of a comparison, give the training images of the
    same fold. The code are the features after a further max pooling; the decoder, which is thrown away, mirrors them.
    A training that was stopped goes on from its last finished epoch.

    Parameters
    ----------
    network
        Key of :data:`~xaitools.models.networks.NETWORKS` of a network with ``features``, as ``"head_cnn"``.
    images, validation
        Volumes, (n, channel, x, y, z); the latter decide when to stop, and the error is that on them.
    device, progress
        As for :func:`~xaitools.models.training.train`.
    **settings
        Options of :class:`~xaitools.models.settings.TrainingSettings`, plain values: ``max_epochs``, ``patience``,
        ``batch_size``, ``learning_rate``, ``seed``, ...; by default without augmentation.

    Returns
    -------
    Pretrained
        Compare its ``error`` with its ``mean_image_error``.

    Raises
    ------
    UnsupportedModelError
        If the network has no ``features`` of convolutions in 3D.
    DataError
        If there is no image, or they are all the same.
    XaitoolsError
        As :func:`~xaitools.models.fitting.fit` raises.

    References
    ----------
    Masci et al., Stacked convolutional auto-encoders for hierarchical feature extraction, ICANN 2011. The slides on
    brain MRI name it for the classifier without its layers.
    """
    if "loss" in settings:
        raise ParameterError(
            f"loss={settings['loss']!r}; an autoencoder has the mean squared error: leave it out."
        )
    for name, stack in {"training": images, "validation": validation}.items():
        if not len(stack):
            raise DataError(f"the {name} set is empty; expected at least one image.")
    settings = {"augment": "", **settings}
    options = TrainingSettings(**settings)
    channels, size = images.shape[1], tuple(images.shape[2:])
    mean = mean_image(images)
    mean_error = mean_image_error(mean, validation)
    model = _autoencoder(network, mean, options.seed)
    path = cached_weights(
        f"{network}_autoencoder",
        {"seed": options.seed, "shape": [channels, *size], **settings},
        digest(images, validation),
    )
    place, known = resolve_device(device), kept_history(path)
    kept = kept_model(path, lambda: model) if known else None
    history = known or History()
    if kept is not None:
        model.to(place).eval()
    else:
        checkpoint = Checkpoint(path.with_suffix(".checkpoint.pt"), {"key": path.stem}, cached=True)
        none, unknown = torch.zeros(len(images)), torch.zeros(len(validation))
        loop = Loop(
            model,
            Reconstruction("mean_squared_error"),
            (images, none),
            (validation, unknown),
            options,
            place,
        )
        history = loop.run(checkpoint, progress)
        info = WeightsInfo(f"{network}_autoencoder", channels, input_size=size)
        keep_training(path, model, info, history)
        checkpoint.remove()
    error = float(outputs_of(model, validation, batch_size=options.batch_size).double().mean())
    encoder = {
        name: value.detach().cpu()
        for name, value in model.state_dict().items()
        if name.startswith("features.")
    }
    return Pretrained(encoder, history, error, mean_error, kept is not None)


def mean_image(images: ImageStack) -> Float[Tensor, "channel x y z"]:
    """The mean of the images, float32, one image in memory after the other."""
    total = torch.zeros(tuple(images.shape[1:]), dtype=torch.float64)
    for i in range(len(images)):
        total += images[i : i + 1][0]
    return (total / len(images)).float()


def mean_image_error(mean: Float[Tensor, "channel x y z"], images: ImageStack) -> float:
    """Mean squared error of one image for all.

    Raises
    ------
    DataError
        If it is 0: all images are the same.
    """
    errors = [float((images[i : i + 1][0] - mean).double().square().mean()) for i in range(len(images))]
    if max(errors) < 1e-12:
        raise DataError("all images are the same; expected images that differ: check what was loaded.")
    return sum(errors) / len(errors)


class Reconstruction(Task):
    """The task of an :class:`Autoencoder`, which returns its own error."""

    @property
    def is_regression(self) -> bool:
        return False

    def mean_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean of the images' errors."""
        return outputs.float().mean()

    def score(self, outputs: Tensor, targets: Tensor) -> float:
        """As the loss."""
        return outputs.double().mean().item()


def _autoencoder(network: str, mean: Tensor, seed: int) -> Autoencoder:
    """The network's features, drawn as the network draws them, and a decoder."""
    size = tuple(mean.shape[1:])
    classifier = build_network(network, in_channels=len(mean), input_size=size, seed=seed)
    features = getattr(classifier, "features", None)
    kinds = (nn.Conv3d, nn.BatchNorm3d, nn.ReLU, nn.MaxPool3d)
    if not isinstance(features, nn.Sequential) or not all(isinstance(layer, kinds) for layer in features):
        raise UnsupportedModelError(
            f"{network} has no 'features' made of 3D convolutions, batch norms, ReLUs and max poolings in a row, which "
            "an autoencoder could mirror; use head_cnn or head_cnn_small."
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return Autoencoder(features, mean)
