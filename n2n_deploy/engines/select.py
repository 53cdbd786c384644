"""Which session works here: the best one for a bundle on this machine, proved on the golden vectors."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from n2n_deploy.bundle import Bundle
from n2n_deploy.engines.onnxruntime import OnnxRuntimeSession
from n2n_deploy.engines.session import Array, Session
from n2n_deploy.errors import BundleError, HostError, N2NError, UsageError
from n2n_deploy.manifest import Deviation, Precision


@dataclass(frozen=True)
class Engine:
    """One way of running a bundle's network.

    Attributes:
        name: of the sessions it opens.
        gpu: whether it runs on a GPU.
        precision: of the graph it runs; the manifest's tolerance for it applies.
        open: opens a session for a bundle with this many threads, or raises why it cannot.
    """

    name: str
    gpu: bool
    precision: Precision
    open: Callable[[Bundle, int | None], Session]


@dataclass(frozen=True)
class Choice:
    """The session that was picked.

    Attributes:
        session: open, proved on the golden vectors.
        precision: in which it computes.
        deviation: how far its golden outputs lie from PyTorch's.
        why_not: why each better engine was passed over; engine name → reason.
    """

    session: Session
    precision: Precision
    deviation: Deviation
    why_not: dict[str, str]


ENGINES = (
    Engine(
        OnnxRuntimeSession.name,
        gpu=False,
        precision="fp32",
        open=lambda bundle, threads: OnnxRuntimeSession(bundle.onnx("fp32"), threads),
    ),
)
"""All engines, the fastest first."""


def open_session(bundle: Bundle, device: str = "auto", threads: int | None = None) -> Session:
    """Open the best session that works here and passes the bundle's golden vectors.

    Args:
        bundle: the bundle.
        device: "auto" (the best there is), "cpu", "gpu", or "cuda:N" for one GPU.
        threads: CPU threads; by default all cores that this process may use.

    Raises:
        UsageError: there is no such kind of device.
        HostError: no engine works here, or none on a GPU where one was asked for; says why for each.
        BundleError: the network does not do here what it did when it was exported, or the bundle is damaged.
    """
    return choose_session(bundle, device, threads).session


def choose_session(bundle: Bundle, device: str = "auto", threads: int | None = None) -> Choice:
    """As `open_session`, with the reasons why better engines were passed over."""
    if not re.fullmatch(r"auto|cpu|gpu|cuda:\d+", device):
        raise UsageError(f"device {device!r} does not exist; choose auto, cpu, gpu or cuda:N")
    wanted = {"auto": (True, False), "cpu": (False,)}.get(device, (True,))
    why_not: dict[str, str] = {}
    for engine in ENGINES:
        if engine.gpu not in wanted:
            continue
        try:
            session = engine.open(bundle, threads)
        except HostError as error:
            why_not[engine.name] = str(error)
            continue
        try:
            found = verify(bundle, session, engine.precision)
        except N2NError:
            session.close()
            raise
        return Choice(session, engine.precision, found, why_not)
    if why_not:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in why_not.items())
        raise HostError(f"no engine works on device {device} here: {reasons}")
    raise HostError(
        f"device {device} was asked for, but n2n-deploy has no engine for GPUs in this version; take device cpu or auto"
    )


def verify(bundle: Bundle, session: Session, precision: Precision = "fp32") -> Deviation:
    """Run the golden vectors through a session and compare with PyTorch's outputs.

    Args:
        bundle: whose golden vectors and tolerance count.
        session: the session to prove.
        precision: in which it computes.

    Returns:
        How far the outputs lie from PyTorch's.

    Raises:
        BundleError: further than the manifest's tolerance.
    """
    inputs, expected = bundle.golden()
    tolerance = bundle.manifest.tolerance.get(precision)
    if tolerance is None:
        raise BundleError(f"{bundle.path}: the manifest states no tolerance for {precision}; export it again")
    found = deviation(session.run(inputs), expected)
    if not found.within(tolerance):
        raise BundleError(
            f"{bundle.path}: {session.name} gives other results here than PyTorch gave at export: they differ by "
            f"up to {found.max:.2g} (rms {found.rms:.2g}) standard deviations, {tolerance.max:.2g} "
            f"(rms {tolerance.rms:.2g}) are allowed; try another device, or export the model again"
        )
    return found


def deviation(outputs: Array, expected: Array) -> Deviation:
    """How far `outputs` lie from `expected`, in standard deviations of `expected`; infinite values count as 1e30."""
    scale = max(float(expected.std(dtype=np.float64)), np.finfo(np.float32).tiny)
    difference = np.nan_to_num((outputs - expected).astype(np.float64) / scale, nan=1e30, posinf=1e30, neginf=1e30)
    difference = np.clip(np.abs(difference), 0, 1e30)
    return Deviation(max=float(difference.max()), rms=float(np.sqrt(np.mean(difference**2))))
