"""Averaging over views and over halves in a batch: grey levels, noise, refusals, and what makes it other work."""

import tracemalloc
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile

from n2n_deploy import CTFParameters, DataError, DenoiseOptions, Denoiser, Optics, UsageError, denoise
from n2n_deploy.batch.plan import Job, Status
from n2n_deploy.batch.report import EntryKeeper
from n2n_deploy.core.options import NamingOptions
from n2n_deploy.device.host import HOST
from n2n_deploy.engines.session import Array
from n2n_deploy.io.records import Micrograph
from n2n_deploy.report.entry_store import EntryStore

from .conftest import PIXEL_SIZE, SHAPE, MakeBundle, MakeTable, band_limited

OPTICS = Optics(PIXEL_SIZE, 300.0, 2.7, 0.1)
CTF = CTFParameters(15000.0, 14900.0, 30.0)

NAMING = NamingOptions(suffixes=("DW", "EVN", "ODD"))


class Tanh:
    """A network that is not linear, so that averaging before and after it differ."""

    name, device = "tanh", HOST

    def run(self, batch: Array) -> Array:
        return np.tanh(batch)

    def memory(self, shape: tuple[int, int]) -> int:
        return 8 * shape[0] * shape[1]

    def close(self) -> None:
        """Nothing to free."""


def halves(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed + 50)
    even, odd = (band_limited(seed) / 2 + rng.normal(size=SHAPE).astype(np.float32) for _ in range(2))
    return even, odd


def add_halves(tmp_path: Path, count: int) -> None:
    for number in range(count):
        for suffix, image in zip(("EVN", "ODD"), halves(number), strict=True):
            with mrcfile.new(tmp_path / "job" / "mics" / f"m{number}_{suffix}.mrc") as mrc:
                mrc.set_data(image)
                mrc.voxel_size = PIXEL_SIZE


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_averaged_halves_have_the_grey_levels_of_the_whole(weight: float, identity_bundle: MakeBundle) -> None:
    """A sum of frames is twice a half, a mean is not; with an identity network both must come back as they are."""
    even, odd = halves(0)
    whole = weight * (even + odd)
    with Denoiser(identity_bundle(phase_flip=True)) as denoiser:
        plain = denoiser(whole, OPTICS, CTF)
        averaged = denoiser.denoise(whole, OPTICS, CTF, halves=(even, odd)).image
    np.testing.assert_allclose(averaged, plain, atol=1e-3 * plain.std())


def test_each_half_passes_the_network_on_its_own(identity_bundle: MakeBundle) -> None:
    even, odd = halves(0)
    with Denoiser(identity_bundle(), session=Tanh()) as denoiser:
        result = denoiser.denoise(even + odd, OPTICS, None, halves=(even, odd))
        alone = [denoiser.denoise(half, OPTICS, None).image for half in (even, odd)]
    expected, found = (image - image.mean() for image in (alone[0] + alone[1], result.image))
    np.testing.assert_allclose(found, expected, atol=1e-3 * expected.std())
    assert result.tiles == 2


def test_halves_of_another_shape_are_refused(identity_bundle: MakeBundle) -> None:
    even, odd = halves(0)
    with Denoiser(identity_bundle()) as denoiser, pytest.raises(DataError, match="100×232 pixels.*192×232"):
        denoiser.denoise(even + odd, OPTICS, None, halves=(even, odd[:100]))


def test_a_batch_averages_halves_and_refuses_rows_without(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source = table(3)
    add_halves(tmp_path, 3)
    (tmp_path / "job" / "mics" / "m1_ODD.mrc").unlink()
    summary = denoise(
        source,
        identity_bundle(),
        tmp_path / "out",
        options=DenoiseOptions(average_halves=True),
        naming=NAMING,
    )
    assert summary.denoised == 2
    assert list(summary.failures) == ["job/mics/m1.mrc"]
    assert "m1_ODD.mrc" in summary.failures["job/mics/m1.mrc"]
    # The halves carry noise that the table's own sums do not.
    added = mrcfile.read(tmp_path / "out" / "job" / "mics" / "m0.mrc") - band_limited(0)
    noise = sum(halves(0)) - band_limited(0)
    assert np.corrcoef(added.ravel(), noise.ravel())[0, 1] > 0.3
    assert len(starfile.read(summary.table)["micrographs"]) == 2


def test_a_table_without_halves_is_refused(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="suffixes"):
        denoise(table(1), identity_bundle(), tmp_path / "out", options=DenoiseOptions(average_halves=True))


@pytest.mark.parametrize("change", [{"tta": True}, {"average_halves": True}])
def test_averaging_is_other_work(
    change: dict[str, bool], table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source, bundle = table(1), identity_bundle()
    add_halves(tmp_path, 1)
    denoise(source, bundle, tmp_path / "out")
    with pytest.raises(UsageError, match="already there"):
        denoise(source, bundle, tmp_path / "out", options=DenoiseOptions(**change), naming=NAMING)


def test_a_changed_half_is_new_work(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    source, bundle, options = table(2), identity_bundle(), DenoiseOptions(average_halves=True, on_exists="overwrite")
    add_halves(tmp_path, 2)
    denoise(source, bundle, tmp_path / "out", options=options, naming=NAMING)
    with mrcfile.mmap(tmp_path / "job" / "mics" / "m1_ODD.mrc", "r+") as mrc:
        mrc.data[0, 0] += 1
    summary = denoise(source, bundle, tmp_path / "out", options=options, naming=NAMING)
    assert (summary.denoised, summary.already_done) == (1, 1)


def test_what_the_halves_say_is_told_with_each_micrograph(identity_bundle: MakeBundle, tmp_path: Path) -> None:
    """The law: two halves S + N correlate by SNR/(1 + SNR); what returns its input errs by N, and by nothing alike."""
    job = a_job(tmp_path)
    keeper, store = EntryKeeper(tmp_path, 20_000), EntryStore(tmp_path / ".report")
    even, odd = halves(0)
    with Denoiser(identity_bundle()) as denoiser:
        inputs = [denoiser.denoise(half, OPTICS, CTF).network_input for half in (even, odd)]
        result = denoiser.denoise(even + odd, OPTICS, CTF, halves=(even, odd))
        whole = denoiser.denoise(even + odd, OPTICS, CTF)
        noise = tuple(np.random.default_rng(seed).normal(size=SHAPE).astype(np.float32) for seed in (1, 2))
        strange = denoiser.denoise(noise[0] + noise[1], OPTICS, CTF, halves=(noise[0], noise[1]))
        twice = denoiser.denoise(2 * even, OPTICS, CTF, halves=(even, even))
        shared = (even + 3 * noise[0], odd + 3 * noise[0])
        spoilt = denoiser.denoise(shared[0] + shared[1], OPTICS, CTF, halves=shared)
    for found, expected in zip(result.halves, inputs * 2, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)
    keeper.keep(job, result, 1.0, [])
    entry = store.get("m.mrc", "work")
    assert entry is not None
    correlation = np.corrcoef(*(image.ravel() for image in inputs))[0, 1]
    snr = correlation / (1 - correlation)
    np.testing.assert_allclose(entry.snr, (snr, snr), rtol=1e-3)
    assert entry.recovered == pytest.approx(1 - 1 / snr, rel=1e-3)
    assert entry.ssnr is not None
    # Waves of 20 to 60 Å in white noise: all the signal there is.
    inside = (entry.ssnr.frequency > 1 / 60) & (entry.ssnr.frequency < 1 / 20)
    assert np.nanmean(entry.ssnr.noisy[inside]) > 10 * abs(np.nanmean(entry.ssnr.noisy[entry.ssnr.frequency > 1 / 15]))
    keeper.keep(job, whole, 1.0, [])
    entry = store.get("m.mrc", "work")
    assert entry is not None
    assert (whole.halves, entry.snr, entry.sbr, entry.recovered, entry.ssnr) == ((), None, None, None, None)
    # Of halves without signal in common a fraction of it would be any number at all.
    keeper.keep(job, strange, 1.0, [])
    entry = store.get("m.mrc", "work")
    assert entry is not None
    assert (entry.snr, entry.sbr, entry.recovered) == (None, None, None)
    assert "no signal in common" in [flag.kind for flag in entry.flags]
    keeper.keep(job, twice, 1.0, [])
    entry = store.get("m.mrc", "work")
    assert entry is not None
    assert entry.snr is None
    assert "identical halves" in [flag.kind for flag in entry.flags]
    # Nine tenths of the noise are the same in both halves.
    kinds = []
    for each in (result, spoilt):
        keeper.keep(job, each, 1.0, [])
        entry = store.get("m.mrc", "work")
        assert entry is not None
        kinds.append("shared noise" in [flag.kind for flag in entry.flags])
    assert kinds == [False, True]


@pytest.mark.parametrize("pixel_size", [4.0, 1.0])
def test_halves_are_measured_within_the_memory_that_is_planned(
    pixel_size: float, identity_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, rng, job = (704, 640), np.random.default_rng(0), a_job(tmp_path)
    even, odd = (rng.normal(size=shape).astype(np.float32) for _ in range(2))
    image, optics = even + odd, Optics(pixel_size, 300.0, 2.7, 0.1)
    keeper = EntryKeeper(tmp_path, 20_000)
    monkeypatch.setattr(HOST, "workers", 1)
    try:
        with Denoiser(identity_bundle(), session=Tanh()) as denoiser:
            keeper.keep(job, denoiser.denoise(image, optics, CTF, halves=(even, odd)), 1.0, [])  # filters are cached
            (need,) = denoiser.fit_to_memory({(shape, pixel_size): 1}, halves=True).requirements
            network = Tanh().memory(need.size)
            tracemalloc.start()
            keeper.keep(job, denoiser.denoise(image, optics, CTF, halves=(even, odd)), 1.0, [])
            left, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak + image.nbytes + even.nbytes + odd.nbytes < need.pixels + need.work + network
    assert left < 1e6, "nothing is kept beyond the entry"


def a_job(folder: Path) -> Job:
    return Job(Micrograph("m.mrc", folder / "m.mrc", OPTICS, CTF), folder / "m.mrc", "n2n: work", Status.PENDING)
