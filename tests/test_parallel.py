"""Results of worker processes come back in order, with their errors; only our own workers are ended."""

import errno
import multiprocessing
import os
import time

import pytest

from run.errors import DataError, SettingError, UserError
from run.parallel import Workers


def raising(error):
    raise error


def full_disk(name):
    raise FailureError(f"underlying IO error: No space left on device (os error 28) {name}")


def run_all(work, calls, *, jobs, titles=None):
    with Workers(jobs) as workers:
        return workers.run(work, calls, titles=titles)


class FailureError(Exception):
    """A library's error that cannot travel between processes."""

    def __init__(self, message, *, needed=None):
        super().__init__(message)

    def __reduce__(self):
        raise TypeError("cannot pickle")


@pytest.mark.parametrize("error", [UserError("a"), DataError("f", row=1, column="c", value=2, fix="m"), SettingError("s", 1, "m")])
def test_an_error_in_a_worker_comes_through_with_its_message(error):
    with pytest.raises(UserError) as caught:
        run_all(raising, [(error,), (error,)], jobs=2)
    assert str(caught.value) == str(error)


def test_a_full_disk_in_a_worker_is_an_os_error():
    with pytest.raises(OSError) as caught:
        run_all(full_disk, [("a",), ("b",)], jobs=2)
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("jobs", [1, 2])
def test_each_piece_of_work_is_announced_as_it_begins_and_none_without_a_title(capfd, jobs):
    assert run_all(divmod, [(7, 2), (9, 4), (5, 5)], jobs=jobs, titles=["first", "", "third"]) == [(3, 1), (2, 1), (1, 0)]
    assert sorted(capfd.readouterr().err.split()) == ["first", "third"]


def test_results_come_in_order_and_other_children_live_on():
    other = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,))
    other.start()
    try:
        assert run_all(divmod, [(7, 2), (9, 4), (5, 5)], jobs=2) == [(3, 1), (2, 1), (1, 0)]
        with pytest.raises(ZeroDivisionError):
            run_all(divmod, [(7, 2), (9, 0)], jobs=2)
        assert ended_within(10, other)
        assert other.is_alive()
    finally:
        other.terminate()
        other.join()


def test_workers_are_kept_from_one_wave_of_calls_to_the_next_and_end_with_the_block():
    with Workers(2) as workers:
        first = set(workers.run(slow_pid, [()] * 4))
        assert set(workers.run(slow_pid, [()] * 4)) == first
        assert workers.run(os.getpid, [(), ()], here=True) == [os.getpid()] * 2
        with pytest.raises(ZeroDivisionError):
            workers.run(divmod, [(7, 2), (9, 0)])
        assert set(workers.run(slow_pid, [()] * 4)) == first
        assert len(first) == 2
    assert ended_within(10)


def slow_pid():
    time.sleep(0.3)  # long enough for the other worker to take the next call
    return os.getpid()


def ended_within(seconds, *others):
    """Whether all children except these have ended."""
    until = time.monotonic() + seconds
    while len(multiprocessing.active_children()) > len(others):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True
