"""Files changed at random: every loader loads them or says in its own words what is wrong, in time and in memory.

The changes are the same in every run. ``make fuzz`` makes many more of them.
"""

import os
import random
import traceback
import warnings
from collections import Counter
from pathlib import Path

import pytest

from tests.hostile.limits import HangError, forget_peak, limits
from tests.hostile.mutations import mutated
from tests.hostile.small import LOADERS
from xaitools.errors import XaitoolsError

EXAMPLES = int(os.environ.get("XAITOOLS_FUZZ", "40"))


@pytest.mark.parametrize("name", LOADERS)
def test_changed_files_are_loaded_or_refused_in_our_own_words(tmp_path, name):
    loader, folder = LOADERS[name], tmp_path / "data"
    loader.write(folder)
    loader.load(folder)
    contents = {target: (folder / target).read_bytes() for target in loader.targets}
    forget_peak()
    found, first = Counter(), {}
    for number in range(EXAMPLES):
        chance = random.Random(f"{name} {number}")
        target = chance.choice(loader.targets)
        change = mutated(contents[target], target, chance)
        (folder / target).write_bytes(change)
        if fault := _fault(loader.load, folder):
            where, words = fault
            found[where] += 1
            first.setdefault(where, f"change {number} of {target}: {words}")
            _keep(change, f"{name}-{number}-{Path(target).name}")
        (folder / target).write_bytes(contents[target])
    assert not found, "\n".join(f"{count} x {fault}; {first[fault]}" for fault, count in found.most_common())


def _fault(load, folder):
    """What was wrong with the loading, and where; None if it succeeded, or was refused in our own words."""
    try:
        with limits(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*(are in color|Masks in doubt).*", UserWarning)
            load(folder)
    except XaitoolsError as error:
        return ("no memory", str(error)) if "MemoryError" in str(error) else None
    except (Exception, HangError) as error:
        places = traceback.extract_tb(error.__traceback__)
        own = [place for place in places if "/xaitools/" in place.filename] or places
        return f"{type(error).__name__} at {Path(own[-1].filename).name}:{own[-1].lineno}", str(error)[:200]
    return None


def _keep(change, name):
    """Keep the file for a closer look where the variable XAITOOLS_FUZZ_OUT names a folder."""
    if folder := os.environ.get("XAITOOLS_FUZZ_OUT"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / name).write_bytes(change)
