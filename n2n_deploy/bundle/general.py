"""The general model by its name: the bundle that comes with the package."""

from pathlib import Path

from n2n_deploy import data
from n2n_deploy.core.errors import HostError

GENERAL = "general"
"""The name by which commands and functions take the package's own bundle."""


def locate(model: Path | str) -> Path:
    """Return the file of a model: what "general" stands for, or the path itself.

    A file of that name in the current folder is `./general`, given as text.

    Raises:
        HostError: this installation has no general model.
    """
    if str(model) != GENERAL:
        return Path(model)
    if not data.GENERAL_MODEL.is_file():
        raise HostError(
            f"this installation has no general model ({data.GENERAL_MODEL} is missing); name one with --model MODEL.n2n"
        )
    return data.GENERAL_MODEL
