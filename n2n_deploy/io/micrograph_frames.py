"""`read_micrographs` for notebooks: a table of micrographs, whatever its format, as pandas DataFrames."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from n2n_deploy.core.options import NamingOptions, OpticsOptions
from n2n_deploy.io import star
from n2n_deploy.io.star_document import StarDocument, micrograph_table
from n2n_deploy.io.star_frames import read_blocks
from n2n_deploy.io.tilt_series import is_tilt_series

if TYPE_CHECKING:
    from n2n_deploy.io.star_frames import Block


def read_micrographs(
    source: Path | str | Sequence[Path | str],
    *,
    naming: NamingOptions | None = None,
    optics: OpticsOptions | None = None,
    parse_as_string: Sequence[str] = (),
) -> "dict[str, Block]":
    """Read a table of micrographs as pandas DataFrames, to be looked at, changed and given to `denoise`.

    Args:
        source: as for `denoise`: a STAR file, cryoSPARC's .cs file of exposures, an MRC file or glob, or a list of
            these MRC files. What is not a STAR file is given RELION 3.1's labels, Å and degrees.
        naming: where MRC files are found; see `NamingOptions`.
        optics: for MRC files whose headers lack them; see `OpticsOptions`.
        parse_as_string: labels whose values stay text, with every digit as it is written. Labels with "Name" in
            them always do.

    Returns:
        The blocks by name, as `starfile.read` gives them: "optics" and "micrographs" of a table of RELION 3.1 or
        later, "global" of RELION 5's tilt series. A loop is a DataFrame, a list of label-value pairs a dict.

    Raises:
        DataError: the table cannot be read, or lists no micrographs.
        UsageError: the naming is invalid.
    """
    if not isinstance(source, Path | str) or not str(source).endswith(".star"):
        table = star.read_micrographs(
            source, naming, need_ctf=False, **(optics.model_dump() if optics is not None else {})
        )
        document = table.select({each.row: each.name for each in table.micrographs})
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "micrographs.star"
            document.write(path)
            return read_blocks(path, parse_as_string)
    document = StarDocument.read(Path(source))
    if not is_tilt_series(document):
        micrograph_table(document)
    return read_blocks(Path(source), parse_as_string)
