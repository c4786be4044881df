import pytest

from xaitools.progress import Teller


def test_what_is_done_is_told_and_a_question_is_not_asked_twice() -> None:
    heard = []
    with Teller(5, lambda *pair: heard.append(pair)) as tell:
        tell(2)
        tell(0)
        tell(0)
        tell(3)
    assert heard == [(0, 5), (2, 5), (5, 5)]


def test_a_question_is_asked_after_a_while(monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    heard = []
    tell = Teller(5, lambda *pair: heard.append(pair))
    for _ in range(3):
        tell(0)
        now[0] += 0.04
    assert heard == [(0, 5), (0, 5)]


def test_what_stops_it_is_remembered() -> None:
    class Enough(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done:
            raise Enough

    with pytest.raises(Enough), Teller(5, stop) as tell:
        tell(1)
    assert isinstance(tell.stopped_by, Enough)


def test_a_bar_counts_and_is_silent_when_not_asked_for(capsys) -> None:
    for show in (True, False):
        with Teller(3, show) as tell:
            tell(2)
        assert tell.done == 2
    assert capsys.readouterr().err == ""  # it takes two seconds to appear
