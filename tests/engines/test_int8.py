"""When int8 is chosen, forced or refused, and that engines agree in it."""

from pathlib import Path

import numpy as np
import pytest
from denoising_network import denoising_bundle, noisy_pairs

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.write import extend_bundle
from n2n_deploy.core.errors import HostError
from n2n_deploy.device import processor
from n2n_deploy.engines.diagnose import diagnose_engines
from n2n_deploy.engines.select import choose_session, deviation


@pytest.fixture(scope="module")
def offering(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(denoising_bundle(tmp_path_factory.mktemp("int8")))


@pytest.fixture
def flags(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> object:
    """Give the processor other flags."""

    def give(*names: str) -> None:
        (tmp_path / "cpuinfo").write_text(f"processor: 0\nflags\t\t: fpu avx2 {' '.join(names)}\n")
        monkeypatch.setattr(processor, "_CPUINFO", tmp_path / "cpuinfo")
        for known in (processor.multiplies_bfloat16, processor.multiplies_int8):
            known.cache_clear()

    yield give
    monkeypatch.undo()
    for known in (processor.multiplies_bfloat16, processor.multiplies_int8):
        known.cache_clear()


def chosen(bundle: Bundle, **options: object) -> tuple[str, str]:
    choice = choose_session(bundle, "cpu", threads=1, **options)  # type: ignore[arg-type]
    choice.session.close()
    return choice.session.name, choice.precision


@pytest.mark.parametrize("name", ["avx512_vnni", "avx_vnni"])
def test_vnni_runs_int8_if_the_bundle_offers_it(offering: Bundle, bundle: Bundle, flags: object, name: str) -> None:
    flags(name)
    assert chosen(offering) == ("onnxruntime-cpu", "int8")
    assert chosen(offering, precision="fp32") == ("onnxruntime-cpu", "fp32")
    assert chosen(offering, choose_int8=False) == ("onnxruntime-cpu", "fp32")
    assert chosen(bundle) == ("onnxruntime-cpu", "fp32")


def test_processor_without_vnni_runs_fp32_and_refuses_int8(offering: Bundle, flags: object) -> None:
    flags("avx512f")
    assert chosen(offering) == ("onnxruntime-cpu", "fp32")
    with pytest.raises(HostError, match=r"int8 needs a processor with VNNI .*--precision fp32"):
        chosen(offering, precision="int8")


def test_bundle_without_int8_says_why(bundle: Bundle, flags: object) -> None:
    flags("avx512_vnni")
    with pytest.raises(HostError, match="offers no int8: export it again"):
        chosen(bundle, precision="int8")
    reason = extend_bundle(bundle, {}, facts={"int8_refused": "it would lose 3.0% of the recovered signal"})
    with pytest.raises(HostError, match="offers no int8: it would lose"):
        chosen(reason, precision="int8")


def test_gpus_run_no_int8(offering: Bundle, flags: object, monkeypatch: pytest.MonkeyPatch) -> None:
    flags("avx512_vnni")
    monkeypatch.setattr("n2n_deploy.engines.select._gpu_problem", lambda _: None)
    with pytest.raises(HostError, match="rtx: it runs no int8; CPUs do"):
        choose_session(offering, "gpu", precision="int8")


def test_int8_that_is_too_coarse_here_gives_way_to_fp32(offering: Bundle, flags: object, tmp_path: Path) -> None:
    flags("avx512_vnni")
    copy = tmp_path / "strict.n2n"
    copy.write_bytes(offering.path.read_bytes())
    stated = {name: each.model_dump() for name, each in offering.manifest.tolerance.items()}
    stated["int8"] = {"max": 1e-9, "rms": 1e-9}
    choice = choose_session(extend_bundle(Bundle.open(copy), {}, facts={"tolerance": stated}), "cpu", threads=1)
    choice.session.close()
    assert choice.precision == "fp32"
    assert "gives other results" in choice.rejected_engines["onnxruntime-cpu in int8"]


def test_diagnosis_names_int8(offering: Bundle, bundle: Bundle, flags: object) -> None:
    flags("avx512_vnni")
    for each, precision in ((offering, "int8"), (bundle, "fp32")):
        (said,) = (found.message for found in diagnose_engines(each) if found.engine == "onnxruntime-cpu")
        assert f"in {precision} with ONNX Runtime" in said


def test_engines_agree_on_an_image_like_a_micrograph(offering: Bundle) -> None:
    if not processor.multiplies_int8():
        pytest.skip("this processor has no VNNI")
    pytest.importorskip("onnxruntime_ep_openvino")
    image = noisy_pairs(1, 256, seed=7)[:, :1]
    outputs = {}
    for engine in ("openvino", "onnxruntime-cpu"):
        for precision in ("fp32", "int8"):
            with choose_session(offering, "cpu", 2, engine=engine, precision=precision).session as session:  # type: ignore[arg-type]
                outputs[engine, precision] = np.asarray(session.run(image))
    exact = outputs["onnxruntime-cpu", "fp32"]
    for engine in ("openvino", "onnxruntime-cpu"):
        found = deviation(outputs[engine, "int8"], exact)
        assert found.rms < offering.manifest.tolerance["int8"].rms
        assert found.rms > 10 * deviation(outputs[engine, "fp32"], exact).rms
