"""Who made a bundle: Ed25519 signatures over its manifest, and the public keys that a node trusts.

The manifest holds the SHA-256 of every member, so its signature vouches for all of them. Loading a compiled engine runs
its code; where trusted keys are configured, a bundle that none of them signed is refused before anything in it is used.
"""

import base64
import hashlib
import json
import os
import stat
from pathlib import Path
from types import ModuleType
from typing import Any

from n2n_deploy.bundle.archive import SIGNATURE, Bundle, extend_bundle
from n2n_deploy.core.errors import BundleError, HostError, UsageError

TRUSTED_KEYS = "N2N_DEPLOY_TRUSTED_KEYS"
"""Environment variable: file or folder of the public keys that this node trusts."""

_CONTEXT = b"n2n-deploy bundle manifest, ed25519, 1\n"
_BEGIN, _END = "-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----"


def generate_key(path: Path) -> Path:
    """Make a key pair: `path`, the private key, readable by its owner alone, and `path`.pub, which nodes are given.

    Returns:
        The public key's path.

    Raises:
        UsageError: one of the files is there already.
        HostError: they cannot be written, or the library cryptography is missing.
    """
    serialization, ed25519 = _cryptography()
    public = path.with_name(path.name + ".pub")
    for file in (path, public):
        if file.exists():
            raise UsageError(f"{file}: is there already; a key is never written over, choose another name")
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
    """Sign a bundle in place, once every member has been checked, and open it again.

    Args:
        bundle: an open bundle; an earlier signature is replaced.
        key: the private key's file.

    Raises:
        BundleError: a member is damaged.
        UsageError: the file is no Ed25519 key, or others can read it.
        HostError: it cannot be read, or the library cryptography is missing.
    """
    private = _private_key(key)
    bundle.verify_members()
    signature = {
        "algorithm": "ed25519",
        "key": fingerprint(private.public_key()),
        "signature": base64.b64encode(private.sign(_CONTEXT + bundle.manifest_bytes)).decode(),
    }
    return extend_bundle(bundle, {SIGNATURE: json.dumps(signature).encode()})


def check_trusted(bundle: Bundle, keys: Path | None = None) -> str | None:
    """Refuse a bundle that no trusted key signed.

    Args:
        bundle: an open bundle.
        keys: file or folder of trusted public keys; by default what `$N2N_DEPLOY_TRUSTED_KEYS` names.

    Returns:
        The fingerprint of the key that signed it; None where no keys are configured, and nothing is checked.

    Raises:
        BundleError: it is unsigned, signed by another key, or was altered since.
        UsageError: there are no keys in the file or folder.
        HostError: the keys cannot be read, or others could have added some.
    """
    source = keys or (Path(os.environ[TRUSTED_KEYS]) if os.environ.get(TRUSTED_KEYS) else None)
    if source is None:
        return None
    trusted = {fingerprint(key): key for key in load_trusted(source)}
    if bundle.signature is None:
        raise BundleError(f"{bundle.path}: is not signed, and only bundles signed by a key in {source} are used here")
    try:
        fields = json.loads(bundle.signature)
        name, signature = str(fields["key"]), base64.b64decode(fields["signature"], validate=True)
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{bundle.path}: its signature cannot be read ({error}); sign it again") from error
    if name not in trusted:
        raise BundleError(f"{bundle.path}: is signed by the key {name}, which is not in {source}")
    from cryptography.exceptions import InvalidSignature

    try:
        trusted[name].verify(signature, _CONTEXT + bundle.manifest_bytes)
    except InvalidSignature as error:
        raise BundleError(
            f"{bundle.path}: was altered after {name} signed it; copy it again, or ask who made it"
        ) from error
    return name


def load_trusted(source: Path) -> list[Any]:
    """Return the public keys in a file, or in the files *.pub of a folder.

    Raises:
        UsageError: there are none, or a file holds something else.
        HostError: they cannot be read, or others could have added some.
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
            raise UsageError(f"{file}: is no file of public keys; n2n-deploy keygen makes them") from error
        if not all(isinstance(key, ed25519.Ed25519PublicKey) for key in loaded):
            raise UsageError(f"{file}: holds a key that is not Ed25519; n2n-deploy keygen makes them")
        keys += loaded
    if not keys:
        raise UsageError(f"{source}: holds no public key; put the .pub file of n2n-deploy keygen there")
    return keys


def fingerprint(public_key: Any) -> str:
    """Return sixteen hexadecimal digits that name a public key."""
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
        raise UsageError(f"{path}: others can read this private key; chmod 600 it, and make a new one if they did")
    try:
        key = serialization.load_pem_private_key(content, None)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path}: is no private key without a password; n2n-deploy keygen makes one") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise UsageError(f"{path}: is not an Ed25519 key; n2n-deploy keygen makes one")
    return key


def _refuse_writable(path: Path) -> None:
    """Keys that others can add to say nothing about whom to trust."""
    try:
        status = path.stat()
    except OSError as error:
        raise HostError(f"{path}: the trusted keys cannot be read: {error.strerror}") from error
    if status.st_uid not in (0, os.getuid()) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise HostError(f"{path}: others can change the trusted keys; chmod go-w it, or let root own it")


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
        raise HostError(
            "signatures need the Python library cryptography; pip install 'n2n-deploy[sign]' brings it"
        ) from error
    return serialization, ed25519
