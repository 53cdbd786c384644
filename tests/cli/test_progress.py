"""Progress: bars on a terminal, which Ctrl-C leaves in order, and a line a minute in a log file."""

import io
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live

from n2n_deploy.cli.progress import LateProgress, MicrographProgress, training_progress
from n2n_deploy.train import Preparing, Progress


@contextmanager
def interrupted_at(code: CodeType, line: int) -> Iterator[list[int]]:
    """Send SIGINT when that many lines of a function have run; gives the lines that did."""
    lines: list[int] = []

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if frame.f_code is not code:
            return None
        if event == "line":
            lines.append(frame.f_lineno)
            if len(lines) == line:
                signal.raise_signal(signal.SIGINT)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield lines
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("code", [Live.start.__code__, Live.stop.__code__])
def test_control_c_at_any_line_restores_the_terminal(code: CodeType) -> None:
    before = signal.getsignal(signal.SIGINT)
    line, lines = 0, [0]
    while len(lines) >= line:
        line += 1
        console = Console(file=io.StringIO(), force_terminal=True)
        with (
            pytest.raises(KeyboardInterrupt),
            interrupted_at(code, line) as lines,
            LateProgress(console=console, auto_refresh=False) as bar,
        ):
            task = bar.add_task("working", total=1)
            bar.start()
            bar.update(task, completed=1)
            bar.stop()
            if len(lines) < line:
                raise KeyboardInterrupt  # the last round: it had no line to come at
        assert not console._live_stack
        assert not console._render_hooks
        assert console.file.getvalue().endswith("\x1b[?25h")  # type: ignore[attr-defined]
        assert signal.getsignal(signal.SIGINT) is before
    assert line > 8


class Clock:
    """A clock that is set by hand, and the log file of a run without a terminal."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.log = Console(file=io.StringIO(), highlight=False, width=40)

    def __call__(self) -> float:
        return self.now

    @property
    def lines(self) -> list[str]:
        return self.log.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_log_file_has_a_line_a_minute() -> None:
    clock = Clock()
    with MicrographProgress("denoising", "denoised", console=clock.log, clock=clock) as progress:
        progress.expect(3000)
        for number in range(1, 3001):
            clock.now += 0.73
            progress.advance(failed=number % 10 == 0)
    assert len(clock.lines) == int(3000 * 0.73 // 60)
    # 83 micrographs take 60.59 s: 2917 are left, at 0.73 s each.
    assert clock.lines[0] == "denoised 75 of 3000 (3 %), 8 failed; 35 min left"
    assert clock.lines[-1].endswith("less than a minute left")


def test_failures_are_printed_at_once_even_in_quiet_runs() -> None:
    clock = Clock()
    with MicrographProgress("denoising", "denoised", console=clock.log, clock=clock, quiet=True) as progress:
        progress.expect(2)
        clock.now += 3600
        progress.advance(failed=True)
        progress.say("[a].mrc: truncated", "failed")
    assert clock.lines == ["failed: [a].mrc: truncated"]


def test_time_left_of_a_resumed_training_counts_from_where_it_resumed() -> None:
    clock = Clock()
    with training_progress(console=clock.log, clock=clock, interval=60.0) as update:
        update(Preparing(1, 4))
        clock.now += 100
        update(Preparing(2, 4))
        for step in range(500, 503):
            update(Progress(step, step / 1000, 0.0, 1e-4, 0.9, float("nan") if step < 502 else 0.8))
            clock.now += 60
    assert clock.lines == [
        "cut 2 of 4 micrographs into patches; 3 min left",
        "trained 50 %, step 501, loss 0.9000; 8 h 19 min left",
        "trained 50 %, step 502, loss 0.9000, held out 0.8000; 8 h 18 min left",
    ]


def test_terminal_has_a_bar_and_no_lines() -> None:
    terminal = Console(file=io.StringIO(), force_terminal=True, width=80)
    clock = Clock()
    with MicrographProgress("denoising", "denoised", console=terminal, clock=clock) as progress:
        progress.expect(2)
        clock.now += 3600
        progress.advance()
    text = terminal.file.getvalue()  # type: ignore[attr-defined]
    assert "denoising" in text
    assert "1/2" in text
    assert "denoised" not in text
