"""Images that this program denoised: known by the label in their header, and not denoised or learned from again."""

import re

from n2n_deploy.core.errors import DataError
from n2n_deploy.io.mrc_header import MRCHeader

DENOISED = " denoised: "
"""In the label of every output, after the program's name and version; `with_precision` may put the precision in it."""

_OURS = re.compile(r"n2n-deploy \S+ denoised(?: in \w+)?: ")


def refuse_denoised(header: MRCHeader) -> None:
    """Refuse an image that is an output of this program.

    A network has learned what noise looks like in raw images. Where there is none left it takes away signal, and with
    each pass the image gets fainter.

    Raises:
        DataError: the header has our label.
    """
    label = next((label for label in header.labels if _OURS.match(label)), None)
    if label is not None:
        raise DataError(
            f"{header.path}: was denoised already ({label}); give the image that it was made from "
            "(denoise and train take --allow-denoised to use it all the same)"
        )
