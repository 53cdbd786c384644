"""Which session works here: the best one for a bundle on this machine, proved on the golden vectors."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.manifest import Deviation, Precision
from n2n_deploy.bundle.trust import check_trusted
from n2n_deploy.core.errors import BundleError, HostError, N2NError, UsageError
from n2n_deploy.device.processor import multiplies_bfloat16
from n2n_deploy.engines.gpu_sessions import find_gpu, open_lean, open_onnxruntime_cuda, open_tensorrt
from n2n_deploy.engines.onnxruntime.run import OnnxRuntimeSession
from n2n_deploy.engines.onnxruntime.segments import SegmentedSession
from n2n_deploy.engines.openvino.run import OpenVinoSession
from n2n_deploy.engines.session import Session


@dataclass(frozen=True)
class Request:
    """What is asked of an engine.

    Attributes:
        threads: CPU threads; None for all.
        gpu: index of the GPU.
        precision: None for the engine's own choice.
        named: whether this very engine was asked for.
    """

    threads: int | None
    gpu: int
    precision: Precision | None
    named: bool


@dataclass(frozen=True)
class Engine:
    """One way of running a bundle's network.

    Attributes:
        name: how users call it.
        gpu: whether it runs on a GPU.
        open: opens a session for a bundle and tells its precision, or raises why it cannot.
    """

    name: str
    gpu: bool
    open: Callable[[Bundle, Request], tuple[Session, Precision]]


@dataclass(frozen=True)
class Choice:
    """The session that was picked.

    Attributes:
        session: open, proved on the golden vectors.
        precision: in which it computes.
        deviation: how far its golden outputs lie from PyTorch's.
        rejected_engines: why each better engine was passed over; engine name → reason.
    """

    session: Session
    precision: Precision
    deviation: Deviation
    rejected_engines: dict[str, str]


def _open_openvino(bundle: Bundle, request: Request) -> tuple[Session, Precision]:
    precision = request.precision or ("bf16" if multiplies_bfloat16() else "fp32")
    if not request.named and not multiplies_bfloat16():
        raise HostError("this processor has no AMX, without which it gains little; --engine openvino forces it")
    if not request.named and precision == "fp32":
        raise HostError("in fp32 it gains little, and needs more memory; --engine openvino forces it")
    check_tolerance(bundle, precision)
    return OpenVinoSession(bundle.onnx("fp32"), request.threads, precision), precision


def check_tolerance(bundle: Bundle, precision: Precision) -> None:
    """Raise HostError where a bundle, made before a precision was known, does not say how exact it must be."""
    if precision not in bundle.manifest.tolerance:
        raise HostError(f"the bundle states no tolerance for {precision}; export it again")


def _open_cpu(bundle: Bundle, request: Request) -> tuple[Session, Precision]:
    if request.precision not in (None, "fp32"):
        raise HostError(f"on the CPU ONNX Runtime's own kernels run the network in fp32, not {request.precision}")
    if segments := bundle.segments():
        return SegmentedSession(segments, request.threads), "fp32"
    return OnnxRuntimeSession(bundle.onnx("fp32"), request.threads), "fp32"


ENGINES = (
    Engine("tensorrt", True, lambda bundle, how: open_tensorrt(bundle, "tensorrt", how.gpu, how.precision)),
    Engine("rtx", True, lambda bundle, how: open_tensorrt(bundle, "rtx", how.gpu, how.precision)),
    Engine("tensorrt-lean", True, lambda bundle, how: open_lean(bundle, how.gpu, how.precision)),
    Engine("onnxruntime-cuda", True, lambda bundle, how: open_onnxruntime_cuda(bundle, how.gpu, how.precision)),
    Engine("openvino", False, _open_openvino),
    Engine(OnnxRuntimeSession.name, False, _open_cpu),
)
"""All engines, the fastest first."""


def open_session(
    bundle: Bundle,
    device: str = "auto",
    threads: int | None = None,
    *,
    engine: str | None = None,
    precision: Precision | None = None,
    trusted_keys: Path | None = None,
) -> Session:
    """Open the best session that works here and passes the bundle's golden vectors.

    Args:
        bundle: the bundle.
        device: "auto" (the best there is), "cpu", "gpu", or "cuda:N" for one GPU.
        threads: CPU threads; by default all cores that this process may use.
        engine: name of the one engine to use; None for the best.
        precision: of the network; None for fp16 on a GPU, or what the bundle ships; on the CPU for fp32, or bf16
            where OpenVINO runs it on a processor that multiplies that in hardware.
        trusted_keys: public keys, one of which must have signed the bundle; see `check_trusted`.

    Raises:
        UsageError: there is no such device or engine, or the engine does not run on the device.
        HostError: no engine works here, or none on a GPU where one was asked for; says why for each.
        BundleError: the network does not do here what it did when it was exported, or the bundle is damaged, or
            no trusted key signed it.
    """
    return choose_session(
        bundle, device, threads, engine=engine, precision=precision, trusted_keys=trusted_keys
    ).session


def choose_session(
    bundle: Bundle,
    device: str = "auto",
    threads: int | None = None,
    *,
    engine: str | None = None,
    precision: Precision | None = None,
    trusted_keys: Path | None = None,
) -> Choice:
    """As `open_session`, with the reasons why better engines were passed over."""
    chosen = candidates(device, engine)
    request = Request(threads, int(device.partition(":")[2] or 0), precision, engine is not None)
    check_trusted(bundle, trusted_keys)
    rejected_engines: dict[str, str] = {}
    for candidate in chosen:
        if candidate.gpu and (problem := _gpu_problem(request.gpu)) is not None:
            rejected_engines["GPU"] = problem
            continue
        try:
            session, used = candidate.open(bundle, request)
        except HostError as error:
            rejected_engines[candidate.name] = str(error)
            continue
        try:
            found = verify(bundle, session, used)
        except N2NError as error:
            session.close()
            if request.named or candidate.gpu or used == "fp32":
                raise
            rejected_engines[candidate.name] = str(error)  # the CPU has fp32 to offer
            continue
        return Choice(session, used, found, rejected_engines)
    reasons = "; ".join(f"{name}: {reason}" for name, reason in rejected_engines.items())
    raise HostError(f"no engine works on device {device} here: {reasons}")


def _gpu_problem(index: int) -> str | None:
    """Why a GPU cannot be used, whatever the engine."""
    try:
        find_gpu(index)
    except HostError as error:
        return str(error)
    return None


def candidates(device: str, engine: str | None = None) -> tuple[Engine, ...]:
    """Return the engines that may run on a device, the fastest first; or the one named.

    Raises:
        UsageError: there is no such device or engine, or the engine does not run on the device.
    """
    if not re.fullmatch(r"auto|cpu|gpu|cuda:\d+", device):
        raise UsageError(f"device {device!r} does not exist; choose auto, cpu, gpu or cuda:N")
    if engine is not None and engine not in {known.name for known in ENGINES}:
        raise UsageError(f"engine {engine!r} does not exist; choose {', '.join(known.name for known in ENGINES)}")
    wanted = {"auto": (True, False), "cpu": (False,)}.get(device, (True,))
    chosen = tuple(known for known in ENGINES if known.gpu in wanted and engine in (None, known.name))
    if not chosen:
        raise UsageError(f"engine {engine} does not run on device {device}; choose another of the two")
    return chosen


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
    with session.device.lane():
        outputs = session.device.to_host(session.run(session.device.to_device(inputs)))
    found = deviation(outputs, expected)
    if not found.within(tolerance):
        raise BundleError(
            f"{bundle.path}: {session.name} gives other results here than PyTorch gave at export: they differ by "
            f"up to {found.max:.2g} (rms {found.rms:.2g}) standard deviations, {tolerance.max:.2g} "
            f"(rms {tolerance.rms:.2g}) are allowed; try another --engine or --device, or export the model again"
        )
    return found


def deviation(outputs: NDArray[Any], expected: NDArray[Any]) -> Deviation:
    """How far `outputs` lie from `expected`, in standard deviations of `expected`; infinite values count as 1e30."""
    scale = max(float(expected.std(dtype=np.float64)), np.finfo(np.float32).tiny)
    difference = np.nan_to_num((outputs - expected).astype(np.float64) / scale, nan=1e30, posinf=1e30, neginf=1e30)
    difference = np.clip(np.abs(difference), 0, 1e30)
    return Deviation(max=float(difference.max()), rms=float(np.sqrt(np.mean(difference**2))))
