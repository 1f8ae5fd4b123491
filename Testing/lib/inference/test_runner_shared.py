"""Shares of one worker: each cancels and closes its own, the worker is there once and ends with the last of them."""

from __future__ import annotations

from threading import Event, Thread

import pytest
from LesionLib.inference.messages import RunnerCancelled, RunnerError
from LesionLib.inference.runner import SharedRunner, _Pool


class Slow:
    """A runner whose request lasts until it is cancelled or closed."""

    def __init__(self):
        self.pid, self.restarts, self.is_closed = 4711, 0, False
        self.started, self.ended = Event(), Event()

    def run(self, request, *, progress=None):
        if request == "quick":
            return "answer"
        self.started.set()
        assert self.ended.wait(5)
        raise RunnerCancelled

    def start(self, model=None, options=None):
        self.warmed = model

    def cancel(self):
        self.ended.set()
        return True

    def restart(self):
        self.restarts += 1

    def close(self):
        self.is_closed = True
        self.ended.set()


@pytest.fixture
def pool():
    made = []
    pool = _Pool(lambda: made.append(Slow()) or made[-1])
    pool.made = made
    return pool


def running(share) -> tuple[Thread, list]:
    """A request that lasts, under way."""
    ended = []

    def ask():
        with pytest.raises(RunnerCancelled):
            share.run("slow")
        ended.append(True)

    thread = Thread(target=ask)
    thread.start()
    assert share._pool.made[-1].started.wait(5)
    return thread, ended


def test_two_panels_have_one_worker_which_ends_with_the_last_share(pool):
    one, other = SharedRunner(pool=pool), SharedRunner(pool=pool)
    one.start("model")
    assert (len(pool.made), pool.made[0].warmed, one.pid, other.pid) == (1, "model", 4711, 4711)
    one.close()
    one.close()
    assert not pool.made[0].is_closed
    assert other.run("quick") == "answer"
    other.close()
    assert pool.made[0].is_closed
    with pytest.raises(RunnerError, match="was closed"):
        other.run("quick")
    assert SharedRunner(pool=pool).run("quick") == "answer"
    assert len(pool.made) == 2


def test_a_request_beside_another_panel_s_is_refused_and_does_it_no_harm(pool):
    one, other = SharedRunner(pool=pool), SharedRunner(pool=pool)
    thread, ended = running(one)
    with pytest.raises(RunnerError, match="busy with another request, perhaps of another panel"):
        other.run("quick")
    assert not other.cancel()
    other.close()
    assert ended == []
    assert one.cancel()
    thread.join(5)
    assert ended == [True]
    assert one.run("quick") == "answer"


def test_a_share_that_is_closed_in_the_middle_of_its_request_leaves_the_worker_to_the_others(pool):
    one, other = SharedRunner(pool=pool), SharedRunner(pool=pool)
    thread, ended = running(one)
    one.close()
    thread.join(5)
    assert ended == [True]
    assert not pool.made[0].is_closed
    assert other.run("quick") == "answer"


def test_a_restart_is_everybody_s(pool):
    one, other = SharedRunner(pool=pool), SharedRunner(pool=pool)
    other.restart()
    assert pool.made[0].restarts == 1
    assert one.run("quick") == "answer"
