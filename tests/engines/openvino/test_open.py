"""When OpenVINO is chosen, and when ONNX Runtime's own kernels are."""

import pytest

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.write import extend_bundle
from n2n_deploy.core.errors import BundleError
from n2n_deploy.engines.select import choose_session


@pytest.mark.usefixtures("plugin")
def test_openvino_is_chosen_only_if_it_is_much_faster(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(**options: object) -> tuple[str, str]:
        choice = choose_session(bundle, "cpu", threads=2, **options)  # type: ignore[arg-type]
        choice.session.close()
        return choice.session.name, choice.precision

    monkeypatch.setattr("n2n_deploy.engines.openvino.open.multiplies_bfloat16", lambda: False)
    assert chosen() == ("onnxruntime-cpu", "fp32")
    assert chosen(engine="openvino") == ("openvino", "fp32")
    monkeypatch.setattr("n2n_deploy.engines.openvino.open.multiplies_bfloat16", lambda: True)
    assert chosen() == ("openvino", "bf16")
    assert chosen(engine="openvino", precision="fp32") == ("openvino", "fp32")
    assert chosen(engine="onnxruntime-cpu") == ("onnxruntime-cpu", "fp32")
    assert chosen(precision="fp32") == ("onnxruntime-cpu", "fp32")


@pytest.mark.usefixtures("plugin")
def test_network_runs_in_fp32_if_bfloat16_is_too_coarse(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("n2n_deploy.engines.openvino.open.multiplies_bfloat16", lambda: True)
    stated = {name: each.model_dump() for name, each in bundle.manifest.tolerance.items()}
    stated["bf16"] = {"max": 1e-9, "rms": 1e-9}
    strict = extend_bundle(bundle, {}, facts={"tolerance": stated})
    choice = choose_session(strict, "cpu", threads=2)
    choice.session.close()
    assert (choice.session.name, choice.precision) == ("onnxruntime-cpu", "fp32")
    assert "gives other results" in choice.rejected_engines["openvino"]
    with pytest.raises(BundleError, match="gives other results .* try another --engine"):
        choose_session(strict, "cpu", engine="openvino", precision="bf16")


@pytest.mark.usefixtures("plugin")
def test_bundle_without_a_tolerance_for_bf16_runs_in_fp32(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("n2n_deploy.engines.openvino.open.multiplies_bfloat16", lambda: True)
    stated = {name: each.model_dump() for name, each in bundle.manifest.tolerance.items() if name != "bf16"}
    choice = choose_session(extend_bundle(bundle, {}, facts={"tolerance": stated}), "cpu", threads=2)
    choice.session.close()
    assert choice.session.name == "onnxruntime-cpu"
    assert "no tolerance for bf16; export it again" in choice.rejected_engines["openvino"]
