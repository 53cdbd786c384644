"""Engine, precision, GPUs and trusted keys: an option is followed, or refused with a reason."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from n2n_deploy.batch import cluster_worker
from n2n_deploy.batch.options import DenoiseOptions
from n2n_deploy.cli import main
from n2n_deploy.device.gpus import GPU, driver, parse_gpus

from .conftest import MakeBundle, MakeTable


@pytest.fixture
def run(identity_bundle: MakeBundle, table: MakeTable, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Denoise one micrograph with some options; give the exit code and what was said."""
    command = ["denoise", str(table(1)), str(identity_bundle()), "-o", str(tmp_path / "out"), "--no-report"]

    def call(*options: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main([*command, *options])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), " ".join((printed.out + printed.err).split())

    return call


def test_named_engine_runs(run: Any, tmp_path: Path) -> None:
    code, said = run("--engine", "onnxruntime-cpu", "--precision", "fp32")
    assert code == 0, said
    assert '"session": "onnxruntime-cpu"' in (tmp_path / "out" / "summary.json").read_text()
    assert 'precision = "fp32"' in (tmp_path / "out" / "config.toml").read_text()


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        (["--device", "magic"], 2, "invalid device 'magic'"),
        (["--engine", "magic"], 2, "invalid engine 'magic'"),
        (["--engine", "tensorrt", "--device", "cpu"], 2, "does not run on device cpu"),
        (["--precision", "fp8"], 2, "invalid --precision fp8: expected 'fp32', 'fp16', 'bf16' or 'int8'"),
        (["--precision", "fp16", "--device", "cpu"], 3, "ONNX Runtime's own kernels run the network in fp32 or int8"),
        (["--gpus", "0,1", "--device", "cpu"], 2, "exclude each other"),
        (["--gpus", "0,0"], 2, "named twice"),
        (["--gpus", "first"], 2, "give GPU numbers"),
        (["--trusted-keys", "nowhere"], 3, "nowhere"),
    ],
)
def test_impossible_options_are_refused_in_one_line(
    run: Any, options: list[str], code: int, reason: str, tmp_path: Path
) -> None:
    found, said = run(*options)
    assert (found, reason in said) == (code, True), said
    assert code == 3 or not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "there", "cores", "lanes"),
    [
        ({}, 0, 64, 2),
        ({"device": "cpu"}, 4, 64, 2),
        ({}, 1, 16, 8),
        ({"gpus": (0, 1)}, 2, 16, 4),
        ({"gpus": (0, 1)}, 2, 4, 2),
        ({"lanes": 3}, 1, 64, 3),
    ],
)
def test_lanes_suit_the_machine(
    given: dict[str, Any], there: int, cores: int, lanes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("n2n_deploy.batch.options.gpus", lambda: (GPU(0, "H200", "9.0", 1),) * there)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    assert DenoiseOptions(**given).lanes_here == lanes


@pytest.mark.skipif(driver().problem is None, reason="this machine has a GPU")
@pytest.mark.parametrize(
    "options", [["--engine", "tensorrt"], ["--gpus", "0,1"], ["--gpus", "all"], ["--device", "gpu"]]
)
def test_no_fallback_if_a_gpu_was_asked_for(run: Any, tmp_path: Path, options: list[str]) -> None:
    code, said = run(*options)
    assert code == 3
    assert driver().problem in said
    assert not list((tmp_path / "out").rglob("*.mrc"))


def test_bundle_without_a_trusted_signature_is_refused(run: Any, tmp_path: Path) -> None:
    pytest.importorskip("cryptography", reason="cryptography is not installed (extra sign)")
    from n2n_deploy.bundle.trust import generate_key

    public = generate_key(tmp_path / "facility.key")
    code, said = run("--trusted-keys", str(public))
    assert code == 1
    assert "sign" in said
    assert not list((tmp_path / "out").rglob("*.mrc"))


def test_precision_changes_the_work_hash_and_the_engine_does_not() -> None:
    plain = DenoiseOptions().output_hash
    assert DenoiseOptions(precision="bf16").output_hash != plain
    assert DenoiseOptions(engine="rtx", gpus=(0, 1), trusted_keys=Path("keys")).output_hash == plain


def test_cluster_workers_share_the_named_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    found = tuple(GPU(index, "a GPU", "9.0", 1) for index in range(3))
    monkeypatch.setattr(cluster_worker, "gpus", lambda: found)

    def devices(**options: Any) -> list[str]:
        return [cluster_worker.device_of_worker(DenoiseOptions(**options), worker) for worker in range(4)]

    assert devices() == ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]
    assert devices(gpus=(2, 1)) == ["cuda:2", "cuda:1", "cuda:2", "cuda:1"]
    assert devices(device="cuda:1") == ["cuda:1"] * 4
    assert devices(device="cpu") == ["cpu"] * 4
    monkeypatch.setattr(cluster_worker, "gpus", tuple)
    assert devices() == ["auto"] * 4


def test_gpus_are_named_by_number() -> None:
    assert parse_gpus("0, 2") == (0, 2)
    assert DenoiseOptions(gpus=(0, 2)).devices == ("cuda:0", "cuda:2")
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        DenoiseOptions(gpus=(-1,))
