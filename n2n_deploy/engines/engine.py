"""`Engine`: one way of running a bundle's network, as the registry in `select.py` lists them."""

from collections.abc import Callable
from dataclasses import dataclass

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.members import onnx_member
from n2n_deploy.core.errors import HostError
from n2n_deploy.core.options import Precision
from n2n_deploy.device.processor import multiplies_int8
from n2n_deploy.engines.session import Session


@dataclass(frozen=True, slots=True)
class Request:
    """What the user wants of an engine.

    Attributes:
        threads: CPU threads; None for all.
        gpu: index of the GPU.
        precision: None for the engine's own choice.
        named: whether the user named this very engine.
    """

    threads: int | None = None
    gpu: int = 0
    precision: Precision | None = None
    named: bool = False


@dataclass(frozen=True, slots=True)
class Engine:
    """One way of running a bundle's network.

    Attributes:
        name: as users write it after `--engine`.
        gpu: whether it runs on a GPU.
        open: opens a session for a bundle and returns it with its precision; raises HostError if it cannot.
        diagnose: says what `open` would do on this machine, with a bundle or with any; raises HostError if something
            is missing, with the remedy.
    """

    name: str
    gpu: bool
    open: Callable[[Bundle, Request], tuple[Session, Precision]]
    diagnose: Callable[[Bundle | None], str]


def onnx_model(bundle: Bundle, precision: Precision) -> bytes:
    """Return the bundle's ONNX model of a precision.

    Raises:
        HostError: the bundle has none in this precision.
        BundleError: it is damaged.
    """
    if onnx_member(precision) not in bundle.manifest.members and precision == "int8":
        raise HostError(f"the bundle offers no int8: {bundle.manifest.int8_refused or 'export it again'}")
    if onnx_member(precision) not in bundle.manifest.members:
        raise HostError(f"the bundle has no {precision} model; n2n-deploy compile --precision {precision} adds one")
    return bundle.onnx(precision)


def check_tolerance(bundle: Bundle, precision: Precision) -> None:
    """Refuse a precision for which the bundle, exported before it was supported, states no tolerance.

    Raises:
        HostError: the bundle is such a one.
    """
    if precision not in bundle.manifest.tolerance:
        raise HostError(f"the bundle states no tolerance for {precision}; export it again")


def offers_int8(bundle: Bundle) -> bool:
    """Whether the bundle offers int8 and this processor runs it right and fast."""
    return onnx_member("int8") in bundle.manifest.members and "int8" in bundle.manifest.tolerance and multiplies_int8()


def check_int8(bundle: Bundle) -> None:
    """Refuse int8 where it was not exported, or would give other results.

    Raises:
        HostError: the bundle does not offer it, or the processor lacks VNNI: there sums of products overflow.
    """
    onnx_model(bundle, "int8")
    check_tolerance(bundle, "int8")
    if not multiplies_int8():
        raise HostError("int8 needs a processor with VNNI (AVX-512 or AVX) or AMX; use --precision fp32 here")
