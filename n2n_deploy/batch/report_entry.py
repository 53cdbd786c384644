"""What the report shows of one denoised micrograph, drawn by the process that denoised it."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from n2n_deploy.batch.plan import Job
from n2n_deploy.batch.status import Status
from n2n_deploy.denoiser.denoised import Denoised
from n2n_deploy.device.arrays import to_host
from n2n_deploy.report.entries import MicrographEntry
from n2n_deploy.report.illumination import illumination_flags

DrawEntry = Callable[[Job, Denoised, float, Sequence[str]], MicrographEntry]
"""`draw_entry` with its limit; it may be sent to another process."""


def draw_entry(
    job: Job, result: Denoised, seconds: float, notes: Sequence[str], *, picture_bytes: int
) -> MicrographEntry:
    """Draw the entry of a micrograph.

    Args:
        job: the micrograph.
        result: with the network's images.
        seconds: wall time it took.
        notes: what the user should know of it.
        picture_bytes: most bytes that its pictures may take.
    """
    from n2n_deploy.report.estimates import with_halves
    from n2n_deploy.report.views import view

    micrograph = job.micrograph
    views = view(
        to_host(result.network_input),
        to_host(result.network_output),
        result.spacing,
        micrograph.optics,
        micrograph.ctf,
        picture_bytes,
    )
    entry = MicrographEntry.of(micrograph, Status.DENOISED, seconds=seconds, notes=tuple(notes), views=views)
    entry = replace(entry, flags=(*illumination_flags(result.illumination), *entry.flags))
    if result.halves:
        m1, m2, d1, d2 = map(to_host, result.halves)
        entry = with_halves(entry, (m1, m2, d1, d2), result.spacing, micrograph)
    return entry
