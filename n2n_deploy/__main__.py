"""The program `n2n-deploy`, which `python -m n2n_deploy` is too, and the programs that RELION starts."""

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress

from n2n_deploy.batch.lanes import LANE
from n2n_deploy.cli import main, relion


def program() -> None:
    """Run the command line."""
    _run(main)


def relion_denoise() -> None:
    """Run `denoise` as a RELION External job."""
    _run(relion.denoise)


def relion_train() -> None:
    """Run `train` as a RELION External job."""
    _run(relion.train)


def _run(work: Callable[[], None]) -> None:
    """Run a program and end the process, even if a second Ctrl-C or a time-out left lanes at work.

    A thread that comes back from a library while Python shuts down can crash it, and would turn the exit code into
    another: with such threads the process ends at once. All that counts is on disk by then.
    """
    try:
        work()
    except SystemExit as ended:
        if any(thread.name == LANE for thread in threading.enumerate()):
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):
                    stream.flush()
            os._exit(ended.code if isinstance(ended.code, int) else int(ended.code is not None))
        raise


if __name__ == "__main__":
    program()
