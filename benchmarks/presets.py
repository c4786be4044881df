"""The quick preset of each study from nothing, as on the first day, and two of them at once against in turn.

Each run is `xaitools report STUDY` in a process of its own with an empty cache; data, training, maps and report are
all in its time. --quick only lists the studies.

    python benchmarks/presets.py
    python benchmarks/presets.py --workloads ct_contrast --repeats 1
"""

import os
import subprocess
import sys
import tempfile
from functools import partial

from _harness import Bench, Turns

STUDIES = ("ct_contrast", "fetal_hc", "ad_retraining", "ad_mask", "brain_mri", "sanity_checks")
TOGETHER = ("ct_contrast", "fetal_hc")


def start(study, folder):
    """The command in a folder of its own, with a cache of its own; no study: what there is."""
    report = ["report", study, "--out", f"{folder}/out", "--no-progress"] if study else ["studies"]
    command = [sys.executable, "-m", "xaitools", *report]
    env = os.environ | {"XAITOOLS_CACHE": f"{folder}/cache", "XAITOOLS_DATA": ""}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process):
    said, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"xaitools {process.args[3:]} ended with {process.returncode}: {said[-2000:]}")


def at_once(*studies):
    with tempfile.TemporaryDirectory() as folder:
        processes = [start(study, f"{folder}/{index}") for index, study in enumerate(studies)]
        for process in processes:
            finish(process)


def in_turn(*studies):
    for study in studies:
        at_once(study)


def cold(bench, study):
    turns = bench.in_turn({"ours": partial(at_once, study)})
    tell(bench, turns, turns.wall["ours"], "s", setting="an empty cache, wall time")


def together(bench):
    turns = bench.in_turn({"at once": partial(at_once, *TOGETHER), "in turn": partial(in_turn, *TOGETHER)})
    ratios = turns.ratios("at once", "in turn", "wall")
    tell(bench, turns, ratios, "x", setting=f"{' and '.join(TOGETHER)}, wall time at once / in turn")


def tell(bench, turns: Turns, values, unit, setting):
    bench.figure(
        values, unit, setting=setting, seconds=turns.wall, processor_seconds=turns.processor, load=turns.load
    )


if __name__ == "__main__":
    workloads = {study: partial(cold, study=study) for study in STUDIES} | {"two at once": together}
    bench = Bench(__doc__, repeats=3)
    bench.run({"studies": partial(cold, study="")} if bench.quick else workloads)
