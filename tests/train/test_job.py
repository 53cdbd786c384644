"""From a table to a model: the function, the command, and the tables that they refuse."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mrcfile
import pytest
import starfile
import typer
from star_builder import star_loop
from typer.testing import CliRunner

from n2n_deploy.cli.train import train_command
from n2n_deploy.core.errors import DataError, HostError, N2NError, UsageError
from n2n_deploy.core.options import NamingOptions
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.train import TrainConfig, load_model, train
from n2n_deploy.train.patches import Preparation

TINY = ("--preset", "small", "--max-resolution", "8", "--patch-size", "32", "--no-phase-flip", "--device", "cpu")
SHORT = ("--epochs", "1", "--batches", "3", "--batch-size", "2", "--suffixes", "DW,EVN,ODD")
NAMING = NamingOptions(suffixes=("DW", "EVN", "ODD"))


@pytest.fixture
def tiny(small_recipe: Recipe) -> TrainConfig:
    return TrainConfig(preset="small", recipe=small_recipe, epochs=1, batches_per_epoch=2, batch_size=2, device="cpu")


def run_command(*arguments: object) -> Any:
    app = typer.Typer(rich_markup_mode="rich")
    app.command()(train_command)
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_one_bad_micrograph_does_not_stop_the_training(
    tmp_path: Path, write_table: Callable[..., Path], halves: Callable[..., Any], tiny: TrainConfig
) -> None:
    bad = halves(0)
    bad["ODD"] = bad["EVN"]
    table = write_table({"bad": bad, "good": halves(1)})
    refusals: list[Preparation] = []
    path = train(table, tmp_path / "run", tiny, naming=NAMING, prepared=refusals.append, progress=lambda _: None)
    model = load_model(path)
    assert model.step == 2
    assert (model.summary["micrographs"], model.summary["micrographs_refused"]) == (1, 1)
    assert model.summary["data_set"] == str(table)
    assert list(refusals[0].refused) == ["micrographs/bad_DW.mrc"]


def test_a_nyquist_frequency_short_of_the_resolution_is_noted(
    tmp_path: Path, write_table: Callable[..., Path], halves: Callable[..., Any], tiny: TrainConfig
) -> None:
    told: list[Preparation] = []
    for resolution in (1.0, tiny.recipe.max_resolution):
        config = tiny.model_copy(update={"recipe": tiny.recipe.model_copy(update={"max_resolution": resolution})})
        out, table = tmp_path / f"{resolution}", write_table({"good": halves(1)})
        train(table, out, config, naming=NAMING, prepared=told.append)
    (note,) = told[0].notes
    assert "1 of 1 micrographs end at" in note
    assert "short of 1 Å" in note
    assert told[1].notes == []


@pytest.mark.parametrize("device", ["tpu", "cuda:99"])
def test_errors_are_found_before_patches_are_cut(
    device: str, tmp_path: Path, write_table: Callable[..., Path], halves: Callable[..., Any], tiny: TrainConfig
) -> None:
    table, run = write_table({"a": halves(1)}), tmp_path / "run"
    with pytest.raises(HostError, match=device):
        train(table, run, tiny.model_copy(update={"device": device}), naming=NAMING)
    assert not run.exists()
    run.mkdir()
    (run / "model.pt").write_text("another's")
    with pytest.raises(UsageError, match="holds a training already"):
        train(table, run, tiny, naming=NAMING)
    assert [path.name for path in run.iterdir()] == ["model.pt"]


def test_the_model_keeps_the_recipe_with_phase_flip(
    tmp_path: Path, write_table: Callable[..., Path], halves: Callable[..., Any], tiny: TrainConfig
) -> None:
    recipe = tiny.recipe.model_copy(update={"phase_flip": True})
    table = write_table({"a": halves(1)}, ctf=True)
    config = tiny.model_copy(update={"recipe": recipe})
    assert load_model(train(table, tmp_path / "run", config, naming=NAMING)).recipe == recipe


def test_too_few_usable_micrographs_are_refused_with_the_cause(
    tmp_path: Path, write_table: Callable[..., Path], halves: Callable[..., Any], tiny: TrainConfig
) -> None:
    table = write_table({"a": {"DW": halves(0)["DW"]}})
    with pytest.raises(DataError, match=r"micrographs.star: 0 patches .*1 of 1 micrographs .*a_EVN.mrc"):
        train(table, tmp_path / "run", tiny, naming=NAMING)


def test_a_table_without_ctf_cannot_be_phase_flipped(
    tmp_path: Path, write_table: Callable[..., Path], halves: Callable[..., Any], tiny: TrainConfig
) -> None:
    table = write_table({"a": halves(0)})
    config = tiny.model_copy(update={"recipe": Recipe(max_resolution=8, patch_size=32)})
    with pytest.raises(DataError, match="rlnDefocusU"):
        train(table, tmp_path / "run", config, naming=NAMING)


def test_a_table_without_halves_says_how_to_name_them_if_they_are_asked_for(
    tmp_path: Path, write_table: Callable[..., Path], halves: Callable[..., Any], tiny: TrainConfig
) -> None:
    with pytest.raises(N2NError, match="suffixes"):
        train(write_table({"a": halves(0)}), tmp_path / "run", tiny.model_copy(update={"pairs": "halves"}))


def test_a_particle_table_is_refused(tmp_path: Path, shared_data: Path, tiny: TrainConfig) -> None:
    with pytest.raises(N2NError, match=r"relion31_particles_1k\.star"):
        train(shared_data / "star" / "relion31_particles_1k.star", tmp_path, tiny, naming=NAMING)


def test_the_command_resumes_with_the_options_of_the_run(
    tmp_path: Path, write_table: Callable[..., Path], halves: Callable[..., Any]
) -> None:
    table, run = write_table({"a": halves(1)}), tmp_path / "run"
    done = run_command(table, "-o", run, *TINY, *SHORT, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["step"] == 3
    assert (run / "config.toml").is_file()
    # Only the options that find the halves, and changed ones, are repeated.
    resumed = run_command(table, "-o", run, "--resume", "--epochs", "2", "--suffixes", "DW,EVN,ODD", "--json")
    assert resumed.exit_code == 0, resumed.output
    found = json.loads(resumed.stdout)
    assert found["step"] == 6
    assert found["config"]["batch_size"] == 2
    assert found["config"]["preset"] == "small"
    saved = tomllib.loads((run / "config.toml").read_text())
    (options,) = saved.values()
    assert (options["preset"], options["epochs"], options["patch_size"]) == ("small", 2, 32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--epochs", "0"), "--epochs 0"),
        (("--patch-size", "100"), "--patch-size 100"),
        (("--schedule", "steps"), "--schedule steps"),
        (("--suffixes", "EVN,ODD"), "invalid suffixes 'EVN,ODD'"),
        (("--preset", "huge"), "huge"),
    ],
)
def test_invalid_options_give_one_line(
    arguments: tuple[str, str],
    message: str,
    tmp_path: Path,
    write_table: Callable[..., Path],
    halves: Callable[..., Any],
) -> None:
    table = write_table({"a": halves(1)})
    done = run_command(table, "-o", tmp_path / "run", *TINY, *SHORT, *arguments)
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)
    assert "\n" not in str(done.exception)


def test_images_of_tilt_series_are_learned_from(
    tmp_path: Path, halves: Callable[..., Any], tiny: TrainConfig, shared_data: Path
) -> None:
    """Two series with images of the same names, their columns those of a real table of RELION 5."""
    (real,) = starfile.read(shared_data / "star" / "relion5_even_odd_tilt_series.star", always_dict=True).values()
    rows = real.iloc[:2].astype(str)
    for seed, series in enumerate(("TS_01", "TS_02")):
        (tmp_path / series).mkdir()
        columns = {label: list(rows[label]) for label in rows}
        labels = {"DW": "rlnMicrographName", "EVN": "rlnMicrographNameEven", "ODD": "rlnMicrographNameOdd"}
        for number in range(2):
            images = halves(2 * seed + number)
            for suffix, label in labels.items():
                columns[label][number] = f"{series}/tilt{number}_{suffix}.mrc"
                with mrcfile.new(tmp_path / columns[label][number]) as mrc:
                    mrc.set_data(images[suffix])
        columns |= {label: ["15000.0"] * 2 for label in ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle")}
        (tmp_path / f"{series}.star").write_text(star_loop(series, columns))
    shared = {
        "rlnTomoName": ["TS_01", "TS_02"],
        "rlnTomoTiltSeriesStarFile": ["TS_01.star", "TS_02.star"],
        "rlnVoltage": 300.0,
        "rlnSphericalAberration": 2.7,
        "rlnAmplitudeContrast": 0.1,
        "rlnTomoTiltSeriesPixelSize": 2.0,
    }
    table = tmp_path / "tilt_series_ctf.star"
    table.write_text(star_loop("global", shared))
    told: list[Preparation] = []
    config = tiny.model_copy(update={"recipe": tiny.recipe.model_copy(update={"phase_flip": True})})
    model = load_model(train(table, tmp_path / "run", config, prepared=told.append))
    assert (model.summary["micrographs"], model.summary["micrographs_refused"]) == (4, 0)
    assert len({path.name for path in told[0].files}) == 4


def test_denoised_halves_are_refused_unless_insisted_on(
    tmp_path: Path, write_table: Callable[..., Path], halves: Callable[..., Any], tiny: TrainConfig
) -> None:
    table = write_table({"a": halves(1)})
    for which in ("EVN", "ODD"):
        with mrcfile.open(tmp_path / "micrographs" / f"a_{which}.mrc", "r+") as mrc:
            mrc.add_label("n2n-deploy 1.0 denoised: model 0123456789abcdef work 0123456789abcdef")
    with pytest.raises(DataError, match=r"a_EVN\.mrc: was denoised already .* --allow-denoised"):
        train(table, tmp_path / "run", tiny, naming=NAMING)
    assert train(table, tmp_path / "run", tiny, naming=NAMING, allow_denoised=True).exists()
    result = run_command(table, "-o", tmp_path / "command", *TINY, *SHORT)
    assert "was denoised already" in str(result.exception)
    assert run_command(table, "-o", tmp_path / "command", *TINY, *SHORT, "--allow-denoised").exit_code == 0
