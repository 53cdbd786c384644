"""How much of an image lies beyond the range of an int8 network, which clips it there.

A preprocessed image has mean 0 and standard deviation 1, so by Chebyshev's inequality at most 1/k² of it can lie
beyond ±k, whatever the micrograph: 5 % for a range of ±4.5. Contamination is clipped, the rest is as in fp32.
"""

from collections.abc import Iterable
from typing import Any

import numpy
from numpy.typing import NDArray

from n2n_deploy.bundle.manifest import Quantisation

_NOTED = 1e-3


def clipping_note(images: Iterable[NDArray[Any]], facts: Quantisation) -> tuple[str, ...]:
    """Return a note if more than a thousandth of an image is clipped.

    Args:
        images: preprocessed, (h, w).
        facts: of the int8 network.
    """
    low, high = facts.input_range
    clipped = max(float(numpy.mean((image < low) | (image > high))) for image in images)
    if clipped <= _NOTED:
        return ()
    return (
        f"{clipped:.1%} of the pixels lie beyond the range of int8 ({low:.1f} to {high:.1f} standard deviations) and "
        "were clipped; --precision fp32 keeps them",
    )
