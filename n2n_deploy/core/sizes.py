"""Bytes as people write and read them: "3GB", "3.20 GB"."""

import re

from n2n_deploy.core.errors import UsageError

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


def size_text(count: float) -> str:
    """Bytes for people, in the units that `parse_bytes` reads: "3.20 GB", "74.0 MB"."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def parse_bytes(text: str) -> int:
    """Bytes of a size such as "3GB", "500M" or "1.5 GB" (decimal units, as disks and RELION count them).

    Raises:
        UsageError: the text is not a size above zero.
    """
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if not match or float(match[1]) <= 0:
        raise UsageError(f"invalid size {text!r}; use e.g. 3GB or 500MB")
    return int(float(match[1]) * _UNITS[match[2].upper()])
