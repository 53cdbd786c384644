"""TensorRT's optimisation profiles: making them for the shapes of micrographs, and choosing one for a batch."""

from collections import Counter
from collections.abc import Iterable

from n2n_deploy.bundle.engine_facts import Profile, Shape
from n2n_deploy.core.errors import UsageError
from n2n_deploy.imaging.fourier import SMALLEST

MOST_PROFILES = 8
"""Each is tuned, and has its own kernels in the engine."""


def make_profiles(
    shapes: Iterable[tuple[int, int]], *, must_take: tuple[int, int] | None = None, batch: int = 1
) -> tuple[Profile, ...]:
    """Return one profile for each distinct shape, the most frequent first.

    Each is fastest for its own shape and accepts all smaller ones, such as tiles and the golden vectors.

    Args:
        shapes: (height, width) of the network's input, as often as they occur.
        must_take: a shape that must be accepted; it gets a profile of its own if no other accepts it.
        batch: largest number of images in a batch.

    Raises:
        UsageError: there is no shape, one is below the smallest input, or there are more than `MOST_PROFILES`.
    """
    counted = [shape for shape, _ in Counter(shapes).most_common()]
    if not counted:
        raise UsageError("no micrograph sizes to compile for; give --sizes with --pixel-size, --star or --tile")
    if must_take is not None and not any(must_take[0] <= height and must_take[1] <= width for height, width in counted):
        counted.append(must_take)
    if min(min(shape) for shape in counted) < SMALLEST:
        raise UsageError(f"the network's input must have at least {SMALLEST} pixels a side, not {min(counted)}")
    if len(counted) > MOST_PROFILES:
        raise UsageError(
            f"too many different sizes for one engine: {len(counted)}, at most {MOST_PROFILES}; "
            "compile for tiles of one size with --tile"
        )
    return tuple(
        Profile(
            minimum=(1, 1, SMALLEST, SMALLEST),
            optimum=(batch, 1, height, width),
            maximum=(batch, 1, height, width),
        )
        for height, width in counted
    )


def choose_profile(profiles: tuple[Profile, ...], shape: Shape) -> int | None:
    """Return the index of the smallest profile that accepts a batch of `shape`; None if none does."""
    fitting = [index for index, profile in enumerate(profiles) if profile.takes(shape)]
    return min(fitting, key=lambda index: _pixels(profiles[index].maximum), default=None)


def _pixels(shape: Shape) -> int:
    return shape[0] * shape[2] * shape[3]
