"""What every benchmark shares: sizes as options, turns, peak memory, and the rows that become RESULTS.md.

A script names its sizes, and one function for each of its workloads; a workload hands the ways to do it to
:meth:`Bench.in_turn` and tells what it found with :meth:`Bench.ratio` or :meth:`Bench.figure`::

    def curves(bench):
        ways = {"loop": lambda: slow(bench.images), "ours": lambda: quick(bench.images)}
        turns = bench.in_turn(ways)
        bench.ratio(turns, "loop", "ours", agreement=same(turns.results), setting="ResNet-18")

    if __name__ == "__main__":
        Bench(__doc__, images=Size(8, quick=1)).run({"curves": curves})
"""

import argparse
import datetime
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from xaitools.files import write_text

os.environ.setdefault(
    "THP_MEM_ALLOC_ENABLE", "1"
)  # large pages for large tensors, as in reports, of peers and ours

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("torch", "numpy", "captum", "saliency", "zennit", "quantus", "monai", "nilearn", "scikit-learn")
CLOCKS = ("wall", "processor")
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Size:
    """How big a workload is, in full and with --quick; less than `least` makes no sense and is refused."""

    full: int
    quick: int
    least: int = 1
    help: str = ""

    def option(self, text: str) -> int:
        """Read one from the command line."""
        if (value := int(text)) < self.least:
            raise argparse.ArgumentTypeError(f"{value} is less than {self.least}, the least that makes sense")
        return value


@dataclass
class Turns:
    """Seconds of each way in each turn, its last result, and its peak memory in MiB where it was measured."""

    wall: dict[str, list[float]]
    processor: dict[str, list[float]]
    results: dict[str, Any]
    memory: dict[str, int] = field(default_factory=dict)
    load: float = 0.0

    def ratios(self, theirs: str, ours: str, clock: str = "processor") -> list[float]:
        """How many times longer `theirs` took, turn by turn."""
        seconds = getattr(self, clock)
        return [a / b for a, b in zip(seconds[theirs], seconds[ours], strict=True)]


class Bench:
    """One run of a script: its sizes as attributes, and where its rows go."""

    def __init__(self, doc: str, *, repeats: int = 3, flags: Mapping[str, dict] | None = None, **sizes: Size):
        parser = argparse.ArgumentParser(
            description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument("--quick", action="store_true", help="the smallest sizes, once, in seconds")
        parser.add_argument("--repeats", type=Size(repeats, 1).option, help=f"turns ({repeats}; quick: 1)")
        for name, size in sizes.items():
            text = f"{size.help} ({size.full}; quick: {size.quick})".lstrip()
            parser.add_argument(f"--{name.replace('_', '-')}", type=size.option, metavar="N", help=text)
        for flag, options in (flags or {}).items():
            parser.add_argument(flag, **options)
        parser.add_argument("--workloads", nargs="+", metavar="NAME", help="only these (all)")
        parser.add_argument(
            "--results", type=Path, help="folder of the rows (beside this script; quick: none)"
        )
        parser.add_argument(
            "--add",
            action="store_true",
            help="add these turns to those on record from this very setting and machine",
        )
        parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
        parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
        self.options = parser.parse_args()
        self.parser = parser
        self.quick = self.options.quick
        self.repeats = self.options.repeats or (1 if self.quick else repeats)
        self.folder = self.options.results or (None if self.quick else RESULTS)
        self.script = Path(sys.argv[0]).stem
        self.reduced = []
        self.workload = ""
        for name, size in sizes.items():
            given = getattr(self.options, name)
            value = (size.quick if self.quick else size.full) if given is None else given
            setattr(self, name, value)
            if value != size.full:
                self.reduced.append(f"{name.replace('_', ' ')} {value} instead of {size.full}")

    def run(self, workloads: Mapping[str, Callable[["Bench"], None]]) -> None:
        """Run them all, or those that were asked for."""
        asked = self.options.workloads or list(workloads)
        if unknown := set(asked) - set(workloads):
            self.parser.error(f"no workload {', '.join(sorted(unknown))}; there are {', '.join(workloads)}")
        warnings.simplefilter("ignore")
        for name in [self.options.only[0]] if self.options.only else asked:
            self.workload = name
            workloads[name](self)

    def has(self, *modules: str) -> bool:
        """Whether a peer is installed; without it ours runs alone under --quick, and else not at all."""
        missing = [name for name in modules if find_spec(name) is None]
        if missing and not self.quick:
            sys.exit(f"{', '.join(missing)} is not installed: pip install -e '.[bench]'")
        if missing:
            print(f"{', '.join(missing)} is not installed: ours runs alone")
        return not missing

    def precisions(self) -> dict[str, str]:
        """Precisions by the name of the way that has them; bf16 only on a processor that knows it (--quick: always)."""
        import torch

        from xaitools.models.devices import knows_bfloat16

        if self.quick or knows_bfloat16(torch.device("cpu")):
            return {"ours": "float32", "ours, bf16": "bf16"}
        print("bf16 is left out, which this processor does not know")
        return {"ours": "float32"}

    def in_turn(
        self,
        ways: Mapping[str, Callable[[], Any]],
        *,
        memory: Mapping[str, int] | None = None,
        repeats: int | None = None,
    ) -> Turns:
        """Run the ways one after the other, `repeats` times, in this process.

        Their peak memory is that of a process of its own each, with the sizes `memory` in place of this run's;
        None does not measure it.
        """
        if self.options.only:
            print(f"\n{added_memory(ways[self.options.only[1]])}")
            sys.exit()
        turns = Turns({name: [] for name in ways}, {name: [] for name in ways}, {}, load=os.getloadavg()[0])
        for _ in range(repeats or self.repeats):
            for name, way in ways.items():
                wall, processor = time.perf_counter(), processor_time()
                turns.results[name] = way()
                turns.processor[name].append(processor_time() - processor)
                turns.wall[name].append(time.perf_counter() - wall)
        if memory is not None and not self.quick and not self.options.no_memory:
            turns.memory = {name: self.peak_memory(name, **memory) for name in ways}
        return turns

    def peak_memory(self, way: str, **sizes: int) -> int:
        """MiB that a way adds, at its peak, to a process that has made everything else ready."""
        command = [sys.executable, sys.argv[0], "--only", self.workload, way]
        command += ["--quick"] if self.quick else []
        for name, value in (self._sizes() | sizes).items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return int(done.stdout.split()[-1])

    def _sizes(self) -> dict[str, int]:
        return {
            key: value
            for key, value in vars(self.options).items()
            if isinstance(value, int) and not isinstance(value, bool) and key != "repeats"
        }

    def ratio(self, turns: Turns, theirs: str, ours: str = "ours", *, name: str = "", **row: Any) -> None:
        """A row: how many times longer a peer takes than we do, by processor time; nothing without the peer."""
        if theirs not in turns.wall:
            print(
                f"  {ours}: {_median(turns.wall[ours])} s, {_median(turns.processor[ours])} s of processor time"
            )
            return
        name = name or theirs
        turns = self._with_earlier(turns, self._on_record(name, row.get("setting", "")), (theirs, ours))
        row |= {
            "peer": theirs,
            "wall ratio": _spread(turns.ratios(theirs, ours, "wall")),
            "seconds": {key: _median(turns.wall[key]) for key in (theirs, ours)},
            "processor seconds": {key: _median(turns.processor[key]) for key in (theirs, ours)},
            "memory": {key: turns.memory[key] for key in (theirs, ours) if key in turns.memory},
            "turns": {clock: getattr(turns, clock) for clock in CLOCKS},
        }
        self.figure(turns.ratios(theirs, ours), "x", name=name, load=turns.load, **row)

    def _on_record(self, name: str, setting: str) -> dict[str, Any]:
        """The row that --add goes on with: none if it was measured otherwise, or on another machine."""
        row = self._rows().get(self._key(name), {}) if self.options.add else {}
        same = row and row["setting"] == setting and row["reduced"] == self.reduced
        return row if same and _lasting(row["machine"]) == _lasting(machine()) else {}

    def _with_earlier(self, turns: Turns, row: Mapping[str, Any], ways: tuple[str, str]) -> Turns:
        """These turns of some ways behind those of a row."""
        earlier = row.get("turns", {})
        clocks = {
            clock: {way: [*earlier.get(clock, {}).get(way, []), *getattr(turns, clock)[way]] for way in ways}
            for clock in CLOCKS
        }
        return replace(turns, memory=turns.memory or row.get("memory", {}), **clocks)

    def figure(
        self, values: list[float], unit: str, *, name: str = "", setting: str = "", **row: Any
    ) -> None:
        """A row: the median of some values with its spread."""
        key = self._key(name)
        row = {"value": _spread(values), "unit": unit, "repeats": len(values), "setting": setting, **row}
        row |= {"reduced": self.reduced, "machine": machine()}
        low, value, high = row["value"]
        shown = " ".join(
            f"{name}: {part}" for name, part in row.items() if name in ("seconds", "agreement", "memory")
        )
        print(f"{key}: {value:.4g} {unit} ({low:.4g} to {high:.4g}) {shown}", flush=True)
        if self.folder:
            rows = dict(sorted((self._rows() | {key: row}).items()))
            write_text(self._file(), json.dumps(rows, indent=1, ensure_ascii=False) + "\n")

    def _key(self, name: str) -> str:
        return "/".join(part for part in (self.script, self.workload, name) if part)

    def _file(self) -> Path:
        return (self.folder or RESULTS) / f"{self.script}.json"

    def _rows(self) -> dict[str, Any]:
        return json.loads(self._file().read_text()) if self._file().exists() else {}


def processor_time() -> float:
    """Seconds of all processors in this process and in those that it has waited for."""
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def machine() -> dict[str, Any]:
    """Where and with what a row was measured, nothing personal in it."""
    torch = sys.modules.get("torch")
    found = re.search(r"model name\s*: (.*)", _text("/proc/cpuinfo"))
    return {
        "processor": found[1] if found else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads() if torch else None,
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "versions": dict(_versions()),
    }


def _lasting(found: Mapping[str, Any]) -> dict[str, Any]:
    """What of a machine does not change from day to day."""
    return {name: value for name, value in found.items() if name not in ("load", "date")}


def _versions() -> Iterator[tuple[str, str]]:
    for name in LIBRARIES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            continue


def added_memory(way: Callable[[], Any]) -> int:
    """MiB that a way adds to this process at its peak (Linux)."""
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    way()
    return resident("VmHWM") - before


def resident(which: str) -> int:
    """Resident memory in MiB, "VmRSS" now or "VmHWM" at the peak (Linux)."""
    return int(re.search(rf"{which}:\s+(\d+)", STATUS.read_text())[1]) // 1024


def largest_difference(found: Any, expected: Any) -> float:
    """Largest difference of two maps, as a share of the largest value expected."""
    return float(abs(found - expected).max() / abs(expected).max())


def tuned(way: Callable[[int], Any], batches: tuple[int, ...]) -> int:
    """The batch size that is the quickest of two short trials each, in turn."""
    seconds: dict[int, list[float]] = {batch: [] for batch in batches}
    for _ in range(2):
        for batch, own in seconds.items():
            start = processor_time()
            way(batch)
            own.append(processor_time() - start)
    return min(seconds, key=lambda batch: min(seconds[batch]))


def _text(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


def _median(values: list[float]) -> float:
    return float(f"{statistics.median(values):.4g}")


def _spread(values: list[float]) -> list[float]:
    """Smallest, median, largest."""
    return [float(f"{value:.4g}") for value in (min(values), statistics.median(values), max(values))]
