"""The seal: a SHA-256 in the zip's comment over everything that the manifest's hashes do not cover.

That is the manifest itself, its signature, and the zip's own headers and directory. The seal detects damage; only a
signature detects malice.
"""

import hashlib
import io
import struct
import zipfile
from collections.abc import Iterable, Mapping
from typing import BinaryIO

from n2n_deploy.bundle.members import MANIFEST, SIGNATURE, UNLISTED

COMMENT = b"n2n-deploy bundle, seal sha256:"
"""The zip's comment, followed by the digits of the seal."""

DIGITS = 64

LARGEST = 2**31 - 1
"""Bytes that a bundle may have: a zip without 64-bit extensions."""

DAMAGE = (zipfile.BadZipFile, struct.error, NotImplementedError, ValueError, KeyError, EOFError)
"""What reading a damaged zip may raise."""

_LARGEST_MANIFEST = 2**20


def read_directory(file: BinaryIO) -> dict[str, zipfile.ZipInfo]:
    """Return the zip's directory by name.

    Raises:
        zipfile.BadZipFile: the file is no zip, has no seal, or has two members of the same name.
    """
    with zipfile.ZipFile(file) as archive:
        if not archive.comment.startswith(COMMENT):
            raise zipfile.BadZipFile("the zip carries no seal of n2n-deploy")
        infos = archive.infolist()
    members = {info.filename: info for info in infos}
    if len(members) != len(infos):
        raise zipfile.BadZipFile("a member appears twice")
    return members


def read_sealed(file: BinaryIO, members: Mapping[str, zipfile.ZipInfo]) -> tuple[bytes, bytes | None]:
    """Check the seal and return the manifest and its signature, None if there is none.

    Raises:
        zipfile.BadZipFile: the seal does not match, or the file or its manifest is too large.
        KeyError: there is no manifest.
    """
    size = file.seek(0, io.SEEK_END)
    if size > LARGEST:
        raise zipfile.BadZipFile("larger than 2 GiB, which no bundle is")
    if seal(file, members.values(), size) != file.read():
        raise zipfile.BadZipFile("the seal does not match")

    def content(name: str) -> bytes:
        offset, length = payload(members[name])
        if length > _LARGEST_MANIFEST:
            raise zipfile.BadZipFile(f"{name} of {length} bytes")
        file.seek(offset)
        return file.read(length)

    return content(MANIFEST), content(SIGNATURE) if SIGNATURE in members else None


def seal(file: BinaryIO, infos: Iterable[zipfile.ZipInfo], size: int) -> bytes:
    """Hash a file of `size` bytes without the listed members' bytes and the seal's digits, and stop in front of these.

    Raises:
        zipfile.BadZipFile: members overlap, or reach beyond the end.
    """
    digest = hashlib.sha256()
    position = 0
    for start, length in sorted(payload(info) for info in infos if info.filename not in UNLISTED):
        if start < position or start + length > size - DIGITS:
            raise zipfile.BadZipFile("members overlap or reach beyond the end")
        file.seek(position)
        digest.update(file.read(start - position))
        position = start + length
    file.seek(position)
    digest.update(file.read(size - DIGITS - position))
    return digest.hexdigest().encode()


def payload(info: zipfile.ZipInfo) -> tuple[int, int]:
    """Return offset and length of a member's bytes; a header of 30 bytes and the name precede them."""
    return info.header_offset + 30 + len(info.filename.encode()), info.file_size
