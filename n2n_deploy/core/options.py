"""What users choose for every command alike: where to compute, how files are named, what is known of the microscope."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from n2n_deploy.core.errors import UsageError
from n2n_deploy.core.sizes import parse_bytes

Precision = Literal["fp32", "fp16", "bf16", "int8"]
"""What the network computes in."""

Pairs = Literal["auto", "halves", "recorrupted"]
"""What noise is told from signal by: even and odd halves, or full exposures with noise of their own spectrum added and
subtracted; "auto" is halves where table or options name them."""


def parse_device(text: str) -> str:
    """Return the one name of a device: "auto", "cpu", "gpu" (which "cuda" means, too) or "cuda:N".

    Raises:
        UsageError: there is no such device.
    """
    if not re.fullmatch(r"auto|cpu|gpu|cuda(:\d+)?", text):
        raise UsageError(f"invalid device {text!r}; choose auto, cpu, gpu (or cuda) or cuda:N")
    return "gpu" if text == "cuda" else text


def _split_suffixes(value: Any) -> Any:
    """Three suffixes of a text such as "DW,EVN,ODD"; other values are the model's to check."""
    if not isinstance(value, str):
        return value
    parts = tuple(value.split(","))
    if len(parts) != 3:
        raise UsageError(f"invalid suffixes {value!r}; expected three (whole, even, odd sum), such as DW,EVN,ODD")
    return parts


def _read_size(value: Any) -> Any:
    return parse_bytes(value) if isinstance(value, str) else value


Device = Annotated[str, AfterValidator(parse_device)]
"""The name of a device, checked."""


class ComputeOptions(BaseModel):
    """Where and how the network runs. None of it changes what is computed, but for `precision`, and that by rounding.

    Attributes:
        device: "auto" (a GPU where one works), "cpu", "gpu" or "cuda" (the first GPU), or "cuda:N".
        gpus: indices of several GPUs to use, with as many lanes on each; None for the one that `device` means.
        engine: name of the one engine to use, such as "tensorrt"; None for the fastest that works.
        precision: None for the engine's own: fp16 on a GPU; on a CPU int8 where the bundle offers it and the processor
            has VNNI, else bf16 with OpenVINO and AMX, else fp32.
        memory: bytes of host memory that the process may use, or text such as "3GB"; None for a share of what is free.
        threads: CPU threads of the network; None for all cores.
        lanes: micrographs processed concurrently, on each GPU; fewer where memory is short. None for what suits the
            machine.
        trusted_keys: file or folder of public keys, one of which must have signed the bundle.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Device = "auto"
    gpus: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    engine: str | None = None
    precision: Precision | None = None
    memory: Annotated[int, Field(gt=0), BeforeValidator(_read_size)] | None = None
    threads: Annotated[int, Field(gt=0)] | None = None
    lanes: Annotated[int, Field(gt=0)] | None = None
    trusted_keys: Path | None = None

    @model_validator(mode="after")
    def _one_way_to_name_gpus(self) -> Self:
        if self.gpus is not None:
            if self.device not in ("auto", "gpu"):
                raise UsageError(f"GPUs {self.gpus} and device {self.device} exclude each other; give one of them")
            if len(set(self.gpus)) < len(self.gpus):
                raise UsageError(f"GPUs {self.gpus}: a GPU is named twice")
        return self

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices to open the model on, one for each GPU."""
        return (self.device,) if self.gpus is None else tuple(f"cuda:{index}" for index in self.gpus)


class NamingOptions(BaseModel):
    """How the names in a table become files, and the names of whole sums those of their even and odd halves.

    Attributes:
        project: folder that the table's relative paths start at; None to try the current folder, then the table's own
            and each one above it.
        suffixes: of the whole, even and odd sums, such as ("DW", "EVN", "ODD") or the text "DW,EVN,ODD"; they win over
            what the table says of halves.
        even_template: name of the even half, with {folder}, {stem}, {name} and {ending} of the whole sum.
        odd_template: the same for the odd half.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    project: Path | None = None
    suffixes: Annotated[tuple[str, str, str] | None, BeforeValidator(_split_suffixes)] = None
    even_template: str | None = None
    odd_template: str | None = None


class OpticsOptions(BaseModel):
    """Optics of tables and files that lack them; a value that the table has wins, and a contradiction is noted.

    Attributes:
        pixel_size: Å per pixel of the micrographs; wins over the headers of files.
        voltage: kV.
        spherical_aberration: mm.
        amplitude_contrast: fraction, such as 0.1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pixel_size: Annotated[float, Field(gt=0)] | None = None
    voltage: Annotated[float, Field(gt=0)] | None = None
    spherical_aberration: float | None = None
    amplitude_contrast: float | None = None
