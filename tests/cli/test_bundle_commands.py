"""`export`, `inspect` and `verify` as a user runs them: what they print and the codes they end with."""

import hashlib
import json
from pathlib import Path

from n2n_deploy.bundle.archive import Bundle

from .conftest import Run


def test_inspect_prints_what_the_bundle_says(exported: Path, run: Run) -> None:
    code, text, _ = run("inspect", exported)
    bundle = Bundle.open(exported)
    assert code == 0
    for fact in (bundle.short_hash, "small", "4.5 Å", "model.fp16.onnx", str(bundle.manifest.halo), "training: loss"):
        assert fact in text


def test_inspect_as_json_has_hashes_that_hold(exported: Path, run: Run) -> None:
    code, text, _ = run("inspect", exported, "--json")
    told = json.loads(text)
    assert code == 0
    assert told["recipe"]["max_resolution"] == 4.5
    assert not told["signed"]
    content = Bundle.open(exported).onnx("fp32")
    assert told["manifest"]["members"]["model.fp32.onnx"]["sha256"] == hashlib.sha256(content).hexdigest()


def test_verify_runs_the_golden_vectors(exported: Path, run: Run) -> None:
    code, text, _ = run("verify", exported, "--threads", 1, "--engine", "onnxruntime-cpu", "--json")
    told = json.loads(text)
    assert code == 0
    assert (told["session"], told["precision"]) == ("onnxruntime-cpu", "fp32")
    assert 0 < told["deviation"]["max"] < told["tolerance"]["max"]
    code, text, _ = run("verify", exported, "--threads", 1)
    assert code == 0
    assert "intact" in text


def test_verify_finds_damage_in_a_member_not_used_on_this_machine(exported: Path, run: Run, tmp_path: Path) -> None:
    content = bytearray(exported.read_bytes())
    content[content.index(b"model.fp16.onnx", 5000) + 1000] ^= 4
    damaged = tmp_path / "damaged.n2n"
    damaged.write_bytes(content)
    code, text, error = run("verify", damaged, "--threads", 1)
    assert code == 1
    assert text == ""
    assert "model.fp16.onnx" in error
    assert len(error.strip().splitlines()) == 1


def test_errors_are_one_line_with_an_exit_code(exported: Path, run: Run, tmp_path: Path) -> None:
    for code, arguments in [
        (1, ("inspect", tmp_path / "nowhere.n2n")),
        (1, ("verify", exported.with_name("model.pt"))),
        (1, ("export", tmp_path / "nowhere.pt", "-o", tmp_path / "model.n2n")),
        (2, ("verify", exported, "--device", "tpu")),
    ]:
        found, _, error = run(*arguments)
        assert found == code, error
        assert len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
