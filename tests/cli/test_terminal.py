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


def test_a_stream_keeps_the_characters_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for encoding, written in (("ascii", b"8 A, 2x2"), ("iso-8859-1", b"8 \xc5, 2\xd72"), ("utf-8", "8 Å, 2×2".encode())):
        binary = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(binary, encoding=encoding))
        tolerate_any_character()
        print("8 Å, 2×2", end="", flush=True)
        assert binary.getvalue() == written


@pytest.mark.parametrize("locale", LOCALES)
def test_help_in_every_locale(locale: str) -> None:
    for command in ((), ("train",), ("denoise",), ("simulate",)):
        done = n2n(locale, *command, "--help")
        assert done.returncode == 0
        assert b"Usage: n2n-deploy" in done.stdout


@pytest.mark.parametrize("locale", LOCALES)
def test_every_command_works_in_every_locale(locale: str, simulated: Path, exported: Path, tmp_path: Path) -> None:
    table, half = simulated / "micrographs.star", simulated / "micrographs" / "mic_0001_EVN.mrc"
    commands: dict[str, tuple[object, ...]] = {
        "simulate": ("sim", "-n", 1, "--size", "128x128", "--particles", 1),
        "train": (table, "-o", "Run", *SMALL),
        "export": (exported.with_name("model.pt"), "-o", "model.n2n"),
        "inspect": (exported,),
        "verify": (exported,),
        "keygen": ("key",),
        "denoise": (table, exported, "-o", "out"),
        "merge-results": ("out",),
        "evaluate": (table, exported, "-o", "evaluation"),
        "angles": (simulated / "truth" / "particles.star", simulated / "truth" / "particles.star"),
        "fsc": (half, half.with_name("mic_0001_ODD.mrc")),
        "doctor": (),
    }
    if locale != "posix":  # the others differ in what they print alone
        del commands["train"], commands["export"]
    assert commands.keys() <= COMMANDS.keys()
    dry = n2n(locale, "denoise", table, exported, "-o", "out", "--dry-run", cwd=tmp_path)
    assert dry.returncode == 0, dry.stderr
    for command, arguments in commands.items():
        done = n2n(locale, command, *arguments, cwd=tmp_path)
        assert done.returncode == 0, (command, done.stderr)
        assert done.stdout, command
    assert json.loads((tmp_path / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))["micrographs"]
    assert len(list((tmp_path / "out").rglob("*.mrc"))) == 3


@pytest.mark.parametrize("locale", LOCALES)
def test_names_with_any_character(locale: str, exported: Path, simulated: Path, tmp_path: Path) -> None:
    """File names are bytes: some are UTF-8 in a locale that lacks it, some no text at all."""
    names = ("Gitter_Å", os.fsdecode(b"caf\xe9"))
    text = (simulated / "micrographs.star").read_text(encoding="utf-8")
    for name in names:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "micrographs").symlink_to(simulated / "micrographs")
        (folder / "micrographs.star").write_text(text, encoding="utf-8")
        done = n2n(locale, "denoise", folder / "micrographs.star", exported, "-o", folder / "out", cwd=folder)
        assert done.returncode == 0, done.stderr
        done = n2n(locale, "evaluate", folder / "micrographs.star", exported, "-o", folder / "evaluation", cwd=folder)
        assert done.returncode == 0, done.stderr
        outputs = list((folder / "out").rglob("*.mrc"))
        assert len(outputs) == 3
        assert mrcfile.validate(outputs[0], print_file=io.StringIO())
