"""Finding what holds one value: margins of motion correction, dead modules of a detector, masked corners."""

from n2n_deploy.device.array_types import Array
from n2n_deploy.imaging.constant_values import ValueShares
from n2n_deploy.imaging.dead_modules import find_areas, find_bands
from n2n_deploy.imaging.defects import Defect, Window
from n2n_deploy.imaging.margins import find_staircases, margins_fade, peel_margins
from n2n_deploy.imaging.pixel_statistics import PixelStatistics


def find_constant_areas(image: Array, statistics: PixelStatistics) -> list[Defect]:
    """Return the areas that hold one value and cannot do so by chance.

    * Straight margins: outermost lines that are constant, each side with a width of its own.
    * Rectangles of 32 pixels a side or more, anywhere; and bands of constant lines across the image.
    * Other shapes that touch the border: staircases, masked corners, the triangles of a rotated image.

    What is saturated (contamination, a crystal of ice) also holds one value, but fades out: other pixels around it have
    that value too, and more of them than far away. Such areas are left alone, as are runs of zeros in sparse counts,
    which are as long as the share of zeros lets expect.

    Args:
        image: (ny, nx) float32, finite.
        statistics: of the image.
    """
    window, margins = peel_margins(image)
    if min(window.bottom - window.top, window.right - window.left) < 2:
        return []  # nothing but margins; refused as an image without signal
    shares = ValueShares(image, window, statistics.constant_tiles)
    found = [margin for margin in margins if max(margin.shape) >= shares.fewest(margin.value)]
    if len(found) < len(margins) or margins_fade(image, window, margins, shares):
        found, window = [], Window(0, image.shape[0], 0, image.shape[1])
    found += find_bands(image, window, statistics, shares)
    if statistics.constant_tiles.any():
        found += find_areas(image, window, statistics.constant_tiles, shares, found)
    found += find_staircases(image, window, shares, found)
    return found
