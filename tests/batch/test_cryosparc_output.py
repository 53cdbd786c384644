"""`denoised.cs` and `denoised.csg`: cryosparc-tools read what was denoised of cryoSPARC's exposures."""

from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest
from bundle_builder import one_layer_bundle

from n2n_deploy import DenoiseOptions, denoise
from n2n_deploy.batch.merge import merge_results
from n2n_deploy.batch.request import Shard
from n2n_deploy.core.options import NamingOptions

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (pip install pyyaml)")
dataset = pytest.importorskip(
    "cryosparc.dataset", reason="cryosparc-tools is not installed (pip install cryosparc-tools)"
)

SHAPE, PIXEL_SIZE = (160, 192), 2.0

CTF = {"ctf/df1_A": 15000, "ctf/df2_A": 14000, "ctf/df_angle_rad": 0.5, "ctf/phase_shift_rad": 0}
CTF |= {"ctf/accel_kv": 300, "ctf/cs_mm": 2.7, "ctf/amp_contrast": 0.1}


def write_exposures(project: Path, count: int) -> Path:
    """Write micrographs, and their tables with cryosparc-tools: what CTF estimation made, and its passthrough."""
    names = [f"J2/motioncorrected/m{row}.mrc" for row in range(count)]
    uid = np.arange(count, dtype=np.uint64) + 10**15
    blob: dict[str, Any] = {"uid": uid[::-1], "micrograph_blob/path": names[::-1]}
    blob["micrograph_blob/idx"] = np.zeros(count, np.uint32)
    blob["micrograph_blob/format"] = ["MRC/2"] * count
    blob["micrograph_blob/shape"] = np.full((count, 2), SHAPE, np.uint32)
    blob["micrograph_blob/psize_A"] = np.full(count, PIXEL_SIZE, np.float32)
    blob["mscope_params/beam_shift"] = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    blob["background_blob/path"] = [f"J2/background/{name[-6:]}" for name in names[::-1]]
    fits = {name: np.full(count, value, np.float32) for name, value in CTF.items()}
    fits["ctf/df1_A"] += np.arange(count, dtype=np.float32)
    path = project / "J3" / "exposures_ctf_estimated.cs"
    path.parent.mkdir(exist_ok=True)
    dataset.Dataset({"uid": uid, **fits}).save(path)
    dataset.Dataset(blob).save(path.with_name("J3_passthrough_exposures.cs"))
    for row, name in enumerate(names):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        if not (project / name).exists():
            with mrcfile.new(project / name) as mrc:
                mrc.set_data(np.random.default_rng(row).normal(size=SHAPE).astype(np.float32))
                mrc.voxel_size = PIXEL_SIZE
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return one_layer_bundle(tmp_path / "model.n2n", max_resolution=8.0, phase_flip=True)


def run(project: Path, model: Path, source: Path, output: str, shard: Shard | None = None, **options: Any) -> None:
    given = DenoiseOptions(report=False, device="cpu", flip_back=True, **options)
    denoise(source, model, project / output, options=given, naming=NamingOptions(project=project), shard=shard)


def check_group(path: Path) -> None:
    """The group file names the table, counts its rows and lists its slots."""
    group, table = yaml.safe_load(path.with_suffix(".csg").read_text()), dataset.Dataset.load(path)
    assert group["group"]["type"] == "exposure"
    assert set(group["results"]) == set(table.prefixes())
    assert {each["metafile"] for each in group["results"].values()} == {f">{path.name}"}
    assert {each["num_items"] for each in group["results"].values()} == {len(table)}
    assert group["results"]["micrograph_blob"]["type"] == "exposure.micrograph_blob"
    assert group["results"]["background_blob"]["type"] == "exposure.stat_blob"


def test_images_are_new_and_all_else_is_kept(tmp_path: Path, model: Path) -> None:
    source = write_exposures(tmp_path, 4)
    (tmp_path / "J2" / "motioncorrected" / "m1.mrc").write_bytes(b"cut off")
    run(tmp_path, model, source, "Denoised")
    found = dataset.Dataset.load(tmp_path / "Denoised" / "denoised.cs")
    whole = dataset.Dataset.innerjoin(
        dataset.Dataset.load(source), dataset.Dataset.load(source.with_name("J3_passthrough_exposures.cs"))
    )
    expected = whole.query(lambda row: not row["micrograph_blob/path"].endswith("m1.mrc"))
    assert set(found.fields()) == set(expected.fields())
    assert list(found["uid"]) == list(expected["uid"])
    for field in set(found.fields()) - {"micrograph_blob/path"}:
        np.testing.assert_array_equal(found[field], expected[field], err_msg=field)
    for old, new in zip(expected["micrograph_blob/path"], found["micrograph_blob/path"], strict=True):
        assert new == f"Denoised/{old}"
        assert mrcfile.read(tmp_path / new).shape == SHAPE
    check_group(tmp_path / "Denoised" / "denoised.cs")


def test_the_table_tells_of_coarser_pixels_and_half_floats(tmp_path: Path, model: Path) -> None:
    run(tmp_path, model, write_exposures(tmp_path, 2), "Denoised", output_pixel_size=5.0, dtype="float16")
    found = dataset.Dataset.load(tmp_path / "Denoised" / "denoised.cs")
    for row in found.rows():
        with mrcfile.open(tmp_path / row["micrograph_blob/path"]) as mrc:
            assert mrc.data.shape == tuple(row["micrograph_blob/shape"])
            assert mrc.voxel_size.x == pytest.approx(row["micrograph_blob/psize_A"], rel=0.01)
            assert row["micrograph_blob/format"] == f"MRC/{mrc.header.mode}"


def test_a_table_that_grew_and_shards_are_one(tmp_path: Path, model: Path) -> None:
    run(tmp_path, model, write_exposures(tmp_path, 2), "Denoised")
    grown = write_exposures(tmp_path, 5)
    for index in (1, 2):
        run(tmp_path, model, grown, "Denoised", Shard(index, 2))
    merge_results([tmp_path / "Denoised"])
    found = dataset.Dataset.load(tmp_path / "Denoised" / "denoised.cs")
    assert list(found["uid"]) == [10**15 + row for row in range(5)]
    check_group(tmp_path / "Denoised" / "denoised.cs")


def test_paths_outside_the_project_are_absolute(tmp_path: Path, model: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    run(project, model, write_exposures(project, 1), f"../{'elsewhere' * 8}")
    found = dataset.Dataset.load(tmp_path / ("elsewhere" * 8) / "denoised.cs")
    (path,) = found["micrograph_blob/path"]
    assert Path(path).is_absolute()
    assert Path(path).exists()


def test_without_finished_exposures_there_is_no_table(tmp_path: Path, model: Path) -> None:
    """Their outputs were removed; what another table brought is not cryoSPARC's."""
    run(tmp_path, model, write_exposures(tmp_path, 1), "Denoised")
    assert (tmp_path / "Denoised" / "denoised.cs").exists()
    for path in (tmp_path / "Denoised" / "J2" / "motioncorrected").iterdir():
        path.unlink()
    run(tmp_path, model, tmp_path / "Denoised" / "denoised.star", "Denoised", allow_denoised=True)
    assert not (tmp_path / "Denoised" / "denoised.cs").exists()
    assert not (tmp_path / "Denoised" / "denoised.csg").exists()
