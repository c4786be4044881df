"""The part of training that needs Lightning, apart because importing that takes seconds."""

import hashlib
import logging
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from torch import Tensor, nn
from tqdm.auto import tqdm

from xaitools.errors import DivergedError, WeightsError
from xaitools.models.images import ImageStack, batches, digest, to_device
from xaitools.models.tasks import Task
from xaitools.models.training import OPTIMIZERS, Augmentation

LabelledImages = tuple[ImageStack, Tensor]


def fit(
    model: nn.Module,
    task: Task,
    train_set: LabelledImages,
    val_set: LabelledImages,
    *,
    max_epochs: int,
    patience: int,
    stop_at: float,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    optimizer: str,
    augment: Augmentation | None,
    copies: int,
    precision: str,
    seed: int,
    device: torch.device,
    progress: bool,
    checkpoint: Path | None,
) -> dict[str, list[float]]:
    """Train the model in place, as :func:`xaitools.models.training.train` says; the record of its epochs."""
    learner = _Learner(
        model,
        task,
        train_set,
        val_set,
        batch_size=batch_size,
        copies=copies,
        optimizer=partial(OPTIMIZERS[optimizer], lr=learning_rate, weight_decay=weight_decay),
        augment=augment,
        seed=seed,
    )
    callbacks: list[Callback] = [
        _ProgressBar(progress, max_epochs),
        EarlyStopping(
            "val_loss", patience=patience, stopping_threshold=stop_at, check_on_train_epoch_end=False
        ),
    ]
    if checkpoint is not None:
        shapes = str({name: tuple(value.shape) for name, value in model.state_dict().items()})
        settings = {
            "patience": patience,
            "stop_at": stop_at,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "optimizer": optimizer,
            "copies": copies,
            "precision": precision,
            "loss": task.loss,
            "seed": seed,
            "data": digest(*train_set, *val_set),
            "model": hashlib.sha256(shapes.encode()).hexdigest(),
        }
        callbacks.append(_Checkpoint(checkpoint, settings))
    resumed = checkpoint is not None and checkpoint.exists()
    with _quiet_lightning(), _private_randomness(device), _interruptible():
        trainer = lightning.Trainer(
            accelerator="gpu" if device.type == "cuda" else device.type,
            devices=[device.index] if device.type == "cuda" else 1,
            precision="bf16-mixed" if precision == "bf16" else "32-true",
            max_epochs=max_epochs,
            callbacks=callbacks,
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        steps, validations = range(len(learner.train_batches(0))), range(1)
        trainer.fit(
            learner,
            steps,
            validations,
            ckpt_path=checkpoint if resumed else None,
            weights_only=resumed or None,
        )
    if not learner.best_state:
        raise DivergedError(
            f"the validation loss was never finite with learning_rate {learning_rate}; choose a smaller one"
        )
    model.load_state_dict(learner.best_state)
    model.to(device).eval()
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    return learner.record


class _Learner(lightning.LightningModule):
    """Both sets as tensors on the device; Lightning's loops hand over no more than a step's number.

    Everything random in an epoch follows from the seed and the epoch's number, so that a resumed training is
    the uninterrupted one.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        train_set: LabelledImages,
        val_set: LabelledImages,
        *,
        batch_size: int,
        copies: int,
        optimizer: Callable[..., torch.optim.Optimizer],
        augment: Augmentation | None,
        seed: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.train_set = train_set
        self.val_set = val_set
        self.batch_size = batch_size
        self.copies = copies
        self.optimizer = optimizer
        self.augment = augment
        self.seed = seed
        self.record: dict[str, list[float]] = {"train_loss": [], "val_loss": [], "val_score": []}
        self.best_state: dict[str, Tensor] = {}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer(self.model.parameters())

    def train_batches(self, epoch: int) -> tuple[Tensor, ...]:
        """Indices of each batch, all about as long: batch norm never meets a tiny last one."""
        n_images = len(self.train_set[0])
        order = torch.randperm(n_images * self.copies, generator=self._generator(epoch, stream=0)) % n_images
        return order.tensor_split(-(-len(order) // self.batch_size))

    def on_fit_start(self) -> None:
        self.train_set, self.val_set = (
            (
                to_device(images, self.device) if isinstance(images, Tensor) else images,
                targets.to(self.device),
            )
            for images, targets in (self.train_set, self.val_set)
        )
        is_slices = len(self.train_set[0].shape) == 4
        self.model.to(memory_format=torch.channels_last if is_slices else torch.preserve_format)

    def on_train_epoch_start(self) -> None:
        self.batches = self.train_batches(self.current_epoch)
        self.generator = self._generator(self.current_epoch, stream=1)
        torch.manual_seed(self._generator(self.current_epoch, stream=2).initial_seed())
        self.losses: list[Tensor] = []

    def training_step(self, step: int, _: int) -> Tensor:
        images, targets = (part[self.batches[step]] for part in self.train_set)
        if self.augment is not None:
            images = self.augment(images, self.generator)
        loss = self.task.mean_loss(self.model(to_device(images, self.device)), targets)
        self.losses.append(loss.detach() * len(targets))
        return loss

    def validation_step(self, _: int) -> None:
        images, targets = self.val_set
        outputs = torch.cat([self.model(batch) for batch in batches(images, self.batch_size, self.device)])
        val_loss = self.task.mean_loss(outputs, targets).item()
        if val_loss < min(self.record["val_loss"], default=float("inf")):
            self.best_state = {
                name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()
            }
        shown = self.copies * len(self.train_set[0])
        self.record["train_loss"].append(torch.stack(self.losses).sum().item() / shown)
        self.record["val_loss"].append(val_loss)
        self.record["val_score"].append(self.task.score(outputs.float(), targets))
        self.log("val_loss", val_loss, batch_size=len(targets))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["record"], checkpoint["best_state"] = self.record, self.best_state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.record, self.best_state = checkpoint["record"], checkpoint["best_state"]

    def _generator(self, epoch: int, *, stream: int) -> torch.Generator:
        seed = np.random.SeedSequence([self.seed, epoch, stream]).generate_state(1, np.uint64)[0]
        return torch.Generator().manual_seed(int(seed >> 1))


class _ProgressBar(Callback):
    def __init__(self, shown: bool, max_epochs: int) -> None:
        self.shown = shown
        self.max_epochs = max_epochs

    def on_train_start(self, trainer: lightning.Trainer, learner: lightning.LightningModule) -> None:
        steps = int(trainer.num_training_batches)
        self.bar = tqdm(
            total=self.max_epochs * steps,
            initial=trainer.current_epoch * steps,
            desc="training",
            unit="batch",
            disable=not self.shown,
        )

    def on_train_batch_end(self, *_: Any) -> None:
        self.bar.update()

    def on_validation_end(self, trainer: lightning.Trainer, learner: Any) -> None:
        last = {name: values[-1] for name, values in learner.record.items()}
        self.bar.set_postfix(
            epoch=trainer.current_epoch + 1, **{name: f"{value:.3f}" for name, value in last.items()}
        )

    def on_train_end(self, *_: Any) -> None:
        self.bar.close()

    def on_exception(self, *_: Any) -> None:
        if hasattr(self, "bar"):
            self.bar.close()


class _Checkpoint(Callback):
    """One file, replaced after each epoch; not after the last, which a resumed training can then repeat."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.settings = settings
        if path.exists():
            self._check()

    def on_train_epoch_end(self, trainer: lightning.Trainer, _: lightning.LightningModule) -> None:
        if not trainer.should_stop:
            trainer.save_checkpoint(self.path)

    def on_save_checkpoint(
        self, _: lightning.Trainer, __: lightning.LightningModule, saved: dict[str, Any]
    ) -> None:
        saved["settings"] = self.settings

    def _check(self) -> None:
        remedy = "delete it to start the training anew, or choose another checkpoint_dir"
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)["settings"]
        except Exception as error:  # torch's reader raises whatever a damaged file leads it to
            raise WeightsError(
                f"{self.path} is damaged or no checkpoint ({type(error).__name__}); {remedy}"
            ) from error
        different = [name for name, value in self.settings.items() if saved.get(name) != value]
        if different:
            values = ", ".join(
                f"{name} {saved.get(name)} instead of {self.settings[name]}" for name in different
            )
            raise WeightsError(f"{self.path} is of another training, with {values}; {remedy}")


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """No advice about devices, data loaders or other products."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _private_randomness(device: torch.device) -> Iterator[None]:
    """Leave the global random state as it was, and have cuDNN choose repeatable algorithms."""
    gpus = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(gpus),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        yield


@contextmanager
def _interruptible() -> Iterator[None]:
    """Pass the user's interrupt on: Lightning would end the process and ignore every later one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stop:
        raise KeyboardInterrupt from stop
    finally:
        signal.signal(signal.SIGINT, handler)
