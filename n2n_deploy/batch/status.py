"""`Status`: where a micrograph stands, in the plan, in the ledger and in everything that is made of them."""

from enum import StrEnum


class Status(StrEnum):
    """Where a micrograph stands; the first four before the run, the last two after it was tried."""

    PENDING = "to do"
    DONE = "done"
    KEPT = "kept"
    REFUSED = "refused"
    DENOISED = "denoised"
    FAILED = "failed"


PLANNED = (Status.PENDING, Status.DONE, Status.KEPT, Status.REFUSED)
"""What a plan can say of a micrograph."""

FINISHED = frozenset({Status.DENOISED, Status.DONE, Status.KEPT})
"""Of a micrograph that has its output: by this run, by an earlier one, or of other work."""

UNUSABLE = frozenset({Status.FAILED, Status.REFUSED})
"""Of a micrograph that was given up, with a reason."""
