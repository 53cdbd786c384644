"""Write a bundle: a stored zip with its seal, complete or not at all."""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.manifest import Manifest, Member
from n2n_deploy.bundle.members import MANIFEST, RECIPE, SIGNATURE, UNLISTED
from n2n_deploy.bundle.seal import COMMENT, DIGITS, LARGEST, seal
from n2n_deploy.core.errors import BundleError
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.files.atomic import atomic_write

_DATE = (1980, 1, 1, 0, 0, 0)


def write_bundle(path: Path, manifest: Manifest, recipe: Recipe, members: Mapping[str, bytes]) -> Bundle:
    """Write a bundle atomically: `path` is the complete new bundle or what it was before.

    Args:
        path: of the bundle; its folder is created if missing.
        manifest: everything but the members, which are filled in here.
        recipe: written as `recipe.json`.
        members: name → bytes: both ONNX models, the golden vectors, and any others.

    Returns:
        The bundle, open.

    Raises:
        BundleError: it would be larger than 2 GiB, or lack a member that every bundle has.
        HostError: it cannot be written.
    """
    contents = {RECIPE: recipe.model_dump_json(indent=1).encode() + b"\n", **members}
    listed = {
        name: Member(size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in contents.items()
        if name not in UNLISTED
    }
    return write_sealed(path, {MANIFEST: manifest.model_copy(update={"members": listed}).to_json(), **contents})


def extend_bundle(
    bundle: Bundle, members: Mapping[str, bytes], *, facts: Mapping[str, JsonValue] | None = None
) -> Bundle:
    """Rewrite a bundle in place, atomically, with more members (or others of the same names), and open it.

    A signature covers the manifest: adding one leaves the manifest as it is, byte for byte; adding anything else
    drops the old signature.

    Args:
        bundle: the bundle; every member is checked while it is copied.
        members: name → bytes of what to add.
        facts: manifest fields to add or replace.

    Raises:
        BundleError: an old member is damaged, or the bundle would become larger than 2 GiB.
        HostError: it cannot be written.
    """
    contents = {name: bundle.read(name) for name in bundle.manifest.members} | dict(members)
    if set(members) <= {SIGNATURE} and not facts:
        return write_sealed(bundle.path, {MANIFEST: bundle.manifest_bytes, **contents})
    changed = Manifest.model_validate(bundle.manifest.model_dump() | dict(facts or {}))
    return write_bundle(bundle.path, changed, bundle.recipe, contents)


def write_sealed(path: Path, contents: Mapping[str, bytes]) -> Bundle:
    """Write the zip and its seal atomically, and open the bundle.

    Args:
        path: of the bundle.
        contents: name → bytes of all members, the manifest among them.

    Raises:
        BundleError: it would be larger than 2 GiB, or the members are not those of the manifest.
        HostError: it cannot be written.
    """
    if sum(map(len, contents.values())) > LARGEST - 2**20:
        raise BundleError(f"{path}: the bundle would be larger than 2 GiB; compile fewer engines into it")
    with atomic_write(path) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, content in contents.items():
                info = zipfile.ZipInfo(name, _DATE)
                info.external_attr = 0o644 << 16
                archive.writestr(info, content)
            infos = archive.infolist()
            archive.comment = COMMENT + b"0" * DIGITS
        digits = seal(file, infos, file.seek(0, io.SEEK_END))
        file.seek(-DIGITS, io.SEEK_END)
        file.write(digits)
    return Bundle.open(path)
