"""Lanes for several GPUs, with denoisers on the CPU in their place: who processes what, and how many at once."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

from n2n_deploy import denoise
from n2n_deploy.batch import local_workers
from n2n_deploy.batch.lanes import run_lanes, seat
from n2n_deploy.batch.options import DenoiseOptions
from n2n_deploy.batch.watchdog import waiting_for
from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.core.errors import HostError
from n2n_deploy.core.options import ComputeOptions
from n2n_deploy.denoiser.denoised import Denoised
from n2n_deploy.denoiser.denoiser import Denoiser

from .conftest import MakeBundle, MakeTable, band_limited


class Counting(Denoiser):
    """A denoiser on the CPU that notes which threads call it and how many do at once."""

    def __init__(self, bundle: Bundle, lanes: int) -> None:
        super().__init__(bundle, compute=ComputeOptions(device="cpu", lanes=lanes, threads=1))
        self.threads: Counter[int] = Counter()
        self.at_once = self.most_at_once = 0
        self.closed = False
        self._counting = threading.Lock()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._counting:
            self.threads[threading.get_ident()] += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        yield
        with self._counting:
            self.at_once -= 1

    def denoise(self, *arguments: Any, **options: Any) -> Denoised:
        with self._counted():
            time.sleep(0.05)
            return super().denoise(*arguments, **options)

    def close(self) -> None:
        self.closed = True
        super().close()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> dict[str, Counting]:
    """The denoisers that a run opens, by device."""
    found: dict[str, Counting] = {}

    def open_denoiser(bundle: Bundle, options: DenoiseOptions, *, device: str, **_: object) -> Denoiser:
        if device == "cuda:9":
            raise HostError("there is no GPU 9")
        found[device] = Counting(bundle, options.lanes_here)
        return found[device]

    monkeypatch.setattr(local_workers, "open_denoiser", open_denoiser)
    return found


def test_micrographs_are_shared_among_gpus_and_lanes_stay_on_theirs(
    opened: dict[str, Counting], table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    options = DenoiseOptions(gpus=(0, 1), lanes=2, report=False)
    said: list[str] = []
    summary = denoise(table(16), identity_bundle(), tmp_path / "out", options=options, say=said.append)
    assert summary.denoised == 16
    assert list(opened) == ["cuda:0", "cuda:1"]
    first, second = opened.values()
    assert first.threads.total() + second.threads.total() == 16
    assert min(first.threads.total(), second.threads.total()) > 2
    assert first.threads.keys().isdisjoint(second.threads.keys())
    assert first.most_at_once == second.most_at_once == 2
    assert first.closed
    assert second.closed
    assert any(line.startswith("memory") for line in said)
    for number in range(16):
        path = tmp_path / "out" / "job" / "mics" / f"m{number}.mrc"
        np.testing.assert_allclose(mrcfile.read(path), band_limited(number), atol=0.05)


def test_missing_gpu_ends_the_run_and_closes_the_others(
    opened: dict[str, Counting], table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    with pytest.raises(HostError, match="no GPU 9"):
        denoise(table(2), identity_bundle(), tmp_path / "out", options=DenoiseOptions(gpus=(0, 9), report=False))
    assert opened["cuda:0"].closed
    assert not list((tmp_path / "out").rglob("*.mrc"))


def test_fewer_lanes_than_asked_if_memory_is_short(
    opened: dict[str, Counting],
    table: MakeTable,
    identity_bundle: MakeBundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bundle = identity_bundle()
    with Counting(Bundle.open(bundle), 1) as probe:
        fit = probe.fit_to_memory({((192, 232), 2.0): 1})
    least = fit.host - fit.budget.process
    for module in ("n2n_deploy.device.memory", "n2n_deploy.denoiser.memory"):
        monkeypatch.setattr(f"{module}.process_memory", lambda: 10**9)
    monkeypatch.setattr("n2n_deploy.device.memory.available_memory", lambda: int(1.3 * least / 0.8))
    said: list[str] = []
    options = DenoiseOptions(lanes=8, report=False)
    summary = denoise(table(12), bundle, tmp_path / "out", options=options, say=said.append)
    lanes = opened["auto"].lanes
    assert summary.denoised == 12
    assert lanes < 8
    assert any(f"{lanes} lanes in place of 8" in line for line in said)
    assert opened["auto"].most_at_once <= lanes


def test_lane_that_replaces_a_stalled_one_takes_its_seat() -> None:
    release, seats = threading.Event(), []

    def work(item: int) -> int:
        if item == 0:
            with waiting_for("stalling"):
                release.wait(5)
        time.sleep(0.02)
        seats.append(seat())
        return seat()

    results = dict(run_lanes(range(30), work, 3, threading.Event(), timeout=0.2))
    release.set()
    assert isinstance(results[0], HostError)
    assert set(seats) == {0, 1, 2}
