"""Optics that a table lacks, given as options: results as with a complete table, and notes where they differ."""

import json
import tomllib
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile

from .conftest import Run

OPTICS = ("--pixel-size", "2", "--voltage", "300", "--cs", "2.7", "--amplitude-contrast", "0.1")
LABELS = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnMicrographPixelSize")
TINY = ("--preset", "small", "--max-resolution", "8", "--patch-size", "32", "--epochs", "1", "--batches", "2")


@pytest.fixture
def bare(simulated: Path, tmp_path: Path) -> Path:
    """The simulated table without its optics; halves and defocus are there."""
    tables = starfile.read(simulated / "micrographs.star", always_dict=True)
    optics = tables["optics"]
    assert [float(optics[label].iloc[0]) for label in LABELS] == [300.0, 2.7, 0.1, 2.0]
    tables["optics"] = optics[["rlnOpticsGroupName", "rlnOpticsGroup"]]
    starfile.write(tables, tmp_path / "bare.star")
    return tmp_path / "bare.star"


def test_denoising_with_given_optics_is_denoising_with_a_complete_table(
    bare: Path, simulated: Path, exported: Path, tmp_path: Path, run: Run
) -> None:
    folder = ("--project", simulated, "--no-report")
    code, _, error = run("denoise", bare, exported, "-o", tmp_path / "none", *folder)
    assert (code, "rlnVoltage" in error, "--voltage" in error) == (1, True, True)
    code, _, error = run("denoise", bare, exported, "-o", tmp_path / "given", *folder, *OPTICS)
    assert code == 0, error
    assert run("denoise", simulated / "micrographs.star", exported, "-o", tmp_path / "table", *folder)[0] == 0
    made = sorted((tmp_path / "given").rglob("*.mrc"))
    assert len(made) == 3
    for path in made:
        whole = tmp_path / "table" / path.relative_to(tmp_path / "given")
        np.testing.assert_array_equal(mrcfile.read(path), mrcfile.read(whole))
    saved = tomllib.loads((tmp_path / "given" / "config.toml").read_text())["denoise"]
    assert (saved["pixel_size"], saved["voltage"], saved["cs"], saved["amplitude_contrast"]) == (2.0, 300.0, 2.7, 0.1)


def test_training_and_evaluation_take_optics_too(
    bare: Path, simulated: Path, exported: Path, tmp_path: Path, run: Run
) -> None:
    code, _, error = run("train", bare, "-o", tmp_path / "run", "--project", simulated, *TINY, *OPTICS)
    assert code == 0, error
    out = tmp_path / "evaluation"
    code, _, error = run("evaluate", bare, exported, "-o", out, "--project", simulated, *OPTICS)
    assert code == 0, error
    given = json.loads((out / "evaluation.json").read_text())
    whole = simulated / "micrographs.star"
    assert run("evaluate", whole, exported, "-o", tmp_path / "whole", "--project", simulated)[0] == 0
    assert given["set"] == json.loads((tmp_path / "whole" / "evaluation.json").read_text())["set"]


@pytest.mark.parametrize("command", ["denoise", "denoise --dry-run", "train", "evaluate"])
def test_a_value_that_contradicts_the_table_is_noted(
    command: str, simulated: Path, exported: Path, tmp_path: Path, run: Run
) -> None:
    model = TINY if command == "train" else (exported,)
    name, *more = command.split()
    code, out, error = run(
        name, simulated / "micrographs.star", *model, "-o", tmp_path / "out", "--pixel-size", "1.9", *more
    )
    assert code == 0, error
    told = out if more else error
    assert "rlnMicrographPixelSize" in told or "pixel size" in told
    assert "is 2 and 1.9 was given; the table's value is used" in told


def test_an_impossible_value_is_one_line(simulated: Path, exported: Path, tmp_path: Path, run: Run) -> None:
    table = simulated / "micrographs.star"
    code, _, error = run("denoise", table, exported, "-o", tmp_path / "out", "--voltage", "300000")
    assert (code, error) == (2, "error: invalid voltage 300000; expected a number from 1 to 3000 (kV)\n")
    code, _, error = run("train", table, "-o", tmp_path / "out", "--pixel-size", "-1")
    assert (code, error) == (2, "error: invalid --pixel-size -1.0: expected a value greater than 0\n")
