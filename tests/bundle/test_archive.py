"""The bundle: intact it reads back, and with any bit changed it is refused with one `BundleError`."""

import hashlib
import io
import pickle
import random
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.manifest import FORMAT, Deviation, Manifest
from n2n_deploy.bundle.members import MANIFEST, SIGNATURE, segment_member
from n2n_deploy.bundle.write import extend_bundle, write_bundle, write_sealed
from n2n_deploy.core.errors import BundleError, HostError
from n2n_deploy.core.recipe import Recipe

RECIPE = Recipe(max_resolution=6.0, phase_flip=False)


def _golden() -> bytes:
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    inputs = rng.standard_normal((1, 1, 8, 8), np.float32)
    np.savez(buffer, inputs=inputs, outputs=inputs / 2)
    return buffer.getvalue()


MEMBERS = {"model.fp32.onnx": b"four bytes a weight", "model.fp16.onnx": b"two", "golden.npz": _golden()}
FACTS = Manifest(preset="small", halo=64, tolerance={"fp32": Deviation(max=1e-3, rms=1e-4)}, training={"steps": 7})


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return write_bundle(tmp_path / "model.n2n", FACTS, RECIPE, MEMBERS)


def _rezip(path: Path, change: dict[str, bytes | None]) -> None:
    """Write the zip anew with members changed, as a tool that knows nothing of bundles would."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()} | change
        comment = archive.comment
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = comment
        for name, content in contents.items():
            if content is not None:
                archive.writestr(name, content)


def test_everything_reads_back(bundle: Bundle) -> None:
    again = Bundle.open(bundle.path)
    assert again.recipe == RECIPE
    assert (again.manifest.preset, again.manifest.halo, again.manifest.training) == (
        "small",
        64,
        {"steps": 7},
    )
    assert again.manifest.tolerance["fp32"] == Deviation(max=1e-3, rms=1e-4)
    assert {name: again.read(name) for name in MEMBERS} == MEMBERS
    assert again.onnx("fp32") == MEMBERS["model.fp32.onnx"]
    inputs, outputs = again.golden()
    assert inputs.dtype == np.float32
    np.testing.assert_array_equal(inputs / 2, outputs)
    assert again.signature is None
    again.verify_members()


def test_bundle_is_a_plain_stored_zip_whose_hashes_anyone_can_check(bundle: Bundle) -> None:
    with zipfile.ZipFile(bundle.path) as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        for name, member in bundle.manifest.members.items():
            assert hashlib.sha256(archive.read(name)).hexdigest() == member.sha256
        assert set(archive.namelist()) == {MANIFEST, *bundle.manifest.members}


def test_members_are_read_in_another_process(bundle: Bundle) -> None:
    assert pickle.loads(pickle.dumps(bundle)).read("model.fp16.onnx") == b"two"


def _refused(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.open(path).verify_members()
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_one_flipped_bit_anywhere_is_refused(bundle: Bundle) -> None:
    intact = bundle.path.read_bytes()
    rng = random.Random(0)
    for position in range(len(intact)):
        damaged = bytearray(intact)
        damaged[position] ^= 1 << rng.randrange(8)
        bundle.path.write_bytes(damaged)
        _refused(bundle.path)


def test_truncated_or_extended_bundle_is_refused(bundle: Bundle) -> None:
    intact = bundle.path.read_bytes()
    for length in range(0, len(intact), 97):
        bundle.path.write_bytes(intact[:length])
        _refused(bundle.path)
    bundle.path.write_bytes(intact + b"\0")
    _refused(bundle.path)
    bundle.path.write_bytes(b"\0" + intact)
    _refused(bundle.path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.n2n"
    assert "cannot be read" in _refused(path)
    path.mkdir()
    _refused(path)
    path.rmdir()
    path.write_bytes(b"no zip at all")
    assert "not a bundle" in _refused(path)
    torch.save({"weights": torch.zeros(3)}, path)
    assert f"is a checkpoint, not a bundle; run n2n-deploy export {path} -o model.n2n" in _refused(path)
    table = tmp_path / "micrographs.star"
    table.write_text("data_\n")
    assert "after the micrographs" in _refused(table)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MANIFEST, b"{}")
    assert "seal" in _refused(path)


def test_zip_repacked_by_another_tool_is_refused(bundle: Bundle) -> None:
    _rezip(bundle.path, {"model.fp32.onnx": b"another model"})
    assert "seal" in _refused(bundle.path)


def _sealed(bundle: Bundle, manifest: bytes, members: dict[str, bytes]) -> Path:
    """Write a bundle with a good seal around whatever manifest and members; opening it is what fails."""
    with pytest.raises(BundleError):
        write_sealed(bundle.path, {MANIFEST: manifest, **members})
    return bundle.path


def test_missing_member_is_named(bundle: Bundle) -> None:
    contents = {name: bundle.read(name) for name in bundle.manifest.members}
    del contents["model.fp16.onnx"]
    assert "lacks model.fp16.onnx" in _refused(_sealed(bundle, bundle.manifest_bytes, contents))


def test_unlisted_member_is_named(bundle: Bundle) -> None:
    contents = {name: bundle.read(name) for name in bundle.manifest.members} | {"evil.engine": b"native code"}
    assert "evil.engine" in _refused(_sealed(bundle, bundle.manifest_bytes, contents))


def test_member_of_another_size_is_named(bundle: Bundle) -> None:
    contents = {name: bundle.read(name) for name in bundle.manifest.members} | {"model.fp16.onnx": b"longer"}
    assert "model.fp16.onnx" in _refused(_sealed(bundle, bundle.manifest_bytes, contents))


def test_newer_format_names_the_version_to_update_to(bundle: Bundle) -> None:
    manifest = b'{"format": %d, "requires": "7.3", "something": "new"}' % (FORMAT + 1)
    contents = {name: bundle.read(name) for name in bundle.manifest.members}
    message = _refused(_sealed(bundle, manifest, contents))
    assert "newer" in message
    assert "7.3" in message


@pytest.mark.parametrize("manifest", [b"", b"[]", b"{}", b"\xff\xfe", b'{"format": 1, "halo": -8}', b'{"format": "x"}'])
def test_invalid_manifest_is_refused(bundle: Bundle, manifest: bytes) -> None:
    contents = {name: bundle.read(name) for name in bundle.manifest.members}
    assert "manifest.json" in _refused(_sealed(bundle, manifest, contents))


def test_file_altered_after_opening_is_detected_when_read(bundle: Bundle) -> None:
    data = bundle.path.read_bytes()
    bundle.path.write_bytes(data.replace(b"four bytes", b"five bytes"))
    with pytest.raises(BundleError, match=r"model\.fp32\.onnx"):
        bundle.onnx("fp32")
    with pytest.raises(BundleError, match="has no"):
        bundle.onnx("bf16")


def test_adding_members_keeps_the_model_and_its_hash(bundle: Bundle) -> None:
    more = extend_bundle(bundle, {"engines/a.engine": b"engine"}, facts={"added_later": {"a": "rtx"}})
    assert more.read("engines/a.engine") == b"engine"
    assert more.manifest.model_dump()["added_later"] == {"a": "rtx"}
    assert more.short_hash == bundle.short_hash
    assert {name: more.read(name) for name in MEMBERS} == MEMBERS
    again = extend_bundle(more, {"engines/b.engine": b"other"})
    assert again.manifest.model_dump()["added_later"] == {"a": "rtx"}
    again.verify_members()


def test_short_hash_distinguishes_models(bundle: Bundle, tmp_path: Path) -> None:
    others = [
        write_bundle(tmp_path / "a.n2n", FACTS, Recipe(max_resolution=6.5, phase_flip=False), MEMBERS),
        write_bundle(tmp_path / "b.n2n", FACTS, RECIPE, MEMBERS | {"model.fp32.onnx": b"other"}),
        write_bundle(tmp_path / "d.n2n", FACTS, RECIPE, MEMBERS | {segment_member(0): b"segment"}),
    ]
    assert len({bundle.short_hash, *(other.short_hash for other in others)}) == 4
    same = write_bundle(tmp_path / "c.n2n", FACTS, RECIPE, MEMBERS)
    assert same.short_hash == bundle.short_hash


def test_signing_keeps_the_manifest_and_changing_it_drops_the_signature(bundle: Bundle) -> None:
    signed = extend_bundle(bundle, {SIGNATURE: b"signature"})
    assert signed.signature == b"signature"
    assert signed.manifest_bytes == bundle.manifest_bytes
    intact = signed.path.read_bytes()
    signed.path.write_bytes(intact.replace(b"signature", b"signaturf"))
    _refused(signed.path)
    signed.path.write_bytes(intact)
    assert extend_bundle(signed, {"engines/a.engine": b"engine"}).signature is None


def test_failed_rewrite_leaves_the_old_bundle(bundle: Bundle, tmp_path: Path) -> None:
    before = bundle.path.read_bytes()
    broken = before.replace(b"four bytes", b"five bytes")
    copy = tmp_path / "copy.n2n"
    shutil.copy(bundle.path, copy)
    opened = Bundle.open(copy)
    copy.write_bytes(broken)
    with pytest.raises(BundleError):
        extend_bundle(opened, {"engines/a.engine": b"engine"})
    assert copy.read_bytes() == broken
    assert sorted(tmp_path.iterdir()) == sorted([bundle.path, copy])


def test_folder_that_cannot_be_created_is_a_host_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(HostError, match="file"):
        write_bundle(tmp_path / "file" / "model.n2n", FACTS, RECIPE, MEMBERS)
