"""Ctrl-C and SIGTERM: raised at once, or noted and waited with; the second time at once."""

import os
import signal
import sys
import threading
import time

import pytest

from bdpo.processes import Stopped, stoppable

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


@BOTH
def test_a_signal_stops_at_once_and_its_number_is_known(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt) as stop, stoppable():
        signal.raise_signal(number)
    assert isinstance(stop.value, Stopped) and stop.value.number == number
    assert signal.getsignal(number) is before


@BOTH
def test_a_signal_is_waited_with_and_the_second_is_not(number: signal.Signals, capfd: pytest.CaptureFixture) -> None:
    with stoppable() as stop:
        stop.now()
        stop.waits = True
        signal.raise_signal(number)
        assert stop.noted == number and capfd.readouterr().err.count("bdpo: Stopping as soon as") == 1
        with pytest.raises(Stopped):
            stop.now()
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGINT)


def test_a_signal_that_is_ignored_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with stoppable():
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_one_of_several_processes_and_other_threads_leave_signals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    before = signal.getsignal(signal.SIGTERM)
    with stoppable():
        assert signal.getsignal(signal.SIGTERM) is before
    monkeypatch.delenv("WORLD_SIZE")
    failed: list[BaseException] = []

    def elsewhere() -> None:
        try:
            with stoppable():
                pass
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert not failed


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_data_loaders_process_leaves_ctrl_c_to_its_parent(number: signal.Signals, code: int) -> None:
    with stoppable():
        pid = os.fork()
        if not pid:
            signal.raise_signal(number)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == code


def test_a_signal_that_python_swallows_in_a_destructor_comes_again() -> None:
    class Dying:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    hook = sys.unraisablehook
    with pytest.raises(Stopped) as stop, stoppable():
        Dying()
        time.sleep(60)
        raise AssertionError("it was lost")
    assert stop.value.number == signal.SIGTERM and sys.unraisablehook is hook
