"""What a report of a fault should tell of an installation, as text to paste, with nothing personal in it."""

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from xaitools.cache import cache_dir
from xaitools.kept import in_words as in_bytes
from xaitools.reports.kernel import environment
from xaitools.reports.places import can_write, existing
from xaitools.study.manifest import versions, without_paths
from xaitools.study.notebooks import notebooks_dir, studies

_BESIDE = (
    "ipython",
    "jupyter_client",
    "nbclient",
    "traitlets",
    "pyzmq",
    "dask",
    "distributed",
    "monai",
    "timm",
)
"""Packages that we do not require by name, and that explain faults."""
_THREADS = (
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "OMP_PROC_BIND",
    "THP_MEM_ALLOC_ENABLE",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
    "SLURM_CPUS_PER_TASK",
)
_FOLDERS = ("XAITOOLS_CACHE", "XAITOOLS_DATA", "TMPDIR", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "BROWSER_PATH")
_PLAIN = re.compile(r"[\w.,:-]{1,24}")  # a number or a word of a setting; what is anything else is not shown
_MOST_FILES = 200_000  # of a cache that are counted

_ASK_TORCH = """
import torch
from xaitools.models.devices import available_devices, knows_bfloat16
for name in available_devices():
    halves = "bfloat16" if knows_bfloat16(torch.device(name)) else "no bfloat16"
    told = torch.cuda.get_device_properties(name) if name.startswith("cuda") else None
    told = f"{told.name}, {told.total_memory / 1e9:.0f} GB, {halves}" if told else halves
    print(f"{name} ({told})", end="; ")
print("threads of torch:", torch.get_num_threads())
"""
_PATIENCE = 120  # seconds for torch to be imported, from a slow disk


def doctor() -> Iterator[str]:
    """The lines of a description of this installation, the quick ones first.

    Packages, processors, devices, cache, disks, the browser for still pictures and the folder of real data. Nothing in
    it tells of a person: a folder that a variable names is shown as that variable, and of the data only the kinds.
    """
    checks: dict[str, Callable[[], str]] = {
        "xaitools": _itself,
        "Python": _python,
        "Packages": _packages,
        "Processors": _processors,
        "Threads": _threads,
        "Memory": _memory,
        "Studies": lambda: ", ".join(studies()) or "none found",
        "Folders set": lambda: ", ".join(name for name in _FOLDERS if os.environ.get(name)) or "none",
        "Cache": _cache,
        "Output": lambda: _disk(Path.cwd(), "this folder"),
        "Temporary files": lambda: _disk(
            _temporary(), "the system's" if not os.environ.get("TMPDIR") else "{TMPDIR}"
        ),
        "Still pictures": _browser,
        "Real data": _real_data,
        "Devices": _devices,
    }
    for name, check in checks.items():
        try:
            found = check()
        except Exception as error:  # what is broken is what is asked for: the other lines count all the more
            found = f"could not be found out: {type(error).__name__}: {without_paths(str(error))}"
        yield textwrap.fill(
            f"{name + ':':<17}{found}", 110, subsequent_indent=" " * 17, break_on_hyphens=False
        )


def _itself() -> str:
    version = importlib.metadata.version("xaitools")
    if not (notebooks_dir().parent / "pyproject.toml").is_file():
        return f"{version}, installed"
    git = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        found = subprocess.run(
            git, cwd=notebooks_dir(), capture_output=True, text=True, check=False, timeout=10
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        found = ""
    return f"{version}, a checkout{f' at {found}' if re.fullmatch(r'[0-9a-f]+(-dirty)?', found) else ''}"


def _python() -> str:
    release = re.match(r"\d+(\.\d+)*", platform.release())  # what follows may be a name
    system = f"{platform.system()} {release.group() if release else ''}".strip()
    libc = " ".join(platform.libc_ver()).strip()
    place = (
        "conda"
        if (Path(sys.prefix) / "conda-meta").is_dir()
        else "venv"
        if sys.prefix != sys.base_prefix
        else "system"
    )
    return ", ".join(filter(None, (platform.python_version(), place, system, platform.machine(), libc)))


def _packages() -> str:
    found = versions()
    for name in _BESIDE:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    required = importlib.metadata.requires("xaitools") or []
    names = {re.split(r"[^\w.-]", line)[0] for line in required if "extra ==" not in line}
    missing = sorted(names - set(found))
    listed = ", ".join(f"{name} {version}" for name, version in found.items() if name != "xaitools")
    return f"{listed}; missing: {', '.join(missing) or 'none'}"


def _processors() -> str:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{os.cpu_count()}, of which {usable} may be used; {_quota()}"


def _quota() -> str:
    """What a container grants of the processors."""
    try:
        granted, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return f"the container grants {float(granted) / float(period):g}"
    except (OSError, ValueError):  # no such file, or "max"
        return "no limit of a container seen"


def _threads() -> str:
    own = environment()
    shown = [
        f"{name}={value if _PLAIN.fullmatch(value) else '(set)'}"
        for name in _THREADS
        if (value := os.environ.get(name))
    ]
    shown += [f"{name}={value} (ours, in reports)" for name, value in own.items()]
    return ", ".join(shown)


def _memory() -> str:
    memory = psutil.virtual_memory()
    return f"{in_bytes(memory.total)}, {in_bytes(memory.available)} available"


def _cache() -> str:
    place = cache_dir()
    name = "{XAITOOLS_CACHE}" if os.environ.get("XAITOOLS_CACHE") else "~/.cache/xaitools"
    n_files, n_bytes = 0, 0
    for folder, _, files in os.walk(place):
        for file in files[: _MOST_FILES - n_files]:
            n_files += 1
            n_bytes += (Path(folder) / file).lstat().st_size
        if n_files >= _MOST_FILES:
            break
    more = "at least " if n_files >= _MOST_FILES else ""
    return f"{_disk(place, name)}; {more}{in_bytes(n_bytes)} in {n_files} files"


def _disk(place: Path, name: str) -> str:
    there = existing(place)
    if place.exists() and not place.is_dir():
        return f"{name}, which is no folder"
    made = "" if place.is_dir() else ", not made yet"
    may = "can be written to" if can_write(place) else "CANNOT BE WRITTEN TO"
    return f"{name}{made}, {may}, {in_bytes(shutil.disk_usage(there).free)} free"


def _temporary() -> Path:
    return Path(tempfile.gettempdir())


def _browser() -> str:
    from choreographer.browsers.chromium import Chromium

    found = Chromium.find_browser(skip_local=False)
    if not found:
        return "no browser found; Chrome or Chromium draws them, the interactive figures need none"
    known = next(
        (name for name in ("chromium", "chrome", "edge", "brave") if name in Path(found).name.lower()),
        "a browser",
    )
    if os.environ.get("BROWSER_PATH"):
        is_there = shutil.which(found) is not None
        return f"{{BROWSER_PATH}}, which is {known if is_there else 'no program'}"
    return f"drawn by {known}"


def _real_data() -> str:
    named = os.environ.get("XAITOOLS_DATA")
    if not named:
        return "XAITOOLS_DATA is not set (only tests need it)"
    root = Path(named).expanduser()
    if not root.is_dir():
        return "XAITOOLS_DATA names no folder"
    kinds = [kind_of(folder) for folder in (root, *sorted(path for path in root.iterdir() if path.is_dir()))]
    known = list(dict.fromkeys(filter(None, kinds)))
    others = len(kinds) - 1 - len([kind for kind in kinds[1:] if kind])
    return f"XAITOOLS_DATA holds {', '.join(known) or 'nothing recognised'}; folders of other kinds: {others}"


def kind_of(folder: Path) -> str:
    """What a folder of data looks like, and what loads it; empty if it looks like nothing that we know."""

    def has(*patterns: str) -> bool:
        return all(next(folder.glob(pattern), None) is not None for pattern in patterns)

    if has("training_set_pixel_size_and_HC.csv"):
        return "HC18 (load_fetal)"
    if has("overview.csv", "dicom_dir"):
        return "SIIM CT (load_ct)"
    if has("participants.tsv", "sub-*"):
        return "BIDS (load_brains)"
    if has("subjects/sub-*"):
        return "CAPS (load_brains)"
    if has("*.csv") and (has("*.nii*") or has("*/*.nii*")):
        return "NIfTI with a table (load_brains)"
    if has("*.csv") and (has("*.mhd") or has("*/*.mhd")):
        return "CT in .mhd with a table (load_ct)"
    if has("*.pt") or has("*.safetensors"):
        return "weights (load_model)"
    if has("*/*.nii*") or has("*.nii*"):
        return "NIfTI (load_volumes, load_atlas)"
    return ""


def _devices() -> str:
    """Asked of another process: a torch that does not load, or a driver that hangs, must not end this one."""
    package = Path(__file__).parents[2]
    path = os.pathsep.join(filter(None, (str(package), os.environ.get("PYTHONPATH"))))
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _ASK_TORCH],
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return f"torch does not answer within {_PATIENCE} s"
    if asked.returncode == 0:
        return asked.stdout.strip()
    said = (asked.stderr.strip().splitlines() or [f"exit code {asked.returncode}"])[-1]
    return f"torch does not work here: {without_paths(said)}"
