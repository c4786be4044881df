"""How long `import xaitools` takes, and what one does first: the viewer, `attribute`, the command's help.

Each in fresh interpreters; what the interpreter itself takes to start is not counted.

    python benchmarks/import_time.py
"""

import subprocess
import sys
from functools import partial

from _harness import Bench

STATEMENTS = {
    "xaitools": "import xaitools",
    "viewer": "from xaitools.widgets import SliceViewer",
    "attribute": "from xaitools import attribute",
    "command": "from xaitools.cli import main",
}
CODE = "import time; start = time.perf_counter(), time.process_time(); {}; "
CODE += "print(time.perf_counter() - start[0], time.process_time() - start[1])"


def seconds(statement):
    """Wall and processor time of the statement in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(statement)], capture_output=True, text=True, check=True
    )
    return [float(value) for value in done.stdout.split()[-2:]]


def measure(bench, statement):
    seconds(statement)  # so that files are read from memory
    wall, processor = zip(*(seconds(statement) for _ in range(bench.repeats)), strict=True)
    bench.figure(list(wall), "s", setting=statement, processor_seconds={"ours": sorted(processor)})


if __name__ == "__main__":
    bench = Bench(__doc__, repeats=11)
    workloads = {name: partial(measure, statement=statement) for name, statement in STATEMENTS.items()}
    bench.run({"xaitools": workloads["xaitools"]} if bench.quick else workloads)
