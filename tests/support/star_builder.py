"""STAR text for tests, formatted as RELION writes it; every test folder builds its tables with this."""

from collections.abc import Mapping, Sequence
from typing import Any

Column = Sequence[Any] | str | float
"""The values of a column, or one value for all rows."""

GROUP = "rlnOpticsGroup"


def star_loop(block: str, columns: Mapping[str, Column]) -> str:
    """One block with a loop.

    Args:
        block: its name, without "data_".
        columns: values by label. Strings are written as they are (in quotes where they have spaces), integers and
            floats right-aligned in 12 characters, floats with 6 decimals.
    """
    count = max(len(column) for column in columns.values() if not _is_one_value(column))
    filled = [[column] * count if _is_one_value(column) else list(column) for column in columns.values()]
    labels = "".join(f"_{label} #{number}\n" for number, label in enumerate(columns, 1))
    rows = "".join(" ".join(map(_text, row)) + "\n" for row in zip(*filled, strict=True))
    return f"\n# version 30001\n\ndata_{block}\n\nloop_\n{labels}{rows}\n"


def optics_block(
    pixel_size: Column = 2.0,
    voltage: Column = 300.0,
    spherical_aberration: Column = 2.7,
    amplitude_contrast: Column = 0.1,
) -> str:
    """Optics groups 1, 2, …: one, or as many as the longest argument has values."""
    values = (voltage, spherical_aberration, amplitude_contrast, pixel_size)
    count = max(1 if _is_one_value(value) else len(value) for value in values)
    labels = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnMicrographPixelSize")
    numbers = range(1, count + 1)
    names = [f"opticsGroup{number}" for number in numbers]
    return star_loop(
        "optics", {"rlnOpticsGroupName": names, GROUP: list(numbers), **dict(zip(labels, values, strict=True))}
    )


def star_table(columns: Mapping[str, Column], **optics: Column) -> str:
    """A RELION 3.1 micrograph table.

    Args:
        columns: of data_micrographs; `rlnOpticsGroup` is 1 where it is not given.
        optics: as for `optics_block`.
    """
    name, *others = columns
    grouped = {name: columns[name], GROUP: 1} | {label: columns[label] for label in others}
    return optics_block(**optics) + star_loop("micrographs", grouped)


def _is_one_value(column: Column) -> bool:
    return isinstance(column, (str, int, float))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"' if " " in value else value
    return f"{value:12d}" if isinstance(value, int) else f"{value:12.6f}"
