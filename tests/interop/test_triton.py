"""Triton: its own parser reads our model configurations, and its own server denoises as we do."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bundle_builder import general_stand_in, one_layer, one_layer_bundle

from n2n_deploy import Bundle, CTFParameters, Denoiser, Optics, UsageError
from n2n_deploy.interop.triton_repository import write_repository

model_config = pytest.importorskip(
    "tritonclient.grpc.model_config_pb2", reason="tritonclient is not installed (pip install 'tritonclient[grpc]')"
)
grpc = pytest.importorskip("tritonclient.grpc")
text_format = pytest.importorskip("google.protobuf.text_format")

OPTICS, FIT = Optics(2.0, 300, 2.7, 0.1), CTFParameters(15000, 14000, 30, 0)

ONNX_MODEL = """
import numpy, onnxruntime, triton_python_backend_utils as backend
class TritonPythonModel:
    def initialize(self, args):
        folder = f"{args['model_repository']}/{args['model_version']}"
        self.session = onnxruntime.InferenceSession(f"{folder}/model.onnx", providers=["CPUExecutionProvider"])
    def execute(self, requests):
        return [self.respond(backend.get_input_tensor_by_name(request, "image")) for request in requests]
    def respond(self, tensor):
        image = numpy.from_dlpack(tensor)
        if image.shape[-1] > 64:
            return backend.InferenceResponse([], backend.TritonError("Failed to allocate memory"))
        (output,) = self.session.run(None, {"image": image})
        return backend.InferenceResponse([backend.Tensor.from_dlpack("denoised", output)])
"""
"""ONNX Runtime's place in a server that has the Python backend alone; large images run out of its memory."""


def read_config(model: Path) -> Any:
    """A model's configuration as Triton reads it."""
    return text_format.Parse((model / "config.pbtxt").read_text(), model_config.ModelConfig())


def blur_bundle(path: Path, **recipe: Any) -> Path:
    """A network that sees its neighbourhood, so that tiles must overlap rightly."""
    profile = np.exp(-0.5 * (np.arange(-4, 5) / 1.2) ** 2)
    network = one_layer("Conv", np.outer(profile, profile) / profile.sum() ** 2, pads=[4, 4, 4, 4])
    return one_layer_bundle(path, network, halo=8, **recipe)


@pytest.mark.parametrize("device", ["gpu", "cpu"])
def test_triton_parses_the_configurations(tmp_path: Path, device: Any) -> None:
    bundle = Bundle.open(blur_bundle(tmp_path / "model.n2n", phase_flip=True))
    folder, version = write_repository(bundle, tmp_path / "repository", name="particles", device=device, instances=3)
    front, network = read_config(folder), read_config(tmp_path / "repository" / "particles_network")
    assert (front.name, front.backend, front.instance_group[0].count) == ("particles", "python", 3)
    assert {each.name: list(each.dims) for each in front.input} == {"MICROGRAPH": [-1, -1], "OPTICS": [4], "CTF": [4]}
    assert front.parameters["network"].string_value == network.name == "particles_network"
    assert network.backend == "onnxruntime"
    assert network.version_policy.latest.num_versions == 2
    path = tmp_path / "repository" / network.name / str(version) / network.default_model_filename
    graph = onnx.load(path).graph
    for tensors, declared in ((graph.input, network.input), (graph.output, network.output)):
        (tensor,), (entry,) = tensors, declared
        axes = [axis.dim_value or -1 for axis in tensor.type.tensor_type.shape.dim]
        assert (tensor.name, axes) == (entry.name, list(entry.dims))
        assert entry.data_type == model_config.TYPE_FP32
    accelerators = network.optimization.execution_accelerators.gpu_execution_accelerator
    if device == "gpu":
        (accelerator,) = accelerators
        assert (accelerator.name, accelerator.parameters["precision_mode"]) == ("tensorrt", "FP16")
        assert path.read_bytes() == bundle.onnx("fp16")
        assert network.instance_group[0].kind == model_config.ModelInstanceGroup.KIND_GPU
    else:
        assert not accelerators
        assert path.read_bytes() == bundle.onnx("fp32")
        assert network.instance_group[0].kind == model_config.ModelInstanceGroup.KIND_CPU


def test_exporting_again_adds_a_version_of_both(tmp_path: Path) -> None:
    bundle = Bundle.open(one_layer_bundle(tmp_path / "model.n2n"))
    assert [write_repository(bundle, tmp_path / "repository")[1] for _ in range(2)] == [1, 2]
    for model in ("denoise", "denoise_network"):
        assert {path.name for path in (tmp_path / "repository" / model).iterdir()} == {"config.pbtxt", "1", "2"}
    assert [each.name for each in read_config(tmp_path / "repository" / "denoise").input] == ["MICROGRAPH", "OPTICS"]


def test_a_network_for_either_phase_takes_micrographs_without_a_ctf(tmp_path: Path) -> None:
    bundle = Bundle.open(general_stand_in(tmp_path / "model.n2n"))
    config = read_config(write_repository(bundle, tmp_path)[0])
    assert {each.name: each.optional for each in config.input} == {"MICROGRAPH": False, "OPTICS": False, "CTF": True}


def test_wrong_names_and_precisions_are_refused(tmp_path: Path) -> None:
    bundle = Bundle.open(one_layer_bundle(tmp_path / "model.n2n"))
    with pytest.raises(UsageError, match="--name 'a/b'"):
        write_repository(bundle, tmp_path, name="a/b")
    with pytest.raises(UsageError, match="int8 is for CPUs"):
        write_repository(bundle, tmp_path, precision="int8")


def free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Triton's server with its Python backend, as nvidia-pytriton brings it; the folder."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("Triton's server is not installed (pip install --no-deps nvidia-pytriton)")
    source = Path(spec.submodule_search_locations[0]) / "tritonserver"
    folder = tmp_path_factory.mktemp("triton")
    shutil.copytree(source / "backends", folder / "backends")
    stub = folder / "backends" / "python" / "triton_python_backend_stub"
    shutil.copy(source / "python_backend_stubs" / f"3.{sys.version_info.minor}" / stub.name, stub)
    (folder / "tritonserver").symlink_to(source / "bin" / "tritonserver")
    for program in (stub, source / "bin" / "tritonserver"):
        program.chmod(0o755)
    libraries = source.parents[1] / "nvidia_pytriton.libs"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(libraries)}
    needs = subprocess.run(["ldd", stub], capture_output=True, text=True, check=False, env=environment).stdout
    if "not found" in needs:
        pytest.skip(f"the Python backend of Triton cannot start here (Debian: apt-get install libpython3-dev): {needs}")
    return folder


@pytest.fixture(scope="module")
def client(triton: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of a server with three models; their networks run in a stand-in for the ONNX Runtime backend."""
    folder = tmp_path_factory.mktemp("repository")
    bundle = Bundle.open(blur_bundle(folder / "model.n2n", phase_flip=True, max_resolution=8.0))
    repository = folder / "models"
    for name in ("denoise", "back", "altered"):
        write_repository(bundle, repository, name=name, device="cpu", instances=1)
        network = repository / f"{name}_network"
        text = (network / "config.pbtxt").read_text()
        text = text.replace('"onnxruntime"', '"python"').replace('default_model_filename: "model.onnx"\n', "")
        (network / "config.pbtxt").write_text(text)
        (network / "1" / "model.py").write_text(ONNX_MODEL)
    shutil.rmtree(repository / "back_network")
    back = repository / "back" / "config.pbtxt"
    text = back.read_text().replace("back_network", "denoise_network")
    text = text.replace('"flip_back" value: { string_value: "false"', '"flip_back" value: { string_value: "true"')
    back.write_text(text + 'parameters { key: "output_pixel_size" value: { string_value: "3" } }\n')
    (repository / "altered_network" / "1" / "model.onnx").write_bytes(one_layer("Neg"))
    ports = [free_port() for _ in range(2)]
    log = (folder / "log").open("w")
    command = [triton / "tritonserver", "--model-repository", repository, "--backend-directory", triton / "backends"]
    command += ["--http-port", ports[0], "--grpc-port", ports[1], "--allow-metrics", "false"]
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": str((triton / "tritonserver").resolve().parents[3] / "nvidia_pytriton.libs"),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parents[2]), *filter(None, sys.path)]),
        # The server's Python finds its libraries beside the first python3 of the path, this environment's.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }
    server = subprocess.Popen([str(each) for each in command], stdout=log, stderr=subprocess.STDOUT, env=environment)
    with grpc.InferenceServerClient(f"127.0.0.1:{ports[1]}") as found:
        try:
            for _ in range(1200):
                try:
                    if found.is_server_ready():
                        break
                except grpc.InferenceServerException:
                    assert server.poll() is None, (folder / "log").read_text()
                time.sleep(0.1)
            assert found.is_server_ready(), (folder / "log").read_text()
            yield found
        finally:
            server.terminate()
            server.wait(60)
            log.close()


def ask(client: Any, model: str, image: np.ndarray) -> Any:
    """Send a micrograph; the server's answer."""
    tensors = {
        "MICROGRAPH": image.astype(np.float32),
        "OPTICS": np.array([OPTICS.pixel_size, OPTICS.voltage, OPTICS.spherical_aberration, OPTICS.amplitude_contrast]),
        "CTF": np.array([FIT.defocus_u, FIT.defocus_v, FIT.defocus_angle, FIT.phase_shift], float),
    }
    inputs = []
    for name, array in tensors.items():
        inputs.append(grpc.InferInput(name, array.shape, "FP32" if name == "MICROGRAPH" else "FP64"))
        inputs[-1].set_data_from_numpy(array)
    return client.infer(model, inputs)


def micrograph(shape: tuple[int, int]) -> np.ndarray:
    return 100 + 5 * np.random.default_rng(7).normal(size=shape)


@pytest.mark.parametrize("shape", [(120, 126), (201, 333)], ids=["whole", "in tiles, for want of memory"])
def test_the_server_denoises_as_we_do(client: Any, tmp_path: Path, shape: tuple[int, int]) -> None:
    image = micrograph(shape)
    image[5, 5] = np.nan
    answer = ask(client, "denoise", image)
    expected = Denoiser(blur_bundle(tmp_path / "model.n2n", phase_flip=True, max_resolution=8.0)).denoise(
        image.astype(np.float32), OPTICS, FIT
    )
    np.testing.assert_allclose(answer.as_numpy("DENOISED"), expected.image, rtol=1e-4, atol=1e-3)
    notes = answer.as_numpy("NOTES").tobytes().decode().splitlines()
    assert expected.notes[0] in notes
    assert any("out of memory with tiles" in note for note in notes) == (shape[1] > 300)
    assert answer.as_numpy("PIXEL_SIZE")[0] == OPTICS.pixel_size


def test_parameters_of_the_configuration_are_options(client: Any, tmp_path: Path) -> None:
    image = micrograph((96, 120))
    bundle = blur_bundle(tmp_path / "model.n2n", phase_flip=True, max_resolution=8.0)
    expected = Denoiser(bundle, flip_back=True, output_pixel_size=3.0).denoise(image.astype(np.float32), OPTICS, FIT)
    answer = ask(client, "back", image)
    np.testing.assert_allclose(answer.as_numpy("DENOISED"), expected.image, rtol=1e-4, atol=1e-3)
    assert answer.as_numpy("PIXEL_SIZE")[0] == pytest.approx(expected.pixel_size)
    assert not expected.notes
    assert not answer.as_numpy("NOTES").size


def test_one_micrograph_without_signal_is_an_error_and_the_server_goes_on(client: Any) -> None:
    with pytest.raises(grpc.InferenceServerException, match="no signal|constant"):
        ask(client, "denoise", np.ones((96, 120)))
    assert ask(client, "denoise", micrograph((96, 120))).as_numpy("DENOISED").shape == (96, 120)


def test_another_network_than_the_bundles_denoises_nothing(client: Any) -> None:
    with pytest.raises(grpc.InferenceServerException, match="other results than PyTorch gave at export"):
        ask(client, "altered", micrograph((96, 120)))
