"""`Bundle`: the one file that is shipped, a stored zip that a node checks and uses without unpacking.

Every bit of the file is covered by a SHA-256: the members by the manifest's hashes, checked when a member is read;
everything else by the seal (`seal.py`), checked when the bundle is opened.
"""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from n2n_deploy.bundle.general import locate
from n2n_deploy.bundle.manifest import Manifest, Member, parse_manifest
from n2n_deploy.bundle.members import (
    GOLDEN,
    GOLDEN_INT8,
    RECIPE,
    REQUIRED,
    SEGMENTS,
    UNLISTED,
    engine_member,
    onnx_member,
    segment_member,
)
from n2n_deploy.bundle.seal import DAMAGE, payload, read_directory, read_sealed
from n2n_deploy.core.errors import BundleError
from n2n_deploy.core.options import Precision
from n2n_deploy.core.recipe import Recipe, RecipeRange, choose_recipe

_INPUTS = (".star", ".cs", ".mrc", ".mrcs")


@dataclass(frozen=True)
class Bundle:
    """An open bundle. It holds no file handle: it may be pickled, and used from many threads.

    Attributes:
        path: the file.
        manifest: what the bundle says of itself; the seal proved it intact.
        manifest_bytes: `manifest.json` as it stands in the file, what a signature covers.
        signature: the signature over `manifest_bytes`; None if the bundle is unsigned.
        recipe: how a micrograph becomes input of this network: by default, or as it was chosen.
        accepts: the other recipes that the network takes; None if there is no other, or one was chosen.
    """

    path: Path
    manifest: Manifest
    manifest_bytes: bytes
    signature: bytes | None
    recipe: Recipe
    accepts: RecipeRange | None
    _offsets: Mapping[str, int]

    @classmethod
    def open(cls, path: Path | str) -> "Bundle":
        """Open a bundle: check the seal, the manifest and the list of members, and read the recipe.

        Args:
            path: the file, or "general" for the model that comes with the package.

        Raises:
            BundleError: the file is not a bundle, or is damaged, altered, incomplete, too large, or of a newer format.
            HostError: the general model is not installed.
        """
        path = locate(path)
        try:
            with path.open("rb") as file:
                members = read_directory(file)
                content, signature = read_sealed(file, members)
        except DAMAGE as error:
            raise BundleError(f"{path}: {_what_it_is(path, error)}") from error
        except OSError as error:
            problem = error.strerror or error
            raise BundleError(
                f"{path}: cannot be read ({problem}); expected a model.n2n of n2n-deploy export"
            ) from error
        manifest = parse_manifest(content, str(path))
        _check_members(path, members, manifest)
        offsets = {name: payload(info)[0] for name, info in members.items()}
        recipe = _read(path, offsets[RECIPE], RECIPE, manifest.members[RECIPE])
        try:
            default = Recipe.model_validate_json(recipe)
            return cls(path, manifest, content, signature, default, manifest.accepts, offsets)
        except ValidationError as error:
            raise BundleError(f"{path}: {RECIPE}: {error.errors()[0]['msg']}; export the model again") from error

    def with_recipe(self, max_resolution: float | None = None, *, phase_flip: bool | None = None) -> "Bundle":
        """Return the bundle with one recipe chosen of those that its network takes.

        Args:
            max_resolution: Å; None for the bundle's own.
            phase_flip: whether to flip phases; None for what the bundle's recipe says.

        Raises:
            UsageError: the network was not trained for it.
        """
        chosen = choose_recipe(
            self.recipe, self.accepts, str(self.path), max_resolution=max_resolution, phase_flip=phase_flip
        )
        return replace(self, recipe=chosen, accepts=None)

    @property
    def short_hash(self) -> str:
        """Twelve hexadecimal digits that identify the model: recipe and networks, without engines and signature."""
        identity = hashlib.sha256()
        segments = sorted(name for name in self.manifest.members if name.startswith(SEGMENTS))
        int8 = [name for name in (onnx_member("int8"),) if name in self.manifest.members]
        for name in (RECIPE, onnx_member("fp32"), onnx_member("fp16"), *segments, *int8):
            identity.update(self.manifest.members[name].sha256.encode())
        return identity.hexdigest()[:12]

    def read(self, member: str) -> bytes:
        """Return the bytes of a member, checked against the manifest's SHA-256.

        Raises:
            BundleError: there is no such member, or its bytes do not have the manifest's SHA-256.
        """
        if member not in self.manifest.members:
            raise BundleError(f"{self.path}: has no {member}; it has {', '.join(sorted(self.manifest.members))}")
        return _read(self.path, self._offsets[member], member, self.manifest.members[member])

    def onnx(self, precision: Precision) -> bytes:
        """Return the ONNX model of this precision; input "image" and output "denoised" are float32 in each.

        Raises:
            BundleError: the bundle does not have it, or it is damaged.
        """
        return self.read(onnx_member(precision))

    def segments(self) -> list[bytes]:
        """Return the float32 network in segments for the CPU, in order; empty if the bundle has none.

        Raises:
            BundleError: one is damaged.
        """
        count = sum(name.startswith(SEGMENTS) for name in self.manifest.members)
        return [self.read(segment_member(index)) for index in range(count)]

    def engine(self, key: str) -> bytes:
        """Return the compiled engine with a key of `manifest.engines`, serialised.

        Raises:
            BundleError: the bundle does not have it, or it is damaged.
        """
        return self.read(engine_member(key))

    def golden(self, precision: Precision = "fp32") -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the golden vectors: inputs and PyTorch's outputs for them, both (n, 1, height, width) float32.

        Those for int8 are real patches, within the range that it was made for; the others are synthetic.

        Raises:
            BundleError: they are damaged.
        """
        member = GOLDEN_INT8 if precision == "int8" else GOLDEN
        try:
            with np.load(io.BytesIO(self.read(member)), allow_pickle=False) as arrays:
                inputs, outputs = arrays["inputs"], arrays["outputs"]
        except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
            raise BundleError(f"{self.path}: {member} cannot be read: {error}; export the model again") from error
        if inputs.ndim != 4 or inputs.shape != outputs.shape or not inputs.size:
            raise BundleError(
                f"{self.path}: {member} holds inputs {inputs.shape} and outputs {outputs.shape}, expected twice the "
                "same (n, 1, height, width); export the model again"
            )
        return inputs.astype(np.float32), outputs.astype(np.float32)

    def verify_members(self) -> None:
        """Read every member and check its SHA-256; `open` and `read` check only what they use.

        Raises:
            BundleError: a member is damaged; the message names it.
        """
        for member in self.manifest.members:
            self.read(member)


def _what_it_is(path: Path, error: Exception) -> str:
    """Say what a file is that cannot be opened as a bundle, and what to do."""
    with suppress(OSError, *DAMAGE), zipfile.ZipFile(path) as file:
        if any(name.endswith("/data.pkl") for name in file.namelist()):
            return f"is a checkpoint, not a bundle; run n2n-deploy export {path} -o model.n2n"
    if path.suffix in _INPUTS:
        return "is not a bundle; give a model.n2n of n2n-deploy export, in denoise and evaluate after the micrographs"
    return f"is not a bundle, or is cut short or damaged ({error}); copy it again, or run n2n-deploy export"


def _check_members(path: Path, members: Mapping[str, zipfile.ZipInfo], manifest: Manifest) -> None:
    """Refuse a zip whose members are not exactly those of the manifest, with the sizes it states."""
    found = {name: info.file_size for name, info in members.items() if name not in UNLISTED}
    stated = {name: member.size for name, member in manifest.members.items()}
    if missing := sorted({*stated, *REQUIRED} - found.keys()):
        raise BundleError(f"{path}: lacks {', '.join(missing)}; export the model again")
    if unknown := sorted({*found, *REQUIRED} - stated.keys()):
        raise BundleError(f"{path}: its manifest does not list {', '.join(unknown)}; export the model again")
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
        raise BundleError(f"{path}: {name} is damaged or altered (SHA-256 differs from the manifest's); copy it again")
    return content
