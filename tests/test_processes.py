import subprocess
import sys

import pytest

from xaitools.processes import is_gone, is_of_another_machine, token
from xaitools.study.manifest import was_killed


@pytest.fixture(scope="module")
def of_the_dead():
    print_it = "from xaitools.processes import token; print(token())"
    return subprocess.run(
        [sys.executable, "-c", print_it], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_a_process_that_ended_is_gone_and_this_one_is_not(of_the_dead):
    assert is_gone(of_the_dead)
    assert not is_gone(token())


def test_another_process_with_the_same_number_is_another():
    number, began, place = token().split(".")
    assert is_gone(f"{number}.{int(began, 16) - 60:x}.{place}")


@pytest.mark.parametrize("word", ["", "1.2", "x.y.z", "1.2.3.4"])
def test_what_is_no_token_is_not_known_to_be_gone(word):
    assert not is_gone(word)


def test_of_another_machine_nothing_is_known(of_the_dead):
    assert not is_gone(of_the_dead[:-6] + "abcdef")
    assert is_of_another_machine(of_the_dead[:-6] + "abcdef")
    assert not is_of_another_machine(of_the_dead)


def test_only_a_run_that_says_running_was_killed(of_the_dead):
    assert was_killed({"status": "running", "process": of_the_dead})
    assert not was_killed({"status": "running", "process": token()})
    assert not was_killed({"status": "done", "process": of_the_dead})
    assert not was_killed({"status": "running"})
    assert not was_killed({})
