"""What `n2n-deploy denoise` says of its input, and the outputs of halves, on the command line."""

import json
from pathlib import Path

import mrcfile
import starfile
from bundle_builder import one_layer_bundle

from .conftest import Run

PLAIN = ("--no-report", "--device", "cpu", "--lanes", "1")


def test_halves_are_written_and_denoised_ones_refused(
    exported: Path, simulated: Path, run: Run, tmp_path: Path
) -> None:
    source, out = simulated / "micrographs.star", tmp_path / "out"
    code, _, errors = run("denoise", source, exported, "-o", out, "--halves", "--suffixes", "DW,EVN,ODD", *PLAIN)
    assert code == 0, errors
    rows = starfile.read(out / "denoised.star", always_dict=True)["micrographs"]
    for label in ("rlnMicrographName", "rlnMicrographNameEven", "rlnMicrographNameOdd"):
        assert len({mrcfile.read(name).tobytes() for name in rows[label]}) == 3
        assert all(mrcfile.validate(name) for name in rows[label])
    given = (
        "denoise",
        *map(str, rows["rlnMicrographNameEven"]),
        one_layer_bundle(tmp_path / "flat.n2n"),
        "-o",
        tmp_path / "two",
    )
    code, _, errors = run(*given, *PLAIN)
    assert code == 1
    assert errors.count("was denoised already") == 3
    assert run(*given, "--allow-denoised", *PLAIN)[0] == 0


def test_notes_on_the_input_are_told_at_the_start_and_in_the_dry_run(simulated: Path, run: Run, tmp_path: Path) -> None:
    model, pattern = one_layer_bundle(tmp_path / "flat.n2n"), str(simulated / "micrographs" / "*.mrc")
    arguments = ("denoise", pattern, model, "-o", tmp_path / "out", *PLAIN)
    code, shown, _ = run(*arguments, "--dry-run")
    assert code == 0
    assert "6 files of 9 seem to be even or odd halves" in shown
    told = json.loads(run(*arguments, "--suffixes", "DW,EVN,ODD", "--dry-run", "--json")[1])
    assert told["to_do"] == 3
    assert told["notes"] == [f"{pattern}: 6 files with the suffixes of even and odd halves left out"]
    _, _, errors = run(*arguments, "--suffixes", "DW,EVN,ODD")
    assert "6 files with the suffixes of even and odd halves left out" in errors
