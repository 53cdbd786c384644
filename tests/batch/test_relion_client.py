"""What a user does next: RELION reads the table of denoised micrographs, extracts particles from them, and picks."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import onnx
import pytest
import starfile
from onnx import TensorProto, helper, numpy_helper
from scipy.ndimage import correlate
from scipy.spatial import cKDTree

from n2n_deploy import DenoiseOptions, denoise
from n2n_deploy.bundle.manifest import Deviation, Manifest
from n2n_deploy.bundle.write import write_bundle
from n2n_deploy.core.options import NamingOptions
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.simulate import simulate

PIXEL_SIZE, BOX = 3.0, 64
SHAPE = (700, 640)

Relion = Callable[..., str]


def _blur_bundle(path: Path) -> Path:
    """A network of one convolution with a Gaussian: it denoises, and what it does is known."""
    profile = np.exp(-0.5 * (np.arange(-4, 5) / 1.2) ** 2)
    kernel = (np.outer(profile, profile) / profile.sum() ** 2).astype(np.float32)
    axes = ["n", 1, "height", "width"]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "kernel"], ["denoised"], pads=[4, 4, 4, 4])],
        "blur",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info("denoised", TensorProto.FLOAT, axes)],
        [numpy_helper.from_array(kernel[None, None], "kernel")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"bytes_per_pixel": "8"})
    onnx.checker.check_model(model, full_check=True)
    patch = np.random.default_rng(0).normal(size=(48, 48)).astype(np.float32)
    golden = io.BytesIO()
    np.savez(golden, inputs=patch[None, None], outputs=correlate(patch, kernel, mode="constant")[None, None])
    tight = Deviation(max=1e-4, rms=1e-5)
    content = model.SerializeToString()
    members = {"model.fp32.onnx": content, "model.fp16.onnx": content, "golden.npz": golden.getvalue()}
    write_bundle(
        path,
        Manifest(preset="small", halo=8, tolerance={"fp32": tight, "fp16": tight}),
        Recipe(max_resolution=14.0),
        members,
    )
    return path


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RELION project folder with simulated micrographs, denoised into Denoise/job001."""
    if shutil.which("relion_autopick") is None:
        pytest.skip("RELION is not installed (Debian: apt-get install relion)")
    folder = tmp_path_factory.mktemp("project")
    star = simulate(folder, 2, SHAPE, PIXEL_SIZE, seed=5, dose=60)
    model = _blur_bundle(folder / "model.n2n")
    options = DenoiseOptions(report=False)
    summary = denoise(star, model, folder / "Denoise" / "job001", naming=NamingOptions(project=folder), options=options)
    assert summary.exit_code == 0
    return folder


def _table(project: Path) -> str:
    return str((project / "Denoise" / "job001" / "denoised.star").relative_to(project))


def _truth(project: Path) -> dict[str, np.ndarray]:
    """True positions (x, y) in pixels, by the stem of the micrograph."""
    particles = starfile.read(project / "truth" / "particles.star")["particles"]
    columns = ["rlnCoordinateX", "rlnCoordinateY"]
    return {Path(name).stem: group[columns].to_numpy() for name, group in particles.groupby("rlnMicrographName")}


def test_relion_reads_every_column(project: Path, relion: Relion) -> None:
    relion("relion_star_handler", "--i", _table(project), "--o", "copy.star", cwd=project)
    before, after = starfile.read(project / "micrographs.star"), starfile.read(project / "copy.star")
    for label in ("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnMicrographNameEven"):
        assert list(before["micrographs"][label]) == list(after["micrographs"][label])
    assert list(after["optics"]["rlnCtfDataArePhaseFlipped"]) == [1]
    assert all((project / name).is_file() for name in after["micrographs"]["rlnMicrographName"])


def test_relion_extracts_the_denoised_pixels(project: Path, relion: Relion) -> None:
    """Boxes at the true positions hold the micrograph's own pixels; their table keeps CTF and phase flip."""
    for name, positions in _truth(project).items():
        rows = "".join(f"{x:.0f} {y:.0f}\n" for x, y in positions)
        header = "data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n"
        # RELION looks for coordinates by the name below the job's folder.
        path = project / "truth" / "micrographs" / f"{name}_true.star"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(header + rows)
    source = ("--i", _table(project), "--coord_dir", "truth/", "--coord_suffix", "_true.star")
    target = ("--part_dir", "Extract/", "--part_star", "Extract/particles.star", "--extract", "--extract_size", BOX)
    relion("relion_preprocess", *source, *target, cwd=project)
    extracted = starfile.read(project / "Extract" / "particles.star")
    table = starfile.read(project / "Denoise" / "job001" / "denoised.star")
    fits = table["micrographs"].set_index("rlnMicrographName")["rlnDefocusU"]
    particles = extracted["particles"]
    assert len(particles) > 20
    assert list(particles["rlnDefocusU"]) == pytest.approx([fits[name] for name in particles["rlnMicrographName"]])
    assert list(extracted["optics"]["rlnCtfDataArePhaseFlipped"]) == [1]
    centres = []
    for _, particle in particles.iterrows():
        index, _, stack = particle["rlnImageName"].partition("@")
        box = mrcfile.read(project / stack)
        box = box[int(index) - 1] if box.ndim == 3 else box
        micrograph = mrcfile.read(project / particle["rlnMicrographName"])
        x, y = (int(particle[label]) - BOX // 2 for label in ("rlnCoordinateX", "rlnCoordinateY"))
        if min(x, y) >= 0 and y + BOX <= SHAPE[0] and x + BOX <= SHAPE[1]:
            np.testing.assert_allclose(box, micrograph[y : y + BOX, x : x + BOX], rtol=1e-6)
            centres.append(box[BOX // 2 - 10 : BOX // 2 + 10, BOX // 2 - 10 : BOX // 2 + 10].mean() - box.mean())
    assert len(centres) > 10
    assert np.mean(centres) < -3 * np.std(centres) / np.sqrt(len(centres)), "particles stay dark"


def test_relion_picks_the_particles(project: Path, relion: Relion) -> None:
    """Blobs of the proteasome's size, found on the denoised micrographs, lie on the true positions."""
    size = ("--LoG_diam_min", 110, "--LoG_diam_max", 150, "--LoG_adjust_threshold", 1)
    source = ("--i", _table(project), "--odir", "Pick/", "--pickname", "log", "--angpix", PIXEL_SIZE)
    relion("relion_autopick", *source, "--LoG", *size, cwd=project)
    found = hits = there = 0
    for name, positions in _truth(project).items():
        (path,) = (project / "Pick").rglob(f"{name}_log.star")
        picks = starfile.read(path)[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy()
        distances, nearest = cKDTree(positions).query(picks)
        close = distances * PIXEL_SIZE < 50
        found += len(picks)
        hits += len(set(nearest[close]))
        there += len(positions)
    assert hits / there > 0.8
    assert hits / found > 0.8
