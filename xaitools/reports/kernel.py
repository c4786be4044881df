"""The kernel that runs a study: always this very Python, with its files in a folder of its own."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from traitlets import default

from xaitools.errors import StorageError
from xaitools.processes import is_gone, token
from xaitools.reports.places import can_write

_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "2000"}
_PAGES = {"THP_MEM_ALLOC_ENABLE": "1"}

_LONGEST_SOCKET_PATH = 103  # in bytes, on macOS; 107 on Linux

_PREFIX = "xaitools-"
"""Of the folders of kernels among the temporary files."""

_DEAF_AT_FIRST = ["/bin/sh", "-c", "trap '' INT; exec \"$@\"", "sh"]
"""A Ctrl-C that reaches Python while it starts shows a traceback; ipykernel, once it runs, hears it in cells only."""


def environment() -> dict[str, str]:
    """What a process of ours finds in its environment beside the user's, which goes before it.

    Threads of OpenMP that wait spin for a tenth of a millisecond and then sleep. By default they spin so long that two
    notebooks which share the processor slow each other down: a training step of a small network took 560 ms beside
    another on two cores, 64 ms so, and 50 ms where they sleep at once; alone 17, 21 and 36 ms. GNU's OpenMP knows the
    tenth, others the sleep, and who has said either is left alone. And PyTorch asks Linux for large pages for its
    large tensors: to fill a new tensor page by page is much of what a convolution of volumes costs, 1.5 s and 1.0 s a
    training step of four brains of 2 mm.
    """
    waiting = {} if _WAITING.keys() & os.environ.keys() else _WAITING
    return waiting | {name: value for name, value in _PAGES.items() if name not in os.environ}


class ThisPython(AsyncKernelManager):
    """Start kernels with the running interpreter, whatever kernels are registered or shadow it.

    They talk over sockets in the file system where it has them and the path fits: over TCP, every run
    warns about encryption.
    """

    folder: Path | None = None  # one of its own, if nobody sets it
    process: subprocess.Popen[bytes] | None = None

    @property
    def kernel_spec(self) -> KernelSpec:
        found = get_kernel_dict()
        if os.name == "posix":
            found["argv"] = [*_DEAF_AT_FIRST, *found["argv"]]
        return KernelSpec(**found, env=environment() | self._settings())

    def _settings(self) -> dict[str, str]:
        """Where IPython keeps its own: it does not start where that is on a full disk, or warns in every report."""
        usual, own = (
            os.environ.get("IPYTHONDIR") or "~/.ipython",
            Path(self.connection_file).with_name("ipython"),
        )
        return {} if can_write(Path(usual).expanduser()) else {"IPYTHONDIR": str(own)}

    @default("connection_file")
    def _default_connection_file(self) -> str:
        return str((self.folder or _new_folder()) / "k.json")

    @default("transport")
    def _default_transport(self) -> str:
        longest = os.fsencode(Path(self.connection_file).with_suffix("")) + b"-ipc-5"
        return "ipc" if os.name == "posix" and len(longest) <= _LONGEST_SOCKET_PATH else "tcp"

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
        await super()._async_launch_kernel(kernel_cmd, **kw)
        self.process = getattr(self.provisioner, "process", None)


class Kernels:
    """The kernels of one run, which anybody may end, from any thread.

    Attributes
    ----------
    manager
        The class that starts them; it is what Papermill asks for.
    """

    def __init__(self, folder: Path) -> None:
        self._made: list[ThisPython] = []
        made = self._made

        class OfOneRun(ThisPython):
            def __init__(self, **options: Any) -> None:
                super().__init__(**options)
                self.folder = folder
                made.append(self)

        self.manager = OfOneRun

    def interrupt(self) -> None:
        """Ctrl-C for what they compute. Their workers are not struck: they would tell of it, and end anyway."""
        for process in self._living():
            with suppress(OSError):
                process.send_signal(signal.SIGINT if os.name == "posix" else signal.SIGTERM)

    def kill(self) -> None:
        """The end, at once, with all their workers."""
        for process in self._living():
            with suppress(OSError):
                if os.name == "posix":
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()

    @property
    def ended_by(self) -> int:
        """The number of the signal that ended the last of them; 0 if none did."""
        code = self._made[-1].process.poll() if self._made and self._made[-1].process else None
        return -code if code is not None and code < 0 else 0

    def _living(self) -> list[subprocess.Popen[bytes]]:
        started = [kernel.process for kernel in self._made if kernel.process]
        return [process for process in started if process.poll() is None]


@contextmanager
def kernels() -> Iterator[Kernels]:
    """The kernels of one run. At the end of the block none is left, nor any file of theirs.

    Folders that killed runs have left behind are deleted first.

    Raises
    ------
    StorageError
        If no folder for temporary files can be written to.
    """
    try:
        _drop_left_behind()
        folder = _new_folder()
    except OSError as error:
        raise StorageError(
            f"temporary files: no folder for them can be written to ({error.strerror}); "
            "expected one: name it by the variable TMPDIR"
        ) from error
    own = Kernels(folder)
    try:
        yield own
    finally:
        own.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _new_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{token()}-"))


def _drop_left_behind() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*.*.*-*"):
        if is_gone(folder.name.removeprefix(_PREFIX).rsplit("-", 1)[0]):
            shutil.rmtree(folder, ignore_errors=True)
