"""`Bundle`: the one file that is shipped, a stored zip that a node checks and uses without unpacking.

Every bit of the file is covered by a SHA-256. The manifest holds the hashes of the members, checked when a
member is read. The *seal*, in the zip's comment, is the hash of everything else (manifest, its signature, the
zip's own headers and directory), checked when the bundle is opened. The seal tells damage; only a signature
tells malice.
"""

import hashlib
import io
import struct
import zipfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue, ValidationError

from n2n_deploy.bundle.manifest import Manifest, Member, Precision, parse_manifest
from n2n_deploy.core.errors import BundleError
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.files.atomic import atomic_write

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
RECIPE = "recipe.json"
GOLDEN = "golden.npz"
SEGMENTS = "segments/"
_UNLISTED = (MANIFEST, SIGNATURE)
_REQUIRED = (RECIPE, "model.fp32.onnx", "model.fp16.onnx", GOLDEN)

_SEAL = b"n2n-deploy bundle, seal sha256:"
_SEAL_DIGITS = 64
_LARGEST = 2**31 - 1
_LARGEST_MANIFEST = 2**20
_DAMAGE = (zipfile.BadZipFile, struct.error, NotImplementedError, ValueError, KeyError, EOFError)
_INPUTS = (".star", ".cs", ".mrc", ".mrcs")
_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Bundle:
    """An open bundle. It holds no file handle: it may be pickled, and used from many threads.

    Attributes:
        path: the file.
        manifest: what the bundle says of itself; intact, as the seal proved.
        manifest_bytes: `manifest.json` as it stands in the file, what a signature signs.
        signature: the signature over `manifest_bytes`, None where the bundle is unsigned.
        recipe: how a micrograph becomes input of this network.
    """

    path: Path
    manifest: Manifest
    manifest_bytes: bytes
    signature: bytes | None
    recipe: Recipe
    _offsets: Mapping[str, int]

    @classmethod
    def open(cls, path: Path | str) -> "Bundle":
        """Open a bundle: check the seal, the manifest and the list of members, and read the recipe.

        Raises:
            BundleError: no bundle, damaged, altered, incomplete, too large, or of a newer format.
        """
        path = Path(path)
        try:
            with path.open("rb") as file:
                members = _directory(file)
                content, signature = _sealed(file, members)
        except _DAMAGE as error:
            raise BundleError(f"{path}: {_what_it_is(path, error)}") from error
        except OSError as error:
            problem = error.strerror or error
            raise BundleError(
                f"{path}: cannot be read ({problem}); expected a model.n2n of n2n-deploy export"
            ) from error
        manifest = parse_manifest(content, str(path))
        _check_members(path, members, manifest)
        offsets = {name: _payload(info)[0] for name, info in members.items()}
        recipe = _read(path, offsets[RECIPE], RECIPE, manifest.members[RECIPE])
        try:
            return cls(path, manifest, content, signature, Recipe.model_validate_json(recipe), offsets)
        except ValidationError as error:
            raise BundleError(f"{path}: {RECIPE}: {error.errors()[0]['msg']}; export the model again") from error

    @property
    def short_hash(self) -> str:
        """Twelve hexadecimal digits that name the model: recipe and networks, not engines or signature."""
        identity = hashlib.sha256()
        segments = sorted(name for name in self.manifest.members if name.startswith(SEGMENTS))
        for name in (RECIPE, "model.fp32.onnx", "model.fp16.onnx", *segments):
            identity.update(self.manifest.members[name].sha256.encode())
        return identity.hexdigest()[:12]

    def read(self, member: str) -> bytes:
        """The bytes of a member, checked against the manifest's SHA-256 before they are returned.

        Raises:
            BundleError: there is no such member, or its bytes are not those that the manifest vouches for.
        """
        if member not in self.manifest.members:
            raise BundleError(f"{self.path}: has no {member}; it has {', '.join(sorted(self.manifest.members))}")
        return _read(self.path, self._offsets[member], member, self.manifest.members[member])

    def onnx(self, precision: Precision) -> bytes:
        """The ONNX model of this precision; input "image" and output "denoised" are float32 in each.

        Raises:
            BundleError: it is not in the bundle, or damaged.
        """
        return self.read(f"model.{precision}.onnx")

    def segments(self) -> list[bytes]:
        """The float32 network in segments for the CPU, in order; empty where the bundle was made without.

        Raises:
            BundleError: one is damaged.
        """
        count = sum(name.startswith(SEGMENTS) for name in self.manifest.members)
        return [self.read(segment_member(index)) for index in range(count)]

    def golden(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Golden vectors: inputs and PyTorch's outputs for them, both (n, 1, height, width) float32.

        Raises:
            BundleError: they are damaged.
        """
        try:
            with np.load(io.BytesIO(self.read(GOLDEN)), allow_pickle=False) as arrays:
                inputs, outputs = arrays["inputs"], arrays["outputs"]
        except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
            raise BundleError(f"{self.path}: {GOLDEN} cannot be read: {error}; export the model again") from error
        if inputs.ndim != 4 or inputs.shape != outputs.shape or not inputs.size:
            raise BundleError(f"{self.path}: {GOLDEN} holds arrays {inputs.shape} and {outputs.shape}, not two equal")
        return inputs.astype(np.float32), outputs.astype(np.float32)

    def verify_members(self) -> None:
        """Read every member and check its SHA-256; `open` and `read` do so only for what they use.

        Raises:
            BundleError: a member is damaged; the message names it.
        """
        for member in self.manifest.members:
            self.read(member)


def segment_member(index: int) -> str:
    """Name of the member that holds a segment's ONNX model; see `n2n_deploy.export.segments`."""
    return f"{SEGMENTS}{index:02d}.onnx"


def write_bundle(path: Path, manifest: Manifest, recipe: Recipe, members: Mapping[str, bytes]) -> Bundle:
    """Write a bundle atomically: `path` is the complete new bundle or what it was before.

    Args:
        path: where to; its folder is made where it is missing.
        manifest: everything but the members, which are filled in here.
        recipe: written as `recipe.json`.
        members: name → bytes: both ONNX models, the golden vectors, and whatever else.

    Raises:
        BundleError: it would be larger than a bundle may be (2 GiB).
    """
    contents = {RECIPE: recipe.model_dump_json(indent=1).encode() + b"\n", **members}
    listed = {
        name: Member(size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in contents.items()
        if name not in _UNLISTED
    }
    return _write(path, {MANIFEST: manifest.model_copy(update={"members": listed}).to_json(), **contents})


def extend_bundle(
    bundle: Bundle, members: Mapping[str, bytes], *, facts: Mapping[str, JsonValue] | None = None
) -> Bundle:
    """Rewrite a bundle in place, atomically, with more members (or others of the same names), and open it.

    A signature signs the manifest: adding one leaves the manifest as it is, byte for byte; adding anything
    else drops the old signature.

    Args:
        bundle: the bundle; every member is checked while it is copied.
        members: name → bytes of what to add.
        facts: manifest fields to add or replace.

    Raises:
        BundleError: an old member is damaged, or the bundle would become larger than 2 GiB.
    """
    contents = {name: bundle.read(name) for name in bundle.manifest.members} | dict(members)
    if set(members) <= {SIGNATURE} and not facts:
        return _write(bundle.path, {MANIFEST: bundle.manifest_bytes, **contents})
    changed = Manifest.model_validate(bundle.manifest.model_dump() | dict(facts or {}))
    return write_bundle(bundle.path, changed, bundle.recipe, contents)


def _write(path: Path, contents: Mapping[str, bytes]) -> Bundle:
    """Write the zip, seal it, let it take its name and open it."""
    if sum(map(len, contents.values())) > _LARGEST - 2**20:
        raise BundleError(f"{path}: the bundle would be larger than 2 GiB; compile fewer engines into it")
    with atomic_write(path) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, content in contents.items():
                info = zipfile.ZipInfo(name, _DATE)
                info.external_attr = 0o644 << 16
                archive.writestr(info, content)
            infos = archive.infolist()
            archive.comment = _SEAL + b"0" * _SEAL_DIGITS
        seal = _seal(file, infos, file.seek(0, io.SEEK_END))
        file.seek(-_SEAL_DIGITS, io.SEEK_END)
        file.write(seal)
    return Bundle.open(path)


def _what_it_is(path: Path, error: Exception) -> str:
    """What a file is that is no bundle, and what to do."""
    with suppress(OSError, *_DAMAGE), zipfile.ZipFile(path) as file:
        if any(name.endswith("/data.pkl") for name in file.namelist()):
            return f"is a checkpoint, no bundle; n2n-deploy export {path} -o model.n2n makes one of it"
    if path.suffix in _INPUTS:
        return "is no bundle; expected a model.n2n of n2n-deploy export, in denoise and evaluate after the micrographs"
    return f"not a bundle, cut short or damaged ({error}); copy it again, or make one with n2n-deploy export"


def _directory(file: BinaryIO) -> dict[str, zipfile.ZipInfo]:
    """The zip's directory by name."""
    with zipfile.ZipFile(file) as archive:
        if not archive.comment.startswith(_SEAL):
            raise zipfile.BadZipFile("the zip carries no seal of n2n-deploy")
        infos = archive.infolist()
    members = {info.filename: info for info in infos}
    if len(members) != len(infos):
        raise zipfile.BadZipFile("a member appears twice")
    return members


def _sealed(file: BinaryIO, members: Mapping[str, zipfile.ZipInfo]) -> tuple[bytes, bytes | None]:
    """The manifest and its signature, once the seal has proved them and the directory intact."""
    size = file.seek(0, io.SEEK_END)
    if size > _LARGEST:
        raise zipfile.BadZipFile("larger than 2 GiB, which no bundle is")
    if _seal(file, members.values(), size) != file.read():
        raise zipfile.BadZipFile("the seal does not match")

    def content(name: str) -> bytes:
        offset, length = _payload(members[name])
        if length > _LARGEST_MANIFEST:
            raise zipfile.BadZipFile(f"{name} of {length} bytes")
        file.seek(offset)
        return file.read(length)

    return content(MANIFEST), content(SIGNATURE) if SIGNATURE in members else None


def _seal(file: BinaryIO, infos: Iterable[zipfile.ZipInfo], size: int) -> bytes:
    """Hash of the file but for the listed members' bytes and these digits, where `file` is left."""
    seal = hashlib.sha256()
    position = 0
    for start, length in sorted(_payload(info) for info in infos if info.filename not in _UNLISTED):
        if start < position or start + length > size - _SEAL_DIGITS:
            raise zipfile.BadZipFile("members overlap or reach beyond the end")
        file.seek(position)
        seal.update(file.read(start - position))
        position = start + length
    file.seek(position)
    seal.update(file.read(size - _SEAL_DIGITS - position))
    return seal.hexdigest().encode()


def _payload(info: zipfile.ZipInfo) -> tuple[int, int]:
    """Offset and length of a member's bytes: 30 bytes and the name come before them, as written here."""
    return info.header_offset + 30 + len(info.filename.encode()), info.file_size


def _check_members(path: Path, members: Mapping[str, zipfile.ZipInfo], manifest: Manifest) -> None:
    """Refuse a zip whose members are not exactly those of the manifest, with the sizes it states."""
    found = {name: info.file_size for name, info in members.items() if name not in _UNLISTED}
    stated = {name: member.size for name, member in manifest.members.items()}
    if missing := sorted({*stated, *_REQUIRED} - found.keys()):
        raise BundleError(f"{path}: lacks {', '.join(missing)}; export the model again")
    if unknown := sorted({*found, *_REQUIRED} - stated.keys()):
        raise BundleError(f"{path}: holds {', '.join(unknown)}, which its manifest does not list; export it again")
    for name, size in stated.items():
        if found[name] != size:
            raise BundleError(f"{path}: {name} has {found[name]} bytes where the manifest says {size}; copy it again")


def _read(path: Path, offset: int, name: str, member: Member) -> bytes:
    """A member's bytes, checked."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            content = file.read(member.size)
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(content).hexdigest() != member.sha256:
        raise BundleError(f"{path}: {name} is damaged or altered (its SHA-256 is not the manifest's); copy it again")
    return content
