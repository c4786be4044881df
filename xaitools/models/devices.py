"""Which device to compute on."""

import torch

from xaitools.errors import DeviceError


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
