"""Users hear that phases are flipped wherever they decide what to do next, and their tables lead to every file."""

import json
from pathlib import Path

import pytest
import starfile

from .conftest import Run

NEXT = ("extract the particles from the originals", "--flip-back", "--ctf_phase_flipped")


@pytest.mark.parametrize("flip_back", [False, True])
def test_closing_lines_report_and_summary_say_that_phases_are_flipped(
    flip_back: bool, simulated: Path, exported: Path, tmp_path: Path, run: Run
) -> None:
    out, more = tmp_path / "out", ("--flip-back",) if flip_back else ()
    code, shown, error = run("denoise", simulated / "micrographs.star", exported, "-o", out, *more)
    assert code == 0, error
    page = (out / "report.html").read_text()
    # The options card and the command line name --flip-back in either case.
    assert [words in shown for words in NEXT] == [not flip_back] * 3
    assert ("relion_refine would need --ctf_phase_flipped" in page.partition("</header>")[0]) is not flip_back
    assert json.loads((out / "summary.json").read_text())["phases_flipped"] is not flip_back
    code, shown, error = run("merge-results", out)
    assert code == 0, error
    assert [words in shown for words in NEXT] == [not flip_back] * 3


def test_the_help_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = " ".join(run("denoise", "--help")[1].split())
    assert "extract the particles from the originals" in shown
    assert "--ctf_phase_flipped" in shown


def test_halves_are_found_from_a_table_outside_the_project(
    simulated: Path, exported: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = simulated / "micrographs.star"
    given = starfile.read(table, always_dict=True)["micrographs"]
    assert not Path(given["rlnMicrographNameEven"].iloc[0]).is_absolute()
    text = table.read_text()
    first = given["rlnMicrographName"].iloc[0]
    missing = first.replace("_DW", "_gone")
    (tmp_path / "elsewhere.star").write_text(text.replace(f"{first}\t", f"{missing}\t"))
    out = tmp_path / "out"
    code, _, _ = run("denoise", tmp_path / "elsewhere.star", exported, "-o", out, "--project", simulated, "--no-report")
    assert code == 1
    # Wherever a program looks from.
    monkeypatch.chdir(tmp_path)
    for name, count in (("denoised.star", len(given) - 1), ("failed.star", 1)):
        rows = starfile.read(out / name, always_dict=True)["micrographs"]
        assert len(rows) == count
        for label in ("rlnMicrographNameEven", "rlnMicrographNameOdd"):
            assert all((out / half).is_file() for half in rows[label]), (name, list(rows[label]))
    # Within the project relative names stay as they are, as RELION writes them.
    inside = simulated / "job010"
    run("denoise", table, exported, "-o", inside, "--no-report")
    rows = starfile.read(inside / "denoised.star", always_dict=True)["micrographs"]
    assert list(rows["rlnMicrographNameEven"]) == list(given["rlnMicrographNameEven"])
