"""What the report shows: one run, and one entry for each of its micrographs."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, TypeAdapter

from n2n_deploy.io.records import Micrograph


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What ran. The mappings hold plain values; `run_info.facts` converts them to text for the page.

    Attributes:
        title: heading of the page.
        command: the command line that wrote the page, if there was one.
        model: the bundle: name, hash, preset.
        recipe: how pixels became network input.
        options: the effective options.
        versions: of this package and its dependencies.
        hardware: host, processor, GPU.
        throughput: counts, wall time, micrographs per hour.
        results: results for the whole set: texts by quantity and column, the same columns in each row.
        figures: PNG files by caption, shown below the results.
        remarks: what the reader should know before using the outputs, shown in the head.
    """

    title: str
    command: str = ""
    model: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    hardware: Mapping[str, Any] = field(default_factory=dict)
    throughput: Mapping[str, Any] = field(default_factory=dict)
    results: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    figures: Mapping[str, bytes] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def _array(values: Any) -> NDArray[np.float64]:
    """Null means not finite; see `_four_digits`."""
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _four_digits(values: NDArray[np.float64] | tuple[float, ...]) -> list[float | None]:
    """Round to four digits, more than a screen shows. JSON has no NaN and no infinity, so they become null."""
    array = np.asarray(values, np.float64)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        scale = 10.0 ** np.clip(3 - np.floor(np.log10(np.abs(array))), -300, 300)
        rounded = np.where(array == 0, 0.0, np.round(array * scale) / scale)
    return [value if finite else None for value, finite in zip(rounded.tolist(), np.isfinite(array), strict=True)]


_Curve = Annotated[NDArray[np.float64], PlainValidator(_array), PlainSerializer(_four_digits)]
_Picture = Annotated[
    bytes,
    BeforeValidator(lambda text: base64.b64decode(text) if isinstance(text, str) else text),
    PlainSerializer(lambda data: base64.b64encode(data).decode()),
]


@dataclass(frozen=True, slots=True)
class Flag:
    """Something about a micrograph that a person should look at.

    Attributes:
        kind: a few words to filter by, the same for all micrographs with this problem.
        text: one sentence with the numbers.
    """

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Curves:
    """Two curves over one axis of spatial frequency.

    Attributes:
        frequency: (n,) 1/Å.
        noisy: (n,) before denoising.
        denoised: (n,) after denoising.
        zeros: 1/Å, the zeros of the CTF.
    """

    frequency: _Curve
    noisy: _Curve
    denoised: _Curve
    zeros: Annotated[tuple[float, ...], PlainSerializer(_four_digits)] = ()


@dataclass(frozen=True, slots=True)
class Views:
    """Pictures (JPEG) and power spectra of one micrograph.

    Attributes:
        pictures: by name: "noisy", "denoised" and "residual" of the whole field, and "noisy detail" and
            "denoised detail" of its middle in network pixels.
        spectra: rotationally averaged power before and after denoising.
        power_kept: variance of the denoised image over that of the noisy one, within the recipe's band.
        flags: what looks wrong; an entry has them among its own flags, so they are not stored twice.
    """

    pictures: Mapping[str, _Picture]
    spectra: Curves
    power_kept: float
    flags: Annotated[tuple[Flag, ...], Field(exclude=True)] = ()


@dataclass(frozen=True, slots=True)
class MicrographEntry:
    """One row of the report.

    Attributes:
        name: as in the table.
        status: "denoised", "evaluated", "done before", "kept", "failed", "refused" or "not begun".
        reason: why it failed, one line.
        seconds: wall time.
        pixel_size: Å.
        defocus: µm, the mean of both axes.
        snr: of one half before and after denoising, if there are halves.
        sbr: signal-to-bias ratio (eq. 23), if there are halves.
        recovered: recovered signal fraction, at most 1, if there are halves.
        flags: what looks wrong, including the flags of `views`.
        notes: further remarks, one line each.
        views: pictures and spectra, if there are any.
        ssnr: SNR of one half by frequency, if there are halves.
    """

    name: str
    status: str
    reason: str = ""
    seconds: float | None = None
    pixel_size: float | None = None
    defocus: float | None = None
    snr: tuple[float, float] | None = None
    sbr: float | None = None
    recovered: float | None = None
    flags: tuple[Flag, ...] = ()
    notes: tuple[str, ...] = ()
    views: Views | None = None
    ssnr: Curves | None = None

    @classmethod
    def of(
        cls,
        micrograph: Micrograph,
        status: str,
        reason: str = "",
        *,
        seconds: float | None = None,
        flags: tuple[Flag, ...] = (),
        notes: tuple[str, ...] = (),
        views: Views | None = None,
    ) -> Self:
        """Make the entry of a micrograph from its record; the flags of `views` are appended to those given."""
        return cls(
            micrograph.name,
            status,
            reason,
            seconds=seconds,
            pixel_size=micrograph.optics.pixel_size,
            defocus=None if micrograph.ctf is None else micrograph.ctf.mean_defocus / 1e4,
            flags=(*flags, *(views.flags if views else ())),
            notes=notes,
            views=views,
        )

    def as_json(self) -> dict[str, Any]:
        """Convert to plain values for JSON, curves at four digits."""
        plain: dict[str, Any] = _ENTRY.dump_python(self, mode="json")
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> "MicrographEntry":
        """Convert back from `as_json`.

        Raises:
            ValueError: the values are not those of an entry.
        """
        return _ENTRY.validate_python(plain)


_ENTRY: TypeAdapter[MicrographEntry] = TypeAdapter(MicrographEntry)
