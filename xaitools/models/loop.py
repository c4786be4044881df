"""The loop that trains a network.

A loop of our own and not Lightning's, which answers Ctrl-C by leaving the process and ignoring every later one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from tqdm.std import tqdm as Bar

from xaitools.errors import DivergedError
from xaitools.models.checkpoint import Checkpoint, TrainingState
from xaitools.models.epochs import clear_epochs, save_epoch
from xaitools.models.history import History
from xaitools.models.images import ImageStack, batches, to_device
from xaitools.models.layout import quickest_forward
from xaitools.models.narrow_norm import NarrowNorm
from xaitools.models.prediction import evaluating
from xaitools.models.settings import TrainingSettings
from xaitools.models.tasks import Task, rescale_output


@dataclass
class Loop:
    """A training that has passed its checks; sets are images and what the network shall return for them.

    The weights after each epoch are kept in the folder `keep_epochs`, as they are in training: with the key `key`.
    """

    model: nn.Module
    task: Task
    training: tuple[ImageStack, Tensor]
    validation: tuple[ImageStack, Tensor]
    settings: TrainingSettings
    device: torch.device
    keep_epochs: Path | None = None
    key: str = ""
    forward: Callable[[Tensor], Tensor] = field(init=False)

    def run(self, checkpoint: Checkpoint | None, progress: bool) -> History:
        """Train from the checkpoint on, or from the start; the model ends with its best weights, evaluating."""
        model, settings = self.model, self.settings
        self.training, self.validation = self._placed(self.training), self._placed(self.validation)
        model.to(self.device)
        state = TrainingState(model, settings.new_optimizer(model), History(), {})
        if checkpoint is not None:
            checkpoint.restore(state)
        if self.keep_epochs is not None:
            clear_epochs(self.keep_epochs, after=len(state.history))
        n_batches = settings.n_batches(len(self.training[0]))
        total, done = settings.max_epochs * n_batches, len(state.history) * n_batches
        with _private_randomness(self.device), _progress_bar(total, done, progress) as bar:
            first_batch = self.training[0][: settings.batch_size].to(self.device)
            self.forward = quickest_forward(model, first_batch)
            while not state.history.is_over(settings):
                train_loss = self._train_epoch(state, bar)
                state.history = state.history.extended(train_loss, *self._validate())
                if state.history.is_best_now:
                    state.remember_best()
                if self.keep_epochs is not None:
                    save_epoch(model, self.keep_epochs, len(state.history), self.key)
                if checkpoint is not None and state.best:
                    checkpoint.save(state)
                _tell(bar, state.history)
            if not state.best:
                raise DivergedError(
                    f"the validation loss was never finite with learning_rate {settings.learning_rate}; "
                    "choose a smaller one"
                )
        model.load_state_dict(state.best)
        model.eval()
        if self.task.is_regression:
            rescale_output(model, self.training[0][:1].to(self.device), self.task.scale, self.task.shift)
        return state.history

    def _placed(self, labelled: tuple[ImageStack, Tensor]) -> tuple[ImageStack, Tensor]:
        """Images in a tensor go to the device once, those of another stack batch by batch."""
        images, targets = labelled
        if isinstance(images, Tensor):
            images = to_device(images, self.device)
        return images, targets.to(self.device)

    def _train_epoch(self, state: TrainingState, bar: Bar) -> float:
        """One step a batch; the mean loss over the images."""
        order, changes, dropout = (self._generator(len(state.history), stream) for stream in range(3))
        torch.manual_seed(dropout.initial_seed())
        self.model.train()
        images, targets = self.training
        losses = []
        for index in self.settings.batches(len(images), order):
            batch = to_device(self.settings.augmented(images[index], changes), self.device)
            with self._autocast(), NarrowNorm():
                loss = self.task.mean_loss(self.forward(batch), targets[index])
            state.optimizer.zero_grad()
            loss.backward()
            state.optimizer.step()
            losses.append(loss.detach() * len(index))
            bar.update()
        return torch.stack(losses).sum().item() / (self.settings.copies * len(images))

    def _validate(self) -> tuple[float, float]:
        """Loss and score on the validation set."""
        images, targets = self.validation
        with evaluating(self.model), self._autocast():
            stack = batches(images, self.settings.batch_size, self.device)
            outputs = torch.cat([self.forward(batch) for batch in stack])
            return self.task.mean_loss(outputs, targets).item(), self.task.score(outputs.float(), targets)

    def _autocast(self) -> torch.autocast:
        is_mixed = self.settings.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=is_mixed, cache_enabled=False)

    def _generator(self, epoch: int, stream: int) -> torch.Generator:
        """Randomness of an epoch follows from its number: a resumed training is the uninterrupted one."""
        sequence = np.random.SeedSequence([self.settings.seed, epoch, stream])
        return torch.Generator().manual_seed(int(sequence.generate_state(1, np.uint64)[0] >> 1))


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
def _progress_bar(total: int, done: int, shown: bool) -> Iterator[Bar]:
    """A bar over batches, which ends full where the training stopped early, and red only where it failed."""
    with tqdm(total=total, initial=done, desc="training", unit="batch", disable=not shown) as bar:
        yield bar
        if shown and bar.n < bar.total:
            done, start = bar.n, bar.start_t
            bar.reset(total=done)  # tells the notebook's bar its new length too, but also starts it anew
            bar.start_t = start
            bar.update(done)


def _tell(bar: Bar, history: History) -> None:
    last = {name: f"{values[-1]:.3f}" for name, values in asdict(history).items()}
    bar.set_postfix(epoch=len(history), **last)
