"""`OutputLayout`: where the output of each input goes, the same place in every run."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from n2n_deploy.io.micrograph_names import split_name

_KEPT_ENDINGS = (".mrc", ".mrcs", ".st")


@dataclass(frozen=True)
class OutputLayout:
    """Outputs lie in the folders of the inputs' names, below the output folder.

    Attributes:
        output: the output folder.
        base: folder that absolute names lose; names outside it lose their root only.
    """

    output: Path
    base: str

    @classmethod
    def of(cls, output: Path, names: Iterable[str]) -> Self:
        """Return the layout of these names: absolute ones lose the folder that they have in common."""
        folders = {os.path.dirname(name) for name in names if name.startswith("/")}  # noqa: PTH120
        return cls(output, os.path.commonpath(folders) if folders else "/")

    def __call__(self, name: str) -> Path:
        """Return the output of a micrograph."""
        return self.output / self.relative(name)

    def relative(self, name: str) -> str:
        """Return the output of a micrograph relative to the output folder: its folders, and an MRC file's extension.

        Stacks keep theirs (.mrcs, .st), other names end in .mrc. Steps upward ("..") are left out.
        """
        if name.startswith("/"):
            base = self.base.rstrip("/") + "/"
            name = name.removeprefix(base if name.startswith(base) else "/")
        folder, _, file = name.rpartition("/")
        for ending in (".gz", ".bz2"):
            file = file.removesuffix(ending)
        if not file.endswith(_KEPT_ENDINGS):
            file += ".mrc"
        return "/".join([*(part for part in folder.split("/") if part not in ("", ".", "..")), file])


def half_outputs(output: Path) -> tuple[Path, Path]:
    """Return the outputs of the even and the odd half of a micrograph: `x_EVN.mrc` and `x_ODD.mrc` beside `x.mrc`."""
    stem, ending = split_name(output)
    return output.with_name(f"{stem}_EVN{ending}"), output.with_name(f"{stem}_ODD{ending}")
