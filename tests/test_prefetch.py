"""Prefetched values come in order, with their errors in place, and leave no thread behind."""

import os
import signal
import threading

import pytest

from run.prefetch import prefetch
from run.stop import stop_requests


def test_values_come_in_order():
    with prefetch(iter(range(50)), depth=3) as values:
        assert list(values) == list(range(50))


def test_an_error_is_raised_in_place_of_its_value():
    def broken():
        yield 1
        yield 2
        raise KeyError("third")

    with prefetch(broken()) as values:
        assert [next(values), next(values)] == [1, 2]
        with pytest.raises(KeyError, match="third"):
            next(values)


def test_only_a_few_values_are_computed_ahead():
    made = []
    third = threading.Event()

    def counting():
        for number in range(100):
            made.append(number)
            if number == 2:
                third.set()
            yield number

    before = threading.active_count()
    with prefetch(counting(), depth=1) as values:
        assert next(values) == 0
        assert third.wait(10)  # one waits in the queue, one in the thread
    assert made == [0, 1, 2]
    assert threading.active_count() == before


def test_sigterm_is_noticed_and_the_previous_handler_restored():
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as requested:
        assert not requested()
        os.kill(os.getpid(), signal.SIGTERM)
        assert requested()
    assert signal.getsignal(signal.SIGTERM) is before
