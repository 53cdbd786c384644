"""How models are named on the command line: `--model general|FILE`, or a last argument that is a bundle."""

import tomllib
from pathlib import Path

import pytest
from bundle_builder import general_stand_in, one_layer_bundle

from n2n_deploy import data

from .conftest import Run

QUICK = ("--no-report", "--device", "cpu", "--lanes", 1)


@pytest.fixture(autouse=True)
def general(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small bundle in the place of the general model."""
    path = general_stand_in(tmp_path / "stand-in.n2n")
    monkeypatch.setattr(data, "GENERAL_MODEL", path)
    return path


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return one_layer_bundle(tmp_path / "mine.n2n")


def used(out: Path) -> str:
    model: str = tomllib.loads((out / "config.toml").read_text())["denoise"]["model"]
    return model


def test_without_a_model_the_general_one_is_used(simulated: Path, tmp_path: Path, run: Run) -> None:
    code, _, error = run("denoise", simulated / "micrographs.star", "-o", tmp_path / "out", *QUICK)
    assert code == 0, error
    assert used(tmp_path / "out") == "general"
    saved = tmp_path / "out" / "config.toml"
    assert run("denoise", "--config", saved, "-o", tmp_path / "again")[0] == 0
    assert used(tmp_path / "again") == "general"


@pytest.mark.parametrize("how", ["last", "option", "last, without the ending"])
def test_a_bundle_may_be_named_in_either_way(how: str, simulated: Path, mine: Path, tmp_path: Path, run: Run) -> None:
    model = mine.rename(mine.with_suffix("")) if "ending" in how else mine
    named = ("--model", model) if how == "option" else (model,)
    code, _, error = run("denoise", simulated / "micrographs.star", *named, "-o", tmp_path / "out", *QUICK)
    assert code == 0, error
    assert used(tmp_path / "out") == str(model)


def test_the_command_line_wins_over_a_configuration(simulated: Path, mine: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "c.toml").write_text('model = "general"\n')
    source = simulated / "micrographs.star"
    code, _, error = run("denoise", source, mine, "--config", tmp_path / "c.toml", "-o", tmp_path / "out", *QUICK)
    assert code == 0, error
    assert used(tmp_path / "out") == str(mine)


def test_files_and_a_last_bundle(simulated: Path, mine: Path, tmp_path: Path, run: Run) -> None:
    files = sorted((simulated / "micrographs").glob("*_DW.mrc"))[:2]
    code, _, error = run("denoise", *files, mine, "-o", tmp_path / "out", *QUICK)
    assert code == 0, error
    assert len(list((tmp_path / "out").rglob("*.mrc"))) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ("denoise TABLE MINE --model general -o out", 2, "two models, general and MINE: name one of them"),
        ("denoise MINE -o out", 2, "MINE: is a model; name the micrographs before it"),
        ("denoise TABLE --max-resolution 3 -o out", 2, "was trained for 4 to 12 Å, not for a max_resolution of 3 Å"),
        ("denoise TABLE MINE --max-resolution 6 -o out", 2, "MINE: was trained for 8 Å alone, not for"),
        ("denoise TABLE --max-resolution -1 -o out", 2, "invalid --max-resolution -1.0: expected a value greater than"),
        ("evaluate TABLE MINE --max-resolution 6 -o out", 2, "MINE: was trained for 8 Å alone, not for"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: str, code: int, words: str, simulated: Path, mine: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(mine.parent)
    places = {"TABLE": str(simulated / "micrographs.star"), "MINE": str(mine)}
    found, printed, error = run(*(places.get(word, word) for word in arguments.split()))
    (line,) = error.splitlines()
    assert (found, printed) == (code, "")
    assert words.replace("MINE", str(mine)) in line
    assert not (mine.parent / "out").exists()


@pytest.mark.parametrize("command", ["denoise TABLE -o out", "inspect general", "verify general", "doctor general"])
def test_an_installation_without_a_general_model_says_so(
    command: str, simulated: Path, general: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    general.unlink()
    monkeypatch.chdir(general.parent)
    code, _, error = run(*(str(simulated / "micrographs.star") if w == "TABLE" else w for w in command.split()))
    (line,) = error.splitlines()
    assert code == 3
    assert line.startswith("error: this installation has no general model (")
    assert line.endswith("name one with --model MODEL.n2n")


def test_the_general_model_is_accepted_wherever_a_bundle_is(run: Run) -> None:
    code, shown, error = run("inspect", "general")
    assert code == 0, error
    assert "4 to 12 Å, by default 8 Å" in shown
    assert "either" in shown
    assert run("verify", "general", "--device", "cpu")[0] == 0
    assert run("doctor", "general", "--json")[0] == 0
