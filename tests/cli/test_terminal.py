"""Terminals and log files that cannot show every character: each command does its work and ends as it should."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import mrcfile
import pytest

from n2n_deploy.cli.app import COMMANDS
from n2n_deploy.cli.terminal import plain, tolerate_any_character

LOCALES = {
    "ascii": {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
    "latin-1": {"LC_ALL": "C", "PYTHONIOENCODING": "iso-8859-1"},
    "posix": {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
}
"""The last has no coercion to UTF-8, either: files that are opened without an encoding are ASCII, too."""

SMALL = ("--preset", "small", "--max-resolution", "8", "--patch-size", "32", "--epochs", "1", "--batches", "2")


def n2n(locale: str, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a locale; what it prints must be bytes of that locale, without a traceback."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHONIO"))}
    command = [sys.executable, "-m", "n2n_deploy", *map(str, arguments)]
    environment = {**clean, **LOCALES[locale]}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, check=False, timeout=300)
    for text in (done.stdout, done.stderr):
        text.decode("iso-8859-1" if locale == "latin-1" else "ascii")
    assert b"Traceback" not in done.stderr, done.stderr.decode("ascii", "replace")
    return done


def test_plain_text_keeps_what_a_reader_needs() -> None:
    assert plain("4.5 Å, 3×3, exp(-B s²/4), 5°, …") == "4.5 A, 3x3, exp(-B s2/4), 5 deg, ..."
    assert plain("Zoë\udcff") == "Zoe?"


def test_stream_keeps_the_characters_of_its_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding, written in (
        ("ascii", b"8 A, 2x2"),
        ("iso-8859-1", b"8 \xc5, 2\xd72"),
        ("utf-8", "8 Å, 2×2".encode()),
    ):
        binary = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(binary, encoding=encoding))
        tolerate_any_character()
        print("8 Å, 2×2", end="", flush=True)
        assert binary.getvalue() == written


@pytest.mark.parametrize("locale", LOCALES)
def test_help_in_every_locale(locale: str) -> None:
    for command in ((), ("denoise",)):
        done = n2n(locale, *command, "--help")
        assert done.returncode == 0
        assert b"Usage: n2n-deploy" in done.stdout


def test_every_command_works_in_the_posix_locale(simulated: Path, exported: Path, tmp_path: Path) -> None:
    table, truth = simulated / "micrographs.star", simulated / "truth" / "particles.star"
    half = simulated / "micrographs" / "mic_0001_EVN.mrc"
    commands: dict[str, tuple[object, ...]] = {
        "simulate": ("sim", "-n", 1, "--size", "192x160", "--particles", 1),
        "train": (table, "-o", "Run", *SMALL),
        "export": ("Run/model.pt", "-o", "model.n2n"),
        "export-triton": (exported, "repository"),
        "inspect": (exported,),
        "verify": (exported,),
        "keygen": ("key",),
        "sign": ("model.n2n", "--key", "key"),
        "denoise": (table, exported, "-o", "out"),
        "merge-results": ("out",),
        "evaluate": (table, exported, "-o", "evaluation"),
        "angles": (truth, truth),
        "fsc": (half, half.with_name("mic_0001_ODD.mrc"), "-o", "fsc"),
        "doctor": (),
    }
    assert COMMANDS.keys() - commands.keys() == {"compile", "demo", "halves"}  # a GPU's library; minutes; movies
    for command, arguments in commands.items():
        done = n2n("posix", command, *arguments, cwd=tmp_path)
        assert done.returncode == 0, (command, done.stderr)
        assert done.stdout, command
    assert len(list((tmp_path / "out").rglob("*.mrc"))) == 3


@pytest.mark.parametrize("locale", ["ascii", "latin-1"])
def test_results_are_printed_in_any_encoding(locale: str, simulated: Path, exported: Path, tmp_path: Path) -> None:
    table, half = simulated / "micrographs.star", simulated / "micrographs" / "mic_0001_EVN.mrc"
    for arguments, words in (
        (("inspect", exported), "4.5 Å"),
        (("fsc", half, half.with_name("mic_0001_ODD.mrc")), "Å/px"),
        (("denoise", table, exported, "-o", "out", "--dry-run"), "192×160 px"),
        (("evaluate", table, exported, "-o", "evaluation"), "report.html"),
    ):
        done = n2n(locale, *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert (plain(words) if locale == "ascii" else words).encode("iso-8859-1") in done.stdout
    document = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
    assert document["micrographs"] == 3


@pytest.mark.parametrize("name", ["Gitter_Å", os.fsdecode(b"caf\xe9")])
def test_folders_with_any_name(name: str, exported: Path, simulated: Path, tmp_path: Path) -> None:
    """File names are bytes: these are UTF-8 in a locale without it, and bytes that are no UTF-8 at all."""
    folder = tmp_path / name
    folder.mkdir()
    (folder / "micrographs").symlink_to(simulated / "micrographs")
    table = folder / "micrographs.star"
    table.write_bytes((simulated / "micrographs.star").read_bytes())
    assert n2n("posix", "denoise", table, exported, "-o", folder / "out", cwd=folder).returncode == 0
    assert n2n("posix", "evaluate", table, exported, "-o", folder / "evaluation", cwd=folder).returncode == 0
    outputs = list((folder / "out").rglob("*.mrc"))
    assert len(outputs) == 3
    assert mrcfile.validate(outputs[0], print_file=io.StringIO())
