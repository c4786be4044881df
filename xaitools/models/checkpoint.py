"""The state of a training on disk, for going on after it was killed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xaitools.errors import WeightsError
from xaitools.files import replacing
from xaitools.models.history import History


@dataclass
class TrainingState:
    """All that a training carries from one epoch to the next; what is random follows from the epoch's number."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    history: History
    best: Mapping[str, Tensor]

    def remember_best(self) -> None:
        """Keep a copy of the weights as they are now, in the computer's memory."""
        self.best = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}


@dataclass(frozen=True)
class Checkpoint:
    """One file with the state after the last finished epoch; readers see a whole one or none.

    Parameters
    ----------
    path
        The file.
    identity
        Names and plain values that tell this training from others.
    """

    path: Path
    identity: Mapping[str, Any]

    def save(self, state: TrainingState) -> None:
        """Replace the file by this state."""
        content = {
            "identity": dict(self.identity),
            "model": state.model.state_dict(),
            "optimizer": state.optimizer.state_dict(),
            "history": asdict(state.history),
            "best": state.best,
        }
        with replacing(self.path) as temporary:
            torch.save(content, temporary)

    def restore(self, state: TrainingState) -> None:
        """Bring the state to that of the file, if there is one.

        Raises
        ------
        WeightsError
            If the file is damaged, or of another training.
        """
        if not self.path.exists():
            return
        remedy = "delete it to start the training anew, or choose another file"
        try:
            if not self.path.is_file():  # a FIFO never ends
                raise OSError("no file")
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            theirs, history = dict(saved["identity"]), History(**saved["history"])
            model, optimizer, best = (saved[part] for part in ("model", "optimizer", "best"))
        except Exception as error:  # torch's reader raises whatever a damaged file leads it to
            raise WeightsError(
                f"{self.path} is damaged or no checkpoint ({type(error).__name__}): {remedy}."
            ) from error
        differences = [
            f"{name} {theirs.get(name)} instead of {own}"
            for name, own in self.identity.items()
            if theirs.get(name) != own
        ]
        if differences:
            raise WeightsError(
                f"{self.path} is of another training, with {', '.join(differences)}: {remedy}."
            )
        try:
            state.model.load_state_dict(model)
            state.optimizer.load_state_dict(optimizer)
        except Exception as error:
            raise WeightsError(
                f"{self.path} does not fit its own training ({type(error).__name__}): {remedy}."
            ) from error
        state.history, state.best = history, best

    def remove(self) -> None:
        """Delete the file: its training is done."""
        self.path.unlink(missing_ok=True)
