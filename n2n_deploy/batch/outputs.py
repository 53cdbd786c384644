"""`OutputLayout`: where the output of each input goes, the same place in every run."""

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SUMMARY = "summary.json"
BASE = "mirrored_from"


@dataclass(frozen=True)
class OutputLayout:
    """The folders of the inputs' names, again under the output folder.

    Attributes:
        output: the output folder.
        base: folder that absolute names lose; those that are not below it lose their root only.
    """

    output: Path
    base: str

    @classmethod
    def open(cls, output: Path, names: Iterable[str]) -> "OutputLayout":
        """The mirror of these names; an output folder that was used before keeps its base.

        Otherwise fewer names (the failed ones, to be tried again) or more of them (in a growing table) would
        share another folder, and their outputs would move.
        """
        with suppress(OSError, ValueError, TypeError):
            base = json.loads((output / SUMMARY).read_bytes()).get(BASE)
            if isinstance(base, str):
                return cls(output, base)
        folders = {os.path.dirname(name) for name in names if name.startswith("/")}  # noqa: PTH120
        return cls(output, os.path.commonpath(folders) if folders else "/")

    def __call__(self, name: str) -> Path:
        """The output of a micrograph: the folders of its name under `output`, the extension always .mrc.

        Steps upward ("..") are left out.
        """
        if name.startswith("/"):
            base = self.base.rstrip("/") + "/"
            name = name.removeprefix(base if name.startswith(base) else "/")
        folder, _, file = name.rpartition("/")
        for ending in (".gz", ".bz2"):
            file = file.removesuffix(ending)
        if not file.endswith(".mrc"):
            file = file.removesuffix(".mrcs") + ".mrc"
        parts = [part for part in folder.split("/") if part not in ("", ".", "..")]
        return self.output.joinpath(*parts, file)
