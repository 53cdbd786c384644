"""What the report shows: one run, and one entry for each of its micrographs."""

import base64
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

import numpy as np

from n2n_deploy.io.records import Micrograph


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What ran. The mappings hold plain values; `facts` in `run_info` puts them in words for the page.

    Attributes:
        title: heading of the page.
        command: the command line that wrote the page, where there was one.
        model: the bundle: name, hash, preset.
        recipe: how pixels became network input.
        options: the effective options.
        versions: of this package and what it ran on.
        hardware: host, processor, GPU.
        throughput: counts, wall time, micrographs per hour.
        results: what was found for the whole set: by quantity, texts by column, the same columns in each row.
        figures: PNG files by caption, shown below the facts.
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


@dataclass(frozen=True, slots=True)
class Flag:
    """Something about a micrograph that a person should look at.

    Attributes:
        kind: a few words that the report can filter by, the same for all micrographs with this trouble.
        text: one sentence with the numbers.
    """

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Curves:
    """Several curves over one axis of spatial frequency.

    Attributes:
        frequency: (n,) 1/Å.
        noisy: (n,) before denoising.
        denoised: (n,) after.
        zeros: 1/Å, where the CTF is zero.
    """

    frequency: np.ndarray
    noisy: np.ndarray
    denoised: np.ndarray
    zeros: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Views:
    """What there is to see of one micrograph: small pictures (JPEG) and its power spectra.

    Attributes:
        pictures: by name: "noisy", "denoised" and "residual" of the whole field, and "noisy detail" and
            "denoised detail" of its middle in network pixels.
        spectra: rotationally averaged power before and after.
        power_kept: variance of the denoised over that of the noisy image, within the recipe's band.
        flags: what looks wrong.
    """

    pictures: Mapping[str, bytes]
    spectra: Curves
    power_kept: float
    flags: tuple[Flag, ...] = ()


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
        snr: of one half before and after denoising, where the halves gave it.
        sbr: signal-to-bias ratio (eq. 23), where the halves gave it.
        recovered: recovered signal fraction, at most 1, where the halves gave it.
        flags: what looks wrong, those of `views` among them.
        notes: what else there is to know, one line each.
        views: pictures and spectra, where there are any.
        ssnr: SNR of one half by frequency, where the halves gave it.
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
        """Make the entry of a micrograph from its record; flags of `views` are appended to those given."""
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
        """Return plain values for JSON; `from_json` makes the entry again (curves at four digits)."""
        plain: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        plain["flags"] = [asdict(flag) for flag in self.flags]
        plain["ssnr"] = None if self.ssnr is None else _curves_json(self.ssnr)
        if self.views is not None:
            plain["views"] = {
                "pictures": {name: base64.b64encode(data).decode() for name, data in self.views.pictures.items()},
                "spectra": _curves_json(self.views.spectra),
                "power_kept": self.views.power_kept,
            }
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Make the entry that `as_json` wrote, so that a resumed or divided run can report on all of it."""
        values = dict(plain)
        values["flags"] = tuple(Flag(**flag) for flag in plain["flags"])
        values["notes"] = tuple(plain["notes"])
        values["snr"] = tuple(plain["snr"]) if plain["snr"] else None
        values["ssnr"] = _curves(plain["ssnr"]) if plain["ssnr"] else None
        if views := plain["views"]:
            pictures = {name: base64.b64decode(text) for name, text in views["pictures"].items()}
            values["views"] = Views(pictures, _curves(views["spectra"]), views["power_kept"])
        return cls(**values)


def _curves_json(curves: Curves) -> dict[str, Any]:
    return {
        "frequency": _rounded(curves.frequency),
        "noisy": _rounded(curves.noisy),
        "denoised": _rounded(curves.denoised),
        "zeros": _rounded(np.array(curves.zeros)),
    }


def _curves(plain: Mapping[str, Any]) -> Curves:
    frequency, noisy, denoised = (
        np.array([np.nan if value is None else value for value in plain[name]])
        for name in ("frequency", "noisy", "denoised")
    )
    return Curves(frequency, noisy, denoised, tuple(plain["zeros"]))


def _rounded(values: np.ndarray) -> list[float | None]:
    """Keep four digits, more than a screen shows; JSON knows no NaN or infinity, so they become null."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        scale = 10.0 ** np.clip(3 - np.floor(np.log10(np.abs(values))), -300, 300)
        rounded = np.where(values == 0, 0.0, np.round(values * scale) / scale)
    return [value if finite else None for value, finite in zip(rounded.tolist(), np.isfinite(values), strict=True)]
