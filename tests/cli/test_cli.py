"""The command line's frame: help, version, configuration, exit codes."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import typer

from n2n_deploy.cli.app import COMMANDS, build
from n2n_deploy.device.gpus import driver

from .conftest import Run


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


def test_every_option_says_what_it_does() -> None:
    commands = typer.main.get_command(build()).commands  # type: ignore[attr-defined]
    assert commands.keys() == COMMANDS.keys()
    for name, command in commands.items():
        flags = {flag for parameter in command.params for flag in parameter.opts}
        assert {"--config", "--json"} <= flags, name
        for parameter in command.params:
            assert parameter.help, f"{name} {parameter.name}"


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


def test_saved_configuration_repeats_the_run_but_not_json(simulated: Path, exported: Path, run: Run) -> None:
    first, second = simulated.parent / "first", simulated.parent / "second"
    code, printed, _ = run(
        *("denoise", simulated / "micrographs.star", exported, "-o", first),
        *("--lowpass", 15, "--no-report", "--lanes", 1, "--json"),
    )
    assert code == 0
    assert json.loads(printed)["denoised"] == 3
    code, printed, error = run("denoise", "--config", first / "config.toml", "-o", second)
    assert code == 0, error
    assert not printed.lstrip().startswith("{")
    names = [path.relative_to(first) for path in first.rglob("*.mrc")]
    assert len(names) == 3
    for name in names:
        np.testing.assert_array_equal(mrcfile.read(first / name), mrcfile.read(second / name))
    saved = [tomllib.loads((folder / "config.toml").read_text())["denoise"] for folder in (first, second)]
    assert [options.pop("output") for options in saved] == [str(first), str(second)]
    assert saved[0] == saved[1]
    assert saved[0]["lowpass"] == 15
    names = {option.removeprefix("--").replace("-", "_") for option in _long_options("denoise")}
    assert saved[0].keys() - {"micrographs", "model"} <= names


def _long_options(command: str) -> set[str]:
    parameters = typer.main.get_command(build()).commands[command].params  # type: ignore[attr-defined]
    return {flag for parameter in parameters for flag in parameter.opts if flag.startswith("--")}


@pytest.mark.parametrize("flag", ["--tta", "--augment"])
def test_augment_is_the_hidden_old_name_of_tta(flag: str, simulated: Path, exported: Path, run: Run) -> None:
    assert "--augment" not in n2n("denoise", "--help").stdout
    for command in ("denoise", "evaluate"):
        out = simulated.parent / f"{command}{flag}"
        code, _, error = run(command, simulated / "micrographs.star", exported, "-o", out, flag)
        assert code == 0, error
        saved = tomllib.loads((out / "config.toml").read_text())[command]
        assert saved["tta"]
        assert "augment" not in saved
    assert json.loads((out / "evaluation.json").read_text())["run"]["options"]["tta"] is True


@pytest.mark.skipif(driver().problem is None, reason="this machine has a GPU")
@pytest.mark.parametrize("device", ["gpu", "cuda", "cuda:0"])
def test_every_command_knows_the_gpu_by_each_name(device: str, simulated: Path, exported: Path, run: Run) -> None:
    table, out = simulated / "micrographs.star", simulated.parent / "gpu"
    for arguments in (
        ("verify", exported),
        ("denoise", table, exported, "-o", out),
        ("evaluate", table, exported, "-o", out),
        ("train", table, "-o", out),
    ):
        code, _, error = run(*arguments, "--device", device)
        assert code == 3, error
        assert "GPU" in error


def test_mistakes_in_a_configuration_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("micrograhps = 3\n")
    done = n2n("simulate", "sim", "--config", tmp_path / "c.toml")
    assert done.returncode == 2
    assert "micrograhps" in said(done)
    (tmp_path / "c.toml").write_text("= 3")
    assert n2n("simulate", "sim", "--config", tmp_path / "c.toml").returncode == 2


def test_invalid_bundle_is_one_line(tmp_path: Path) -> None:
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


def test_the_shell_completes_commands_and_options() -> None:
    def complete(line: str) -> list[str]:
        asked = {"_N2N_DEPLOY_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        command = [shutil.which("n2n-deploy") or str(Path(sys.executable).with_name("n2n-deploy"))]
        done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True, check=False)
        return done.stdout.split()

    assert complete("n2n-deploy den") == ["denoise"]
    assert complete("n2n-deploy train --max-res") == ["--max-resolution"]
