"""Flag for micrographs of which a part is much darker or brighter than the rest."""

from n2n_deploy.imaging.illumination import Illumination
from n2n_deploy.report.entries import Flag


def illumination_flags(found: Illumination | None) -> tuple[Flag, ...]:
    """Return the flag `beam edge` or `uneven illumination`, with the affected fraction, or none."""
    return () if found is None else (Flag(found.kind, str(found)),)
