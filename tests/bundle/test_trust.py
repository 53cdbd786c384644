"""Signatures: a bundle signed by a trusted key is accepted, any other is refused before an engine is opened."""

import base64
import io
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.manifest import Deviation, Manifest
from n2n_deploy.bundle.members import SIGNATURE
from n2n_deploy.bundle.trust import TRUSTED_KEYS, check_trusted, fingerprint, generate_key, load_trusted, sign_bundle
from n2n_deploy.bundle.write import extend_bundle, write_bundle
from n2n_deploy.cli import main
from n2n_deploy.core.errors import BundleError, HostError, UsageError
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.engines import select

pytest.importorskip("cryptography", reason="cryptography is not installed (extra sign)")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    golden = io.BytesIO()
    np.savez(golden, inputs=np.zeros((1, 1, 8, 8), np.float32), outputs=np.zeros((1, 1, 8, 8), np.float32))
    members = {"model.fp32.onnx": b"graph", "model.fp16.onnx": b"half", "golden.npz": golden.getvalue()}
    facts = Manifest(preset="small", halo=64, tolerance={"fp32": Deviation(max=1e-3, rms=1e-4)})
    return write_bundle(tmp_path / "model.n2n", facts, Recipe(), members)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    generate_key(tmp_path / "key")
    return tmp_path / "key"


def public(key: Path) -> Path:
    return key.with_name(key.name + ".pub")


def test_bundle_signed_by_a_trusted_key_is_accepted(bundle: Bundle, key: Path) -> None:
    signed = sign_bundle(bundle, key)
    (trusted,) = load_trusted(public(key))
    assert check_trusted(Bundle.open(bundle.path), public(key)) == fingerprint(trusted)
    assert signed.manifest_bytes == bundle.manifest_bytes
    assert signed.short_hash == bundle.short_hash


def test_openssl_agrees_with_the_signature(bundle: Bundle, key: Path, tmp_path: Path) -> None:
    signed = sign_bundle(bundle, key)
    assert signed.signature is not None
    (tmp_path / "signature").write_bytes(base64.b64decode(json.loads(signed.signature)["signature"]))
    (tmp_path / "message").write_bytes(b"n2n-deploy bundle manifest, ed25519, 1\n" + signed.manifest_bytes)
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", str(public(key)), "-rawin"]
    command += ["-in", str(tmp_path / "message"), "-sigfile", str(tmp_path / "signature")]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    assert "Verified Successfully" in done.stdout, done.stderr


def test_private_key_is_readable_by_its_owner_only_and_never_overwritten(key: Path) -> None:
    assert key.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="never overwritten"):
        generate_key(key)


def test_private_key_that_others_can_read_is_refused(bundle: Bundle, key: Path) -> None:
    key.chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        sign_bundle(bundle, key)


def test_trusted_keys_that_others_can_change_are_refused(bundle: Bundle, key: Path, tmp_path: Path) -> None:
    sign_bundle(bundle, key)
    public(key).chmod(0o664)
    with pytest.raises(HostError, match="others can change"):
        check_trusted(Bundle.open(bundle.path), public(key))
    public(key).chmod(0o644)
    tmp_path.chmod(0o777)
    with pytest.raises(HostError, match="others can change"):
        check_trusted(Bundle.open(bundle.path), tmp_path)


def test_unsigned_bundles_and_unknown_keys_are_refused(bundle: Bundle, key: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not signed"):
        check_trusted(bundle, public(key))
    generate_key(tmp_path / "other")
    signed = sign_bundle(bundle, tmp_path / "other")
    with pytest.raises(BundleError, match="which is not in"):
        check_trusted(signed, public(key))
    assert check_trusted(signed, tmp_path) is not None


def test_any_change_after_signing_is_refused(bundle: Bundle, key: Path) -> None:
    signature = sign_bundle(bundle, key).signature
    assert signature is not None
    altered = extend_bundle(Bundle.open(bundle.path), {"model.fp32.onnx": b"gRaph"})
    assert altered.signature is None
    forged = extend_bundle(altered, {SIGNATURE: signature})
    with pytest.raises(BundleError, match="was altered after"):
        check_trusted(forged, public(key))


@pytest.mark.parametrize("junk", [b"", b"[]", b"{}", b'{"key": "a", "signature": "?"}'])
def test_invalid_signature_is_refused(bundle: Bundle, key: Path, junk: bytes) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        check_trusted(extend_bundle(bundle, {SIGNATURE: junk}), public(key))


def test_files_that_are_not_keys_are_refused(bundle: Bundle, key: Path, tmp_path: Path) -> None:
    (tmp_path / "junk").write_text("-----BEGIN PUBLIC KEY-----\njunk\n")
    (tmp_path / "empty").write_text("")
    with pytest.raises(UsageError, match="not a file of public keys"):
        check_trusted(bundle, tmp_path / "junk")
    with pytest.raises(UsageError, match="no public key"):
        check_trusted(bundle, tmp_path / "empty")
    with pytest.raises(HostError, match="cannot be read"):
        check_trusted(bundle, tmp_path / "missing")
    public(key).chmod(0o600)
    with pytest.raises(UsageError, match="not a private key"):
        sign_bundle(bundle, public(key))


def test_no_engine_is_opened_for_an_untrusted_bundle(
    bundle: Bundle, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TRUSTED_KEYS, str(public(key)))

    def opened(*_: object) -> None:
        raise AssertionError("an engine was opened")

    monkeypatch.setattr(select, "ENGINES", (select.Engine("any", False, opened, str),))  # type: ignore[arg-type]
    with pytest.raises(BundleError, match="is not signed"):
        select.choose_session(bundle)
    sign_bundle(bundle, key)
    with pytest.raises(AssertionError, match="an engine was opened"):
        select.choose_session(Bundle.open(bundle.path))


def test_keygen_and_sign_from_the_command_line(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["keygen", str(tmp_path / "k")], ["sign", str(bundle.path), "--key", str(tmp_path / "k")]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 0
    assert "is signed with" in capsys.readouterr().out
    assert check_trusted(Bundle.open(bundle.path), tmp_path / "k.pub") is not None


def test_verify_refuses_an_untrusted_bundle(
    bundle: Bundle, key: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(bundle.path), "--trusted-keys", str(public(key))])
    assert ended.value.code == 1
    assert "is not signed" in capsys.readouterr().err
    monkeypatch.setenv(TRUSTED_KEYS, str(public(key)))
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(bundle.path)])
    assert ended.value.code == 1
    assert "is not signed" in capsys.readouterr().err
