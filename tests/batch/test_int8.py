"""int8 in a batch: one output folder is in int8 or in floating point, and label, ledger and summary say which."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from denoising_network import denoising_bundle

from n2n_deploy.batch.denoise import denoise
from n2n_deploy.batch.options import DenoiseOptions, OnExists
from n2n_deploy.batch.request import Shard
from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.core.errors import HostError
from n2n_deploy.core.options import ComputeOptions
from n2n_deploy.denoiser.denoiser import Denoiser
from n2n_deploy.device import processor
from n2n_deploy.imaging.ctf import Optics

MakeTable = Callable[..., Path]

QUIET = DenoiseOptions(report=False, engine="onnxruntime-cpu", threads=1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(denoising_bundle(tmp_path_factory.mktemp("int8")))


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], None]]:
    """Let the processor have VNNI or not."""
    if not processor.multiplies_int8():
        pytest.skip("this processor has no VNNI, so int8 would give other results")
    yield lambda vnni: monkeypatch.setattr("n2n_deploy.engines.engine.multiplies_int8", lambda: vnni)


def networks(out: Path) -> list[str]:
    """The precision of each run, by the ledger."""
    lines = [json.loads(line) for path in (out / "ledger").glob("*.jsonl") for line in path.read_text().splitlines()]
    return [line["network"]["precision"] for line in lines if "network" in line]


def label(path: Path) -> str:
    with mrcfile.open(path, header_only=True) as mrc:
        return next(text for text in mrc.get_labels() if text.startswith("n2n-deploy"))


def outputs(out: Path) -> list[Path]:
    return sorted(out.rglob("*.mrc"))


def test_label_ledger_and_summary_name_the_precision(
    bundle: Bundle, table: MakeTable, tmp_path: Path, node: Callable[[bool], None]
) -> None:
    node(True)
    source, out = table(2), tmp_path / "out"
    summary = denoise(source, bundle, out, options=QUIET)
    assert summary.denoised == 2
    assert summary.run["precision"] == json.loads((out / "summary.json").read_text())["precision"] == "int8"
    assert networks(out) == ["int8"]
    for path in outputs(out):
        assert " denoised in int8: model " in label(path)
        assert len(label(path)) <= 80
    again = denoise(source, bundle, out, options=QUIET)
    assert (again.denoised, again.already_done) == (0, 2)
    fine = denoise(source, bundle, tmp_path / "fine", options=QUIET.model_copy(update={"precision": "fp32"}))
    assert fine.run["precision"] == "fp32"
    assert " denoised in fp32: model " in label(outputs(tmp_path / "fine")[0])
    for coarse, exact in zip(outputs(out), outputs(tmp_path / "fine"), strict=True):
        first, second = mrcfile.read(coarse), mrcfile.read(exact)
        difference = float(np.std(first - second) / np.std(second))
        assert 1e-4 < difference < 0.2


def test_shards_on_different_nodes_agree(
    bundle: Bundle, table: MakeTable, tmp_path: Path, node: Callable[[bool], None]
) -> None:
    source, out = table(3), tmp_path / "out"
    node(False)
    denoise(source, bundle, out, options=QUIET, shard=Shard(1, 3))
    node(True)  # a newer node joins a folder of fp32
    denoise(source, bundle, out, options=QUIET, shard=Shard(2, 3))
    assert networks(out) == ["fp32", "fp32"]
    assert all("in fp32" in label(path) for path in outputs(out))
    assert len(outputs(out)) == 2


def test_node_without_vnni_does_not_join_a_folder_of_int8(
    bundle: Bundle, table: MakeTable, tmp_path: Path, node: Callable[[bool], None]
) -> None:
    source, out = table(2), tmp_path / "out"
    node(True)
    denoise(source, bundle, out, options=QUIET, shard=Shard(1, 2))
    node(False)
    with pytest.raises(HostError, match=r"denoised in int8, which does not work here .*--precision fp32"):
        denoise(source, bundle, out, options=QUIET, shard=Shard(2, 2))
    assert networks(out) == ["int8"]
    assert len(outputs(out)) == 1
    # Another precision is other work: it neither counts as done nor overwrites unasked.
    fine = QUIET.model_copy(update={"precision": "fp32", "on_exists": OnExists.OVERWRITE})
    assert denoise(source, bundle, out, options=fine).denoised == 2
    assert all("in fp32" in label(path) for path in outputs(out))


def test_workers_of_a_cluster_do_not_choose_int8_by_themselves(
    bundle: Bundle, table: MakeTable, tmp_path: Path, node: Callable[[bool], None]
) -> None:
    pytest.importorskip("distributed")
    node(True)
    source, out = table(1), tmp_path / "out"
    denoise(source, bundle, out, options=QUIET, cluster="local:1")
    assert networks(out) == [None]
    assert "in fp32" in label(outputs(out)[0])
    denoise(
        source, bundle, tmp_path / "int8", options=QUIET.model_copy(update={"precision": "int8"}), cluster="local:1"
    )
    assert networks(tmp_path / "int8") == ["int8"]
    assert "in int8" in label(outputs(tmp_path / "int8")[0])


def test_strong_contrast_gives_the_result_of_fp32_and_clipped_spots_a_note(
    bundle: Bundle, node: Callable[[bool], None]
) -> None:
    node(True)
    optics = Optics(2.0, 300.0, 2.7, 0.1)
    noise = np.random.default_rng(0).normal(size=(192, 192)).astype(np.float32)
    half = noise + np.where(np.arange(192) % 64 < 32, 10.0, 0.0)[:, None].astype(np.float32)  # 10 σ over half of it
    spots = noise.copy()
    spots[20::40, 20::40] = 40.0
    results, notes = {}, {}
    for precision in ("fp32", "int8"):
        compute = ComputeOptions.model_validate({"engine": "onnxruntime-cpu", "threads": 1, "precision": precision})
        with Denoiser(bundle, compute=compute) as denoiser:
            results[precision] = denoiser(half, optics)
            notes[precision] = denoiser.denoise(spots, optics).notes
    difference = np.std(results["int8"] - results["fp32"]) / np.std(results["fp32"])
    assert difference < 2 * bundle.manifest.tolerance["int8"].rms
    assert any("beyond the range of int8" in note and "--precision fp32" in note for note in notes["int8"])
    assert not any("int8" in note for note in notes["fp32"])
