"""What the log of a job without a terminal shows: lines that say how far it is, and a memory limit that would do."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

TRAIN = "--preset small --max-resolution 8 --patch-size 32 --epochs 1 --batches 4 --batch-size 2 --no-phase-flip"


def run(code: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run the command line in a process of its own whose streams go to files, as in a SLURM job."""
    command = [sys.executable, "-c", f"{code}\nfrom n2n_deploy.cli import main\nmain()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("command", "line"),
    [
        ("denoise", r"denoised \d of 3 \(\d+ %\)(; .* left)?"),
        ("evaluate", r"evaluated \d of 3 \(\d+ %\)(; .* left)?"),
        ("train", r"trained \d+ %, step \d, loss .*; .* left"),
    ],
)
def test_a_log_file_shows_how_far_a_job_is(
    command: str, line: str, simulated: Path, exported: Path, tmp_path: Path
) -> None:
    model = TRAIN.split() if command == "train" else [exported]
    often = "import n2n_deploy.cli.progress as progress\nprogress.INTERVAL = 0.001"
    job = run(often, command, simulated / "micrographs.star", *model, "-o", tmp_path / "out")
    assert job.returncode == 0, job.stderr
    shown = [text for text in job.stderr.splitlines() if re.fullmatch(line, text)]
    assert len(shown) >= 2, job.stderr
    assert "\x1b" not in job.stderr
    assert "\r" not in job.stderr
    # A short job at the usual interval is silent, as every other line would be noise.
    if command == "denoise":
        silent = run("", command, simulated / "micrographs.star", exported, "-o", tmp_path / "second")
        assert "denoised 1" not in silent.stderr


def test_the_memory_limit_that_an_error_names_is_enough(simulated: Path, exported: Path, tmp_path: Path) -> None:
    arguments = ("denoise", simulated / "micrographs.star", exported, "--no-report", "-o", tmp_path / "out")
    refused = run("", *arguments, "--memory", "60MB")
    assert refused.returncode == 3
    (error,) = [text for text in refused.stderr.splitlines() if text.startswith("error:")]
    named = re.search(r"0\.06 GB are allowed: give --memory (\d+\.\d\dGB) or more", error)
    assert named, error
    assert "160×192 pixels" in error
    done = run("", *arguments, "--memory", named[1])
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out").rglob("*.mrc"))) == 3
