"""A model that takes a range of resolutions, and phases flipped or not: what is chosen, and where it is noted.

The network is the identity, so the output is the band-passed input, flipped or not.
"""

import json
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from bundle_builder import general_stand_in

import n2n_deploy
from n2n_deploy import data
from n2n_deploy.batch.denoise import denoise
from n2n_deploy.batch.options import DenoiseOptions
from n2n_deploy.batch.request import Request
from n2n_deploy.batch.watch import watch
from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.io.mrc import read_header

from .conftest import MakeBundle, MakeTable, ledger, listed

PLAIN = DenoiseOptions(report=False, device="cpu", lanes=1)


@pytest.fixture(autouse=True)
def general(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small bundle in the place of the general model."""
    path = general_stand_in(tmp_path / "stand-in.n2n")
    monkeypatch.setattr(data, "GENERAL_MODEL", path)
    return path


def first_line(out: Path) -> dict[str, object]:
    (path,) = (out / "ledger").glob("*.jsonl")
    header: dict[str, object] = json.loads(path.read_text().splitlines()[0])
    return header


def images(out: Path) -> list[np.ndarray]:
    return [mrcfile.read(path) for path in sorted(out.rglob("*.mrc"))]


def label(out: Path) -> str:
    return read_header(sorted(out.rglob("*.mrc"))[0]).labels[-1]


def test_a_table_with_ctfs_is_flipped_and_files_are_not(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source, files = table(2), str(tmp_path / "job" / "mics" / "*.mrc")
    for what, given, flips in (("table", source, True), ("files", files, False)):
        summary = n2n_deploy.denoise(given, output=tmp_path / what, options=PLAIN)
        assert (summary.denoised, summary.phases_flipped) == (2, flips)
        fixed = identity_bundle(f"{what}.n2n", phase_flip=flips)
        denoise(given, fixed, tmp_path / f"{what}-fixed", options=PLAIN)
        np.testing.assert_array_equal(images(tmp_path / what), images(tmp_path / f"{what}-fixed"))
        assert first_line(tmp_path / what)["recipe"]["phase_flip"] is flips  # type: ignore[index]


def test_a_table_without_ctfs_is_not_flipped(table: MakeTable, tmp_path: Path) -> None:
    source = table(2)
    source.write_text(source.read_text().replace("_rlnDefocusU", "_rlnOther"))
    summary = denoise(source, output=tmp_path / "out", options=PLAIN)
    assert (summary.denoised, summary.phases_flipped) == (2, False)


def test_a_table_that_is_awaited_is_expected_to_have_ctfs(table: MakeTable, tmp_path: Path) -> None:
    source, out = table(1), tmp_path / "out"
    later = source.rename(tmp_path / "later")
    request = Request.open(source, "general", out, PLAIN)
    later.rename(source)
    summary = watch(request, interval=0.1, idle=0.3)
    assert (summary.denoised, summary.phases_flipped) == (1, True)


def test_a_table_that_is_not_there_is_an_error_without_watching(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.star"):
        denoise(tmp_path / "no.star", output=tmp_path / "out", options=PLAIN)


@pytest.mark.parametrize("failed", ["15000.5", "15001.5"])
def test_a_row_without_its_ctf_is_refused_not_mixed_in(failed: str, table: MakeTable, tmp_path: Path) -> None:
    source = table(2)
    source.write_text(source.read_text().replace(failed, "nan"))
    summary = denoise(source, output=tmp_path / "out", options=PLAIN)
    (reason,) = summary.failures.values()
    assert (summary.denoised, summary.phases_flipped) == (1, True)
    assert "rlnDefocusU is nan" in reason
    # Nor on its own, when the failed rows are given again.
    again = denoise(tmp_path / "out" / "failed.star", output=tmp_path / "out", options=PLAIN)
    assert (again.denoised, len(again.failures)) == (0, 1)


def test_the_resolution_is_part_of_the_work(table: MakeTable, tmp_path: Path) -> None:
    source, out = table(1), tmp_path / "out"
    finer = PLAIN.model_copy(update={"max_resolution": 5.0})
    own = PLAIN.model_copy(update={"max_resolution": 8.0})
    denoise(source, "general", out, options=PLAIN)
    assert first_line(out)["recipe"]["max_resolution"] == 8.0  # type: ignore[index]
    assert denoise(source, "general", out, options=own).already_done == 1, "the model's own resolution, named"
    with pytest.raises(UsageError, match="1 outputs already exist and were not made by this model with these options"):
        denoise(source, "general", out, options=finer)
    denoise(source, "general", tmp_path / "finer", options=finer)
    assert first_line(tmp_path / "finer")["recipe"]["max_resolution"] == 5.0  # type: ignore[index]
    assert label(out).rpartition(" work ")[0] == label(tmp_path / "finer").rpartition(" work ")[0]
    lines = [json.loads(line) for path in (out / "ledger").glob("*.jsonl") for line in path.read_text().splitlines()]
    (network,) = (line["network"] for line in lines if "network" in line)
    assert network["work"].endswith(" 8 Å flipped")
    assert [line["status"] for line in ledger(out)] == ["denoised"]


@pytest.mark.parametrize(
    ("bundle", "resolution", "words"),
    [("general", 3.0, "was trained for 4 to 12 Å, not for"), ("fixed", 6.0, "fixed.n2n: was trained for 8 Å alone")],
)
def test_another_resolution_is_refused_before_anything_is_written(
    bundle: str, resolution: float, words: str, table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    model = identity_bundle("fixed.n2n") if bundle == "fixed" else bundle
    with pytest.raises(UsageError, match=words):
        denoise(table(1), model, tmp_path / "out", options=DenoiseOptions(max_resolution=resolution))
    assert not (tmp_path / "out").exists()


def test_inverted_contrast_is_other_work(table: MakeTable, tmp_path: Path) -> None:
    source = table(1)
    inverted = PLAIN.model_copy(update={"invert": True})
    denoise(source, "general", tmp_path / "plain", options=PLAIN)
    denoise(source, "general", tmp_path / "inverted", options=inverted)
    assert label(tmp_path / "plain") != label(tmp_path / "inverted")
    # The identity has no preference: what was inverted for it is inverted back.
    np.testing.assert_allclose(images(tmp_path / "plain"), images(tmp_path / "inverted"), rtol=1e-5)


def test_workers_of_a_cluster_follow_the_choice(table: MakeTable, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    source, options = table(1), PLAIN.model_copy(update={"max_resolution": 5.0})
    files = str(source.parent / "job" / "mics" / "*.mrc")
    denoise(files, "general", tmp_path / "here", options=options)
    denoise(files, "general", tmp_path / "there", options=options, cluster="local:1")
    np.testing.assert_array_equal(images(tmp_path / "here"), images(tmp_path / "there"))


def test_the_default_folder_is_in_the_current_one(
    table: MakeTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = table(1)
    monkeypatch.chdir(tmp_path)
    n2n_deploy.denoise(source, options=PLAIN)
    assert listed(tmp_path / "Denoised" / "denoised.star") == ["m0.mrc"]
