"""Laws of stopping: the first signal is noted, the second one ends; readers never get one."""

import multiprocessing
import signal
import time

import pytest

from canvas_robot.training.stop import SIGNALS, StopSignals, UndisturbedWorkers


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_and_the_second_does_what_it_did_before(number):
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), StopSignals() as stop:
            assert stop.received == 0
            signal.raise_signal(number)
            assert stop.received == number
            signal.raise_signal(number)
    finally:
        signal.signal(number, before)


def test_handlers_are_put_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    with StopSignals():
        pass
    assert [signal.getsignal(number) for number in SIGNALS] == before


# What a worker runs; one that is spawned imports no test.
KILL_ONESELF = """
import os, time
os.kill(os.getpid(), number)
told.put("still here")
time.sleep(1000)
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_workers_get_no_signal_and_are_ended_by_their_trainer(number):
    spawning, workers = multiprocessing.get_context("spawn"), UndisturbedWorkers()
    other = spawning.Process(target=time.sleep, args=(1000,), daemon=True)
    other.start()
    told = spawning.SimpleQueue()
    worker = spawning.Process(
        target=exec, args=(KILL_ONESELF, {"number": number, "told": told}), daemon=True
    )
    with workers.starting():
        worker.start()
    assert told.get() == "still here"
    before = signal.getsignal(signal.SIGCHLD)
    workers.close()
    assert worker.exitcode == -signal.SIGKILL and other.is_alive()
    assert signal.getsignal(signal.SIGCHLD) is before
    other.kill()
    other.join()
    told.close()


def test_the_mask_of_signals_is_put_back():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with UndisturbedWorkers().starting():
        assert set(SIGNALS) <= signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before
