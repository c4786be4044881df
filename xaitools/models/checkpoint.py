"""The state of a training on disk, for going on after it was killed."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xaitools.errors import WeightsError
from xaitools.files import replacing
from xaitools.models.history import History
from xaitools.seals import BLANK, SEAL, check_seal, is_sealed, seal, tell_made_again

KIND = "xaitools training"
"""The first words in a checkpoint."""


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
    cached
        Whether it lies in the cache, where a file of that name can be nothing else.
    """

    path: Path
    identity: Mapping[str, Any]
    cached: bool = False

    def save(self, state: TrainingState) -> None:
        """Replace the file by this state."""
        content = {
            "kind": KIND,
            "identity": dict(self.identity),
            "model": state.model.state_dict(),
            "optimizer": state.optimizer.state_dict(),
            "history": asdict(state.history),
            "best": state.best,
        }
        with replacing(self.path) as temporary:
            torch.save(content, temporary)
            with zipfile.ZipFile(temporary, "a") as archive:
                archive.comment = json.dumps({SEAL: BLANK}).encode()
            seal(temporary)

    def restore(self, state: TrainingState) -> None:
        """Bring the state to that of the file, if there is one; a damaged one is as good as none, and the log says so.

        Raises
        ------
        WeightsError
            If the file is of another training, or something else than a checkpoint, which is not to be overwritten.
        """
        if not self.path.exists():
            return
        try:
            saved = self._read()
            theirs, history = dict(saved["identity"]), History(**saved["history"])
            model, optimizer, best = (saved[part] for part in ("model", "optimizer", "best"))
        except Exception as error:  # torch's reader raises whatever a damaged file leads it to
            if not (self.cached or self._is_ours()):
                raise WeightsError(
                    f"{self.path} is damaged or no checkpoint ({type(error).__name__}), and is not overwritten: "
                    "delete it to start the training anew, or choose another file."
                ) from error
            tell_made_again(self.path, error)
            return
        differences = [
            f"{name} {theirs.get(name)} instead of {own}"
            for name, own in self.identity.items()
            if theirs.get(name) != own
        ]
        if differences:
            raise WeightsError(
                f"{self.path} is of another training, with {', '.join(differences)}: delete it to start the training "
                "anew, or choose another file."
            )
        try:
            state.model.load_state_dict(model)
            state.optimizer.load_state_dict(optimizer)
        except Exception as error:
            raise WeightsError(
                f"{self.path} does not fit its own training ({type(error).__name__}): delete it to start the training "
                "anew, or choose another file."
            ) from error
        state.history, state.best = history, best

    def remove(self) -> None:
        """Delete the file: its training is done."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any]:
        check_seal(self.path)
        return dict(torch.load(self.path, map_location="cpu", weights_only=True))

    def _is_ours(self) -> bool:
        """Whether nothing but a checkpoint is lost where the file is overwritten: it has its marks, or is empty."""
        try:
            if not self.path.is_file():
                return False
            with self.path.open("rb") as file:
                head = file.read(2**12)
        except OSError:
            return False
        return not head or KIND.encode() in head or is_sealed(self.path)
