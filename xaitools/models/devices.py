"""Which device to compute on, and what it knows."""

import logging

import torch

from xaitools.errors import DeviceError

logger = logging.getLogger(__name__)


def available_devices() -> tuple[str, ...]:
    """Names of the devices of this machine, the fastest kind first.

    Returns
    -------
    tuple of str
        For example ``("cuda:0", "cuda:1", "cpu")``; ``"cpu"`` is always there.
    """
    gpus = (
        tuple(f"cuda:{index}" for index in range(torch.cuda.device_count()))
        if torch.cuda.is_available()
        else ()
    )
    mps = ("mps",) if torch.backends.mps.is_available() else ()
    return (*gpus, *mps, "cpu")


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """The device of that name, checked to be there.

    Parameters
    ----------
    name
        ``"auto"`` (the first of :func:`available_devices`), ``"cpu"``, ``"cuda"`` (its first GPU),
        ``"cuda:1"`` or ``"mps"``.

    Raises
    ------
    DeviceError
        If the machine has no such device, or no device can have that name.
    """
    available = available_devices()
    if str(name) == "auto":
        return torch.device(available[0])
    full_name = "cuda:0" if str(name) == "cuda" else str(name)
    if full_name not in available:
        raise DeviceError(
            f"device {str(name)!r} is not on this machine, which has {', '.join(available)}; "
            'choose one of these, or "auto"'
        )
    return torch.device(full_name)


def knows_bfloat16(device: torch.device) -> bool:
    """Whether a device multiplies in bfloat16 itself; one that does not takes several times as long as in float32.

    Parameters
    ----------
    device
        CUDA devices and processors are asked; of others it is taken for granted.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return torch.backends.mkldnn.is_available() and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return True


def warn_of_bfloat16(precision: str, device: torch.device) -> None:
    """Say that `precision` "bf16" makes this device slower, if it does."""
    if precision == "bf16" and not knows_bfloat16(device):
        logger.warning(
            "precision='bf16' on %s, which does not know bfloat16: float32 is several times faster here.",
            torch.cuda.get_device_name(device) if device.type == "cuda" else "this processor",
        )
