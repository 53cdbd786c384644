"""Who made a bundle: Ed25519 signatures over its manifest, and the public keys that a node trusts.

The manifest holds the SHA-256 of every member, so its signature covers all of them. Loading a compiled engine runs its
code. If trusted keys are configured, a bundle that none of them signed is refused before anything in it is used.
"""

import base64
import hashlib
import os
import stat
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.members import SIGNATURE
from n2n_deploy.bundle.write import extend_bundle
from n2n_deploy.core.errors import BundleError, HostError, UsageError

TRUSTED_KEYS = "N2N_DEPLOY_TRUSTED_KEYS"
"""Environment variable: file or folder of the public keys that this node trusts."""

_CONTEXT = b"n2n-deploy bundle manifest, ed25519, 1\n"
_BEGIN, _END = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"


class Signature(BaseModel):
    """The member `manifest.sig`.

    Attributes:
        algorithm: the only one there is.
        key: fingerprint of the public key.
        signature: 64 bytes in base64, over a fixed prefix and the manifest's bytes.
    """

    algorithm: Literal["ed25519"] = "ed25519"
    key: str
    signature: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{86}==$")]


def generate_key(path: Path) -> Path:
    """Make a key pair: `path`, the private key, readable by its owner only, and `path`.pub, the public key for nodes.

    Returns:
        The public key's path.

    Raises:
        UsageError: one of the files exists.
        HostError: they cannot be written, or the library cryptography is missing.
    """
    serialization, ed25519 = _cryptography()
    public = path.with_name(path.name + ".pub")
    for file in (path, public):
        if file.exists():
            raise UsageError(f"{file}: exists already; keys are never overwritten, choose another name")
    key = ed25519.Ed25519PrivateKey.generate()
    private_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public_pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _create(path, private_pem, 0o600)
    _create(public, public_pem, 0o644)
    return public


def sign_bundle(bundle: Bundle, key: Path) -> Bundle:
    """Check every member of a bundle, sign it in place, and open it again.

    Args:
        bundle: an open bundle; an earlier signature is replaced.
        key: the private key's file.

    Raises:
        BundleError: a member is damaged.
        UsageError: the file is not an Ed25519 key, or others can read it.
        HostError: it cannot be read, or the library cryptography is missing.
    """
    private = _private_key(key)
    bundle.verify_members()
    signed = private.sign(_CONTEXT + bundle.manifest_bytes)
    signature = Signature(key=fingerprint(private.public_key()), signature=base64.b64encode(signed).decode())
    return extend_bundle(bundle, {SIGNATURE: signature.model_dump_json().encode()})


def check_trusted(bundle: Bundle, keys: Path | None = None) -> str | None:
    """Refuse a bundle that no trusted key signed.

    Args:
        bundle: an open bundle.
        keys: file or folder of trusted public keys; by default `$N2N_DEPLOY_TRUSTED_KEYS`.

    Returns:
        The fingerprint of the key that signed it; None if no keys are configured, and nothing is checked.

    Raises:
        BundleError: it is unsigned, signed by another key, or was altered since.
        UsageError: there are no keys in the file or folder.
        HostError: the keys cannot be read, or others can change them.
    """
    source = keys or (Path(os.environ[TRUSTED_KEYS]) if os.environ.get(TRUSTED_KEYS) else None)
    if source is None:
        return None
    trusted = {fingerprint(key): key for key in load_trusted(source)}
    if bundle.signature is None:
        raise BundleError(f"{bundle.path}: is not signed; this machine uses only bundles signed by a key in {source}")
    try:
        signature = Signature.model_validate_json(bundle.signature)
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise BundleError(f"{bundle.path}: its signature cannot be read ({problem}); sign it again") from error
    if signature.key not in trusted:
        raise BundleError(f"{bundle.path}: is signed by the key {signature.key}, which is not in {source}")
    from cryptography.exceptions import InvalidSignature

    try:
        trusted[signature.key].verify(base64.b64decode(signature.signature), _CONTEXT + bundle.manifest_bytes)
    except InvalidSignature as error:
        raise BundleError(
            f"{bundle.path}: was altered after {signature.key} signed it; copy it again, or ask who made it"
        ) from error
    return signature.key


def load_trusted(source: Path) -> list[Any]:
    """Return the public keys in a file, or in the files *.pub of a folder.

    Raises:
        UsageError: there are none, or a file holds something else.
        HostError: they cannot be read, or others can change them.
    """
    serialization, ed25519 = _cryptography()
    keys = []
    for file in sorted(source.glob("*.pub")) if source.is_dir() else [source]:
        if source.is_dir():
            _refuse_writable(source)
        _refuse_writable(file)
        try:
            blocks = file.read_text(encoding="utf-8").split(_BEGIN)[1:]
            loaded = [serialization.load_pem_public_key((_BEGIN + block).encode()) for block in blocks]
        except (UnicodeDecodeError, ValueError) as error:
            raise UsageError(f"{file}: is not a file of public keys; n2n-deploy keygen makes them") from error
        if not all(isinstance(key, ed25519.Ed25519PublicKey) for key in loaded):
            raise UsageError(f"{file}: holds a key that is not Ed25519; n2n-deploy keygen makes them")
        keys += loaded
    if not keys:
        raise UsageError(f"{source}: holds no public key; put the .pub file of n2n-deploy keygen there")
    return keys


def fingerprint(public_key: Any) -> str:
    """Return the sixteen hexadecimal digits that identify a public key."""
    serialization, _ = _cryptography()
    raw = public_key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def _private_key(path: Path) -> Any:
    serialization, ed25519 = _cryptography()
    try:
        mode = path.stat().st_mode
        content = path.read_bytes()
    except OSError as error:
        raise HostError(f"{path}: the key cannot be read: {error.strerror}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(f"{path}: others can read this private key; run chmod 600 on it, or make a new key")
    try:
        key = serialization.load_pem_private_key(content, None)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path}: is not a private key without a password; n2n-deploy keygen makes one") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise UsageError(f"{path}: is not an Ed25519 key; n2n-deploy keygen makes one")
    return key


def _refuse_writable(path: Path) -> None:
    """Refuse a file or folder that others can change: they could add keys of their own."""
    try:
        status = path.stat()
    except OSError as error:
        raise HostError(f"{path}: the trusted keys cannot be read: {error.strerror}") from error
    if status.st_uid not in (0, os.getuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise HostError(f"{path}: others can change the trusted keys; run chmod go-w on it, or let root own it")


def _create(path: Path, content: bytes, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except OSError as error:
        raise HostError(f"{path}: cannot be written: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _cryptography() -> tuple[ModuleType, ModuleType]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise HostError("signatures need the Python library cryptography; pip install 'n2n-deploy[sign]'") from error
    return serialization, ed25519
