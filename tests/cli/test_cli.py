"""The command line's frame: help, version, configuration, exit codes."""

import subprocess
import sys
import tomllib
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from n2n_deploy.cli.app import COMMANDS


def n2n(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does."""
    command = [sys.executable, "-m", "n2n_deploy", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


def said(done: subprocess.CompletedProcess[str]) -> str:
    """Everything it printed, as one line."""
    return " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    done = n2n(command, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout
    assert "--config" in done.stdout or command in ("inspect", "verify", "sign", "doctor", "keygen")


def test_version() -> None:
    from importlib.metadata import version

    assert n2n("--version").stdout.strip() == f"n2n-deploy {version('n2n-deploy')}"


def test_unknown_command_and_option_are_usage_errors() -> None:
    assert n2n("denoize").returncode == 2
    assert n2n("denoise", "--fast").returncode == 2


def test_configuration_file_gives_defaults_that_flags_override(tmp_path: Path) -> None:
    (tmp_path / "sim.toml").write_text("micrographs = 1\nsize = '256x320'\nseed = 7\npixel-size = 4.0\n")
    done = n2n("simulate", "sim", "--config", "sim.toml", "--seed", 9, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with mrcfile.open(next((tmp_path / "sim" / "micrographs").glob("*_DW.mrc"))) as mrc:
        assert mrc.data.shape == (320, 256)
        assert mrc.voxel_size.x == pytest.approx(4.0)
    saved = tomllib.loads((tmp_path / "sim" / "config.toml").read_text())["simulate"]
    assert (saved["seed"], saved["micrographs"]) == (9, 1)
    # What was saved reproduces the run.
    again = n2n("simulate", "again", "--config", tmp_path / "sim" / "config.toml", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    for path in (tmp_path / "sim" / "micrographs").glob("*.mrc"):
        with (
            mrcfile.open(path) as first,
            mrcfile.open(tmp_path / "again" / "micrographs" / path.name) as second,
        ):
            np.testing.assert_array_equal(first.data, second.data)


def test_configuration_mistakes_are_named(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("micrograhps = 3\n")
    done = n2n("simulate", "sim", "--config", tmp_path / "c.toml")
    assert done.returncode == 2
    assert "micrograhps" in said(done)
    (tmp_path / "c.toml").write_text("= 3")
    assert n2n("simulate", "sim", "--config", tmp_path / "c.toml").returncode == 2


def test_a_missing_table_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "not.n2n").write_text("no bundle")
    done = n2n("denoise", "nowhere.star", tmp_path / "not.n2n", "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "not.n2n" in said(done)
    assert "Traceback" not in said(done)
    assert len(done.stderr.strip().splitlines()) == 1


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    (tmp_path / "not.n2n").write_text("no bundle")
    done = n2n("--debug", "denoise", "nowhere.star", tmp_path / "not.n2n", "-o", tmp_path / "out")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_shell_completion(tmp_path: Path) -> None:
    # The option looks at the process that calls it; the second command keeps bash from giving way to the first.
    script = f"{sys.executable} -m n2n_deploy --show-completion; true"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120)
    assert "_N2N_DEPLOY_COMPLETE" in done.stdout or "COMP_WORDS" in done.stdout, done.stderr
