"""Progress bars and Ctrl-C."""

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

from n2n_deploy.cli.progress import LateProgress


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
def test_wherever_control_c_comes_the_terminal_is_left_in_order(code: CodeType) -> None:
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
