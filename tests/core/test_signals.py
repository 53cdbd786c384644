"""The first signal asks a run to stop, the second interrupts it, and the former handlers come back."""

import signal
import threading

import pytest

from n2n_deploy.core.signals import stop_on_signal


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_interrupts(number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_on_signal() as stopping:
        assert not stopping.event.is_set()
        signal.raise_signal(number)
        assert stopping.event.is_set()
        assert stopping.signal == number
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_outside_the_main_thread_the_handlers_stay() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def run() -> None:
        with stop_on_signal() as stopping:
            seen.append((signal.getsignal(signal.SIGINT), stopping.event.is_set()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(before, False)]
