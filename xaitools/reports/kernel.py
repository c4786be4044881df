"""The kernel that runs a study: always this very Python."""

import os
import uuid
from pathlib import Path

from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.paths import jupyter_runtime_dir
from traitlets import default

_WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}

_LONGEST_SOCKET_PATH = 103  # in bytes, on macOS; 107 on Linux


def patience() -> dict[str, str]:
    """What a process of ours finds in its environment beside the user's, which goes before it.

    Threads of OpenMP sleep while they wait. By default they spin, so that two notebooks that share the processor slow
    each other down: two reports at once took 60.9 s on two cores, and 24.5 s with this, as long as one alone.
    """
    return {name: value for name, value in _WAITING.items() if name not in os.environ}


class ThisPython(AsyncKernelManager):
    """Start kernels with the running interpreter, whatever kernels are registered or shadow it.

    They talk over sockets in the file system where it has them and the path fits: over TCP, every run
    warns about encryption.
    """

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(**get_kernel_dict(), env=patience())

    @default("connection_file")
    def _default_connection_file(self) -> str:
        folder = Path(jupyter_runtime_dir())
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return str(folder / f"kernel-{uuid.uuid4()}.json")

    @default("transport")
    def _default_transport(self) -> str:
        longest = os.fsencode(Path(self.connection_file).with_suffix("")) + b"-ipc-5"
        return "ipc" if os.name == "posix" and len(longest) <= _LONGEST_SOCKET_PATH else "tcp"
