"""Choose the session: the fastest engine that works on this machine and passes the bundle's golden vectors."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.manifest import Deviation
from n2n_deploy.bundle.trust import check_trusted
from n2n_deploy.core.errors import BundleError, HostError, N2NError, UsageError
from n2n_deploy.core.options import Precision, parse_device
from n2n_deploy.device.gpus import find_gpu
from n2n_deploy.engines.engine import Engine, Request, offers_int8
from n2n_deploy.engines.onnxruntime.diagnose import diagnose_cpu, diagnose_cuda
from n2n_deploy.engines.onnxruntime.open import open_cpu, open_cuda
from n2n_deploy.engines.openvino.diagnose import diagnose_openvino
from n2n_deploy.engines.openvino.open import open_openvino
from n2n_deploy.engines.session import Session
from n2n_deploy.engines.tensorrt.diagnose import diagnose_lean, diagnose_tensorrt
from n2n_deploy.engines.tensorrt.open import open_lean, open_tensorrt


@dataclass(frozen=True)
class Choice:
    """The session that was chosen.

    Attributes:
        session: open; it passed the golden vectors.
        precision: in which it computes.
        deviation: how far its golden outputs lie from PyTorch's.
        rejected_engines: why each faster engine was rejected; engine name (with "in int8" if that is what was tried)
            → reason.
    """

    session: Session
    precision: Precision
    deviation: Deviation
    rejected_engines: dict[str, str]


ENGINES = (
    Engine("tensorrt", True, partial(open_tensorrt, "tensorrt"), partial(diagnose_tensorrt, "tensorrt")),
    Engine("rtx", True, partial(open_tensorrt, "rtx"), partial(diagnose_tensorrt, "rtx")),
    Engine("tensorrt-lean", True, open_lean, diagnose_lean),
    Engine("onnxruntime-cuda", True, open_cuda, diagnose_cuda),
    Engine("openvino", False, open_openvino, diagnose_openvino),
    Engine("onnxruntime-cpu", False, open_cpu, diagnose_cpu),
)
"""All engines, the fastest first."""


def choose_session(
    bundle: Bundle,
    device: str = "auto",
    threads: int | None = None,
    *,
    engine: str | None = None,
    precision: Precision | None = None,
    trusted_keys: Path | None = None,
    choose_int8: bool = True,
) -> Choice:
    """Open the best session that works here and passes the bundle's golden vectors.

    Args:
        bundle: the bundle.
        device: "auto" (the best available), "cpu", "gpu" or "cuda" (the first GPU), or "cuda:N".
        threads: CPU threads; by default all cores that this process may use.
        engine: name of the engine to use; None for the best.
        precision: of the network. None means on a GPU that of the bundle's engine, else fp16; on the CPU int8 where
            the bundle offers it and the processor has VNNI, else bf16 where OpenVINO runs it on a processor that
            multiplies it in hardware, else fp32.
        trusted_keys: public keys, one of which must have signed the bundle; see `check_trusted`.
        choose_int8: whether int8 may be chosen without being asked for.

    Raises:
        UsageError: there is no such device or engine, or the engine does not run on the device.
        HostError: no engine works on the device; the message gives the reason for each.
        BundleError: the network's outputs differ from those at export, the bundle is damaged, or no trusted key signed
            it.
    """
    chosen = candidates(device, engine)
    wanted = Request(threads, int(device.partition(":")[2] or 0), precision, named=engine is not None)
    check_trusted(bundle, trusted_keys)
    rejected_engines: dict[str, str] = {}
    for candidate, request in _attempts(bundle, chosen, wanted, choose_int8=choose_int8):
        name = candidate.name
        if request.precision == "int8":
            if candidate.gpu:
                rejected_engines[name] = "it runs no int8; CPUs do"
                continue
            name = f"{name} in int8" if precision is None else name
        if candidate.gpu and (problem := _gpu_problem(request.gpu)) is not None:
            rejected_engines["GPU"] = problem
            continue
        try:
            session, used = candidate.open(bundle, request)
        except HostError as error:
            rejected_engines[name] = str(error)
            continue
        try:
            found = verify(bundle, session, used)
        except N2NError as error:
            session.close()
            if candidate.gpu or used == "fp32" or (request.named and request.precision == precision):
                raise
            rejected_engines[name] = str(error)  # the CPU can still run it in fp32
            continue
        return Choice(session, used, found, rejected_engines)
    reasons = "; ".join(f"{name}: {reason}" for name, reason in rejected_engines.items())
    raise HostError(f"no engine works on device {device}: {reasons}")


def _attempts(
    bundle: Bundle, chosen: Iterable[Engine], request: Request, *, choose_int8: bool
) -> Iterator[tuple[Engine, Request]]:
    """What to try, the fastest first: GPUs, then int8 on the CPU if nothing else is asked for, then floating point."""
    chosen = tuple(chosen)
    yield from ((engine, request) for engine in chosen if engine.gpu)
    processors = tuple(engine for engine in chosen if not engine.gpu)
    int8 = choose_int8 and request.precision is None and offers_int8(bundle)
    requests = (*([replace(request, precision="int8")] if int8 else []), request)
    yield from ((engine, each) for each, engine in product(requests, processors))


def _gpu_problem(index: int) -> str | None:
    """Why a GPU cannot be used, whatever the engine."""
    try:
        find_gpu(index)
    except HostError as error:
        return str(error)
    return None


def candidates(device: str, engine: str | None = None) -> tuple[Engine, ...]:
    """Return the engines that may run on a device, the fastest first, or only the one named.

    Raises:
        UsageError: there is no such device or engine, or the engine does not run on the device.
    """
    device = parse_device(device)
    if engine is not None and engine not in {known.name for known in ENGINES}:
        raise UsageError(f"invalid engine {engine!r}; choose {', '.join(known.name for known in ENGINES)}")
    wanted = {"auto": (True, False), "cpu": (False,)}.get(device, (True,))
    chosen = tuple(known for known in ENGINES if known.gpu in wanted and engine in (None, known.name))
    if not chosen:
        raise UsageError(f"engine {engine} does not run on device {device}; choose another engine or device")
    return chosen


def verify(bundle: Bundle, session: Session, precision: Precision = "fp32") -> Deviation:
    """Run the golden vectors through a session and compare with PyTorch's outputs.

    Args:
        bundle: with the golden vectors and the tolerance.
        session: to check.
        precision: in which it computes.

    Returns:
        How far the outputs lie from PyTorch's.

    Raises:
        BundleError: further than the manifest's tolerance, or it states none for this precision.
    """
    tolerance = bundle.manifest.tolerance.get(precision)
    if tolerance is None:
        raise BundleError(f"{bundle.path}: the manifest states no tolerance for {precision}; export it again")
    inputs, expected = bundle.golden(precision)
    with session.device.lane():
        outputs = session.device.to_host(session.run(session.device.to_device(inputs)))
    found = deviation(outputs, expected)
    if not found.within(tolerance):
        raise BundleError(
            f"{bundle.path}: {session.name} gives other results than PyTorch gave at export: they differ by up to "
            f"{found.max:.2g} (rms {found.rms:.2g}) standard deviations, {tolerance.max:.2g} (rms "
            f"{tolerance.rms:.2g}) are allowed; try another --engine or --device, or export the model again"
        )
    return found


def deviation(outputs: NDArray[Any], expected: NDArray[Any]) -> Deviation:
    """How far `outputs` lie from `expected`, in standard deviations of `expected`; infinite values count as 1e30."""
    scale = max(float(expected.std(dtype=np.float64)), np.finfo(np.float32).tiny)
    difference = np.nan_to_num((outputs - expected).astype(np.float64) / scale, nan=1e30, posinf=1e30, neginf=1e30)
    difference = np.clip(np.abs(difference), 0, 1e30)
    return Deviation(max=float(difference.max()), rms=float(np.sqrt(np.mean(difference**2))))
