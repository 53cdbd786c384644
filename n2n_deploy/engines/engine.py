"""`Engine`: one way of running a bundle's network, as the registry in `select.py` lists them."""

from collections.abc import Callable
from dataclasses import dataclass

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.members import onnx_member
from n2n_deploy.core.errors import HostError
from n2n_deploy.core.options import Precision
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
