"""`n2n-deploy compile`: real engines in a bundle, their facts in its manifest, and invalid options."""

import json
import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.members import SIGNATURE, engine_member
from n2n_deploy.bundle.write import extend_bundle
from n2n_deploy.cli import main
from n2n_deploy.export import export_bundle
from n2n_deploy.imaging.fourier import network_shape


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_bundle(checkpoint, tmp_path_factory.mktemp("export") / "model.n2n")


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Bundle:
    """A copy of the exported bundle, for one test to change."""
    return Bundle.open(shutil.copy(exported, tmp_path))


@pytest.fixture
def rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed (extra rtx)")


@pytest.mark.usefixtures("rtx")
def test_compiled_engines_are_added_to_the_bundle(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    extend_bundle(bundle, {SIGNATURE: b"an old signature"})
    options = ("--precision", "fp16,bf16", "--compute-capability", "8.6,12.0", "--json")
    code = run("compile", bundle.path, "--target", "rtx", "--sizes", "1440x1023", "--pixel-size", 0.83, *options)
    answer = json.loads(capsys.readouterr().out)
    assert code == 0
    after = Bundle.open(bundle.path)
    after.verify_members()
    assert [engine["key"] for engine in answer] == list(after.manifest.engines)
    assert after.signature is None
    assert after.short_hash == bundle.short_hash
    assert "model.bf16.onnx" in after.manifest.members
    assert after.manifest.tolerance["bf16"].max > after.manifest.tolerance["fp16"].max
    for key, facts in after.manifest.engines.items():
        assert after.read(engine_member(key))[:4] == b"vtrt"
        assert facts.key == key
        assert facts.profiles[0].optimum[2:] == network_shape((1023, 1440), 0.83, 8.0)
        assert facts.compute_capabilities == ("8.6", "12.0")


@pytest.mark.usefixtures("rtx")
def test_compiling_again_replaces_an_engine_and_keeps_the_others(bundle: Bundle) -> None:
    common = ("compile", bundle.path, "--target", "rtx", "--tile")
    assert run(*common, "256x256", "--precision", "fp16", "--compute-capability", "8.6") == 0
    assert run(*common, "256x256", "--precision", "fp32", "--compute-capability", "8.6") == 0
    assert run(*common, "384x256", "--precision", "fp16", "--compute-capability", "8.6") == 0
    engines = Bundle.open(bundle.path).manifest.engines
    assert sorted(facts.precision for facts in engines.values()) == ["fp16", "fp32"]
    (half,) = (facts for facts in engines.values() if facts.precision == "fp16")
    assert half.profiles[0].maximum == (1, 1, 256, 384)


@pytest.mark.usefixtures("rtx")
def test_sizes_are_read_from_a_table(bundle: Bundle, tmp_path: Path) -> None:
    with mrcfile.new(tmp_path / "one.mrc") as file:
        file.set_data(np.zeros((600, 901), np.float32))
    (tmp_path / "micrographs.star").write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnMicrographPixelSize #2\n1 1.35\n\n"
        "data_micrographs\n\nloop_\n_rlnMicrographName #1\n_rlnOpticsGroup #2\none.mrc 1\n"
    )
    code = run(
        "compile", bundle.path, "--target", "rtx", "--star", tmp_path / "micrographs.star",
        "--compute-capability", "8.9",
    )  # fmt: skip
    assert code == 0
    (facts,) = Bundle.open(bundle.path).manifest.engines.values()
    assert facts.profiles[0].maximum[2:] == network_shape((600, 901), 1.35, 8.0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--target", "cuda", "--tile", "256x256"], "choose tensorrt or rtx"),
        (["--target", "rtx"], "give exactly one of --sizes"),
        (["--target", "rtx", "--sizes", "512x512"], "--sizes needs --pixel-size"),
        (["--target", "rtx", "--tile", "256"], "write width x height"),
        (["--target", "rtx", "--tile", "250x256"], "multiples of 8"),
        (["--target", "rtx", "--tile", "256x256", "--precision", "int8"], "choose fp32, fp16 or bf16"),
        (["--target", "tensorrt", "--tile", "256x256", "--compute-capability", "8.6"], "for --target rtx"),
        (["--target", "rtx", "--tile", "65536x65536"], "--tile"),
    ],
)
def test_invalid_options_leave_the_bundle_unchanged(
    bundle: Bundle, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    before = bundle.path.read_bytes()
    assert run("compile", bundle.path, *options) == 2
    assert says in capsys.readouterr().err
    assert bundle.path.read_bytes() == before
