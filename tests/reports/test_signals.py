import os
import pickle
import signal
import threading
from contextlib import suppress

import pytest

from xaitools.reports.signals import POLITE, Stopped, deferred, raising

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals")


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", POLITE)
def test_every_polite_signal_raises_and_handlers_come_back(number):
    before = [signal.getsignal(one) for one in POLITE]
    with pytest.raises(Stopped) as stopped, raising():
        send(number)
    assert stopped.value.number == number
    assert isinstance(stopped.value, KeyboardInterrupt)
    assert [signal.getsignal(one) for one in POLITE] == before


def test_it_travels_from_the_workers_of_a_sweep():
    came = pickle.loads(pickle.dumps(Stopped(signal.SIGTERM)))
    assert (came.number, str(came)) == (signal.SIGTERM, "SIGTERM")


def test_a_signal_waits_for_the_end_of_what_must_not_be_cut():
    done = []

    def work():
        with deferred() as heard:
            send(signal.SIGTERM)
            done.append("the first half")
            with pytest.raises(Stopped):
                heard.check()
            done.append("the second half")

    with pytest.raises(Stopped, match="SIGTERM"):
        work()
    assert len(done) == 2


def test_what_went_wrong_inside_is_not_hidden_by_a_signal():
    def work():
        with deferred():
            send(signal.SIGINT)
            raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        work()


def test_a_signal_that_a_library_swallowed_is_raised_again():
    def work():
        with raising():
            with suppress(KeyboardInterrupt):
                send(signal.SIGINT)
            with deferred() as heard:
                heard.check()

    with pytest.raises(Stopped, match="Ctrl-C"):
        work()
    with raising(), deferred() as heard:
        heard.check()  # another command starts anew


def test_handlers_of_the_users_own_stay():
    own = []
    before = signal.signal(signal.SIGTERM, lambda *_: own.append(1))
    try:
        with raising(), deferred() as heard:
            send(signal.SIGTERM)
        assert own == [1]
        assert heard.numbers == []
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_of_the_main_thread_nothing_is_heard_and_nothing_fails():
    seen = []

    def work():
        with deferred() as heard:
            seen.append(heard.numbers)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [[]]
