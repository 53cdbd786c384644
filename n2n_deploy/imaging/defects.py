"""What is wrong with an area of an image: a dead line, a constant margin, a dead module; and its repair."""

from dataclasses import dataclass
from typing import Literal

import numpy
from numpy.typing import NDArray

from n2n_deploy.device.array_types import Array
from n2n_deploy.device.arrays import device_of

Side = Literal["top", "bottom", "left", "right"]


@dataclass(frozen=True, slots=True, eq=False)
class Defect:
    """One defective area.

    Attributes:
        kind: "row" or "column" of dead lines, "margin" along a side or "area", both of which hold one value.
        rows: first and last + 1.
        columns: first and last + 1.
        side: of the image, where a margin runs along one.
        value: what a margin or an area holds.
        packed: which pixels of this rectangle it is, as `numpy.packbits` gives them row by row; None for all.
    """

    kind: Literal["row", "column", "margin", "area"]
    rows: tuple[int, int]
    columns: tuple[int, int]
    side: Side | None = None
    value: float = 0.0
    packed: NDArray[numpy.uint8] | None = None

    @property
    def box(self) -> tuple[slice, slice]:
        """The rectangle that holds it."""
        return slice(*self.rows), slice(*self.columns)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of that rectangle."""
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    @property
    def lines(self) -> int:
        """How many lines it is wide: dead rows or columns, or a margin's width."""
        return self.shape[0] if self.kind == "row" or self.side in ("top", "bottom") else self.shape[1]

    @property
    def kept(self) -> bool:
        """Whether the output keeps the input's values here, because nothing can be said of what is missing."""
        return self.kind in ("margin", "area")

    def mask(self) -> NDArray[numpy.bool_]:
        """Return which pixels of the rectangle it is, (height, width)."""
        if self.packed is None:
            return numpy.ones(self.shape, dtype=bool)
        return numpy.unpackbits(self.packed, axis=1, count=self.shape[1]).astype(bool)


@dataclass(frozen=True, slots=True)
class Window:
    """What is left of an image inside its straight margins; bottom and right are last + 1."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def box(self) -> tuple[slice, slice]:
        """The rectangle."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def mask_of(defects: tuple[Defect, ...], shape: tuple[int, int], like: Array) -> Array:
    """Return the pixels of all these defects, (ny, nx) bool, on the device of another array."""
    xp = device_of(like).xp
    mask: Array = xp.zeros(shape, dtype=bool)
    for defect in defects:
        if defect.packed is None:
            mask[defect.box] = True
        else:
            mask[defect.box] |= xp.asarray(defect.mask())
    return mask


def put_back(image: Array, defects: tuple[Defect, ...]) -> None:
    """Give constant margins and areas of an image, (ny, nx), the values again that they had; in place."""
    xp = device_of(image).xp
    for defect in defects:
        if defect.kept and defect.packed is None:
            image[defect.box] = numpy.float32(defect.value)
        elif defect.kept:
            inside = xp.asarray(defect.mask())
            image[defect.box] = xp.where(inside, numpy.float32(defect.value), image[defect.box])


def describe(defects: tuple[Defect, ...]) -> tuple[list[str], list[str]]:
    """Return in words what was repaired, and what keeps its values: "3 dead columns", "a constant margin of 4 px …"."""
    repaired = []
    for kind in ("row", "column"):
        count = sum(defect.lines for defect in defects if defect.kind == kind)
        if count:
            repaired.append(f"{count} dead {kind}{'s' if count > 1 else ''}")
    widths: dict[str, int] = {}
    for defect in defects:
        if defect.side is not None:
            widths[defect.side] = widths.get(defect.side, 0) + defect.lines
    kept = [
        f"a constant margin of {width} px at the {_joined([side for side in widths if widths[side] == width])}"
        for width in dict.fromkeys(widths.values())
    ]
    areas = [defect for defect in defects if defect.kind == "area"]
    if len(areas) == 1 and areas[0].packed is None:
        height, width = areas[0].shape
        kept.append(f"a constant area of {width}×{height} px")
    elif areas:
        pixels = sum(int(area.mask().sum()) for area in areas)
        kept.append(f"{'a constant area' if len(areas) == 1 else f'{len(areas)} constant areas'} of {pixels} px")
    return repaired, kept


def _joined(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
