"""Recorrupted pairs against physics: where there is no signal, what the two of a pair share is nothing."""

import os
import signal as signals
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from star_builder import star_table

from n2n_deploy.core.errors import DataError
from n2n_deploy.core.options import NamingOptions
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.imaging.ctf import CTFParameters, Optics, ctf
from n2n_deploy.imaging.filters import bandpass
from n2n_deploy.imaging.fourier import frequencies
from n2n_deploy.imaging.rings import ring_frequencies, ring_means, ring_sizes
from n2n_deploy.io.records import Micrograph
from n2n_deploy.statistics.shared_noise import at_ctf_zeros
from n2n_deploy.train import Preparation, TrainConfig, load_model, train
from n2n_deploy.train.exposures import Exposure, prepare_exposure
from n2n_deploy.train.fit import Progress, fit
from n2n_deploy.train.loader import make_batch
from n2n_deploy.train.patches import prepare_patches
from n2n_deploy.train.recorrupt import recorrupt, validation_pairs
from n2n_deploy.train.run import Run, start
from n2n_deploy.train.store import PatchStore

RAW, SIDE = 1152, 512
OPTICS = Optics(1.0, 300.0, 2.7, 0.1)
CTF = CTFParameters(12000.0, 11500.0, 30.0)
LAST_SIGNAL = 1 / 7.0
"""1/Å; the simulated specimen has no signal beyond."""

Image = NDArray[np.float32]


def exposure_image(seed: int, side: int = RAW, noise: float = 3.0) -> Image:
    """White noise, and a specimen with Thon rings up to 7 Å."""
    rng = np.random.default_rng(seed)
    s = frequencies((side, side), (1.0, 1.0))
    transfer = ctf((side, side), (1.0, 1.0), OPTICS, CTF) * np.exp(-40 * s**2) * (s < LAST_SIGNAL)
    structure = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((side, side))) * transfer, s=(side, side))
    return np.asarray(100 + 4 * structure + rng.normal(scale=noise, size=(side, side)), np.float32)


def write(path: Path, image: Image) -> Micrograph:
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(image)
        mrc.voxel_size = 1.0
    return Micrograph(path.name, path, OPTICS, CTF)


@pytest.fixture(scope="module", params=[True, False], ids=["phases flipped", "not flipped"])
def exposure(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exposure:
    recipe = Recipe(max_resolution=4.5, patch_size=SIDE, phase_flip=request.param)
    return prepare_exposure(write(tmp_path_factory.mktemp("exposure") / "a.mrc", exposure_image(0)), recipe)


def pair_of(exposure: Exposure, power: float = 1.0) -> tuple[Image, Image]:
    """The whole image recorrupted, with noise of this many times the estimated power."""
    assert exposure.amplitude is not None
    image = torch.from_numpy(np.stack([exposure.images[0]] * 2)[None])
    amplitude = torch.from_numpy(exposure.amplitude)[None] * power**0.5
    pair = recorrupt(image, amplitude, (1, 2))[0].numpy()
    return pair[0], pair[1]


def test_a_pair_shares_nothing_at_the_ctfs_zeros(exposure: Exposure) -> None:
    shared = at_ctf_zeros(*pair_of(exposure), (2.25, 2.25), OPTICS, CTF)
    assert shared is not None
    assert shared.error < 0.006
    assert abs(shared.fraction) < 4 * shared.error


def test_a_pair_shares_nothing_on_any_ring_beyond_the_signal(exposure: Exposure) -> None:
    first, second = map(np.fft.rfft2, pair_of(exposure))
    shape, spacing = (SIDE, SIDE), (2.25, 2.25)
    cross = ring_means((first * second.conj()).real, shape, spacing)
    powers = [ring_means(np.abs(each) ** 2, shape, spacing) for each in (first, second)]
    ring = ring_frequencies(shape, spacing)
    beyond = (ring > LAST_SIGNAL + 0.01) & (ring < 0.95 / 4.5)
    # Half of a ring's components are independent; |y|² − |z|² scatters by √2 times one power.
    error = np.sqrt(powers[0] * powers[1] / 2 / (ring_sizes(shape, spacing) / 2))
    deviations = (cross / error)[beyond]
    assert beyond.sum() > 40
    assert np.abs(deviations).max() < 4
    assert abs(deviations.mean()) < 4 / np.sqrt(beyond.sum())


@pytest.mark.parametrize("wrong", [-0.2, -0.1, -0.05, 0.05, 0.1, 0.2])
def test_a_wrong_noise_model_keeps_noise_or_loses_signal_by_what_it_is_wrong(exposure: Exposure, wrong: float) -> None:
    """The best linear prediction of y − z from y + z has the gain (S + N − Z)/(S + N + Z), with Z the power of z.

    With Z below N, a part of the noise is predicted, so kept; with Z above it, the signal's gain is too small.
    """
    first, second = map(np.fft.rfft2, pair_of(exposure, 1 + wrong))
    shape, spacing = (SIDE, SIDE), (2.25, 2.25)
    ring = ring_frequencies(shape, spacing)
    beyond = (ring > LAST_SIGNAL + 0.01) & (ring < 0.95 / 4.5)
    cross, power = (
        ring_means(values, shape, spacing)[beyond].sum()
        for values in ((first * second.conj()).real, np.abs(first) ** 2)
    )
    assert cross / power == pytest.approx(-wrong / (2 + wrong), abs=0.012)
    shared = at_ctf_zeros(*pair_of(exposure, 1 + wrong), spacing, OPTICS, CTF)
    assert shared is not None
    assert (shared.fraction < -3 * shared.error) == (wrong > 0)
    assert (shared.fraction > 3 * shared.error) == (wrong < 0)


def test_noise_of_a_patch_has_the_covariance_of_the_whole_and_does_not_wrap_around() -> None:
    """Against the covariance of the band-passed noise, the Fourier transform of its spectrum on a fine grid."""
    side, spacing = 64, (4.0, 4.0)
    recipe = Recipe(max_resolution=8.0, highpass=200.0, patch_size=side)
    amplitude = torch.from_numpy(bandpass((2 * side, 2 * side), spacing, recipe).copy())
    z = recorrupt(torch.zeros(400, 2, side, side), amplitude.expand(400, -1, -1), (0,))[:, 0].double().numpy()
    fine = 1024
    expected = np.fft.irfft2(bandpass((fine, fine), spacing, recipe).astype(np.float64) ** 2, s=(fine, fine))[0]
    for lag in (0, 1, 2, 8, 25, side - 1):
        products = (z[:, :, : side - lag] * z[:, :, lag:]).mean(axis=(1, 2))
        error = products.std() / np.sqrt(len(products))
        assert abs(products.mean() - expected[lag]) < 4 * error + 0.01 * expected[0], lag
    # Noise made on the patch's own grid would have its opposite edges as alike as neighbours are.
    assert abs(expected[side - 1]) < 0.1 * abs(expected[1])


def test_noise_is_new_in_every_step_and_the_same_for_the_same_step() -> None:
    pairs, amplitude = torch.zeros(3, 2, 32, 32), torch.ones(3, 64, 33)
    first, again, next_step = (recorrupt(pairs, amplitude, seed) for seed in ((7, 0, 2), (7, 0, 2), (7, 1, 2)))
    assert torch.equal(first, again)
    assert torch.equal(first[:, 0], -first[:, 1])
    assert abs(float(torch.corrcoef(torch.stack([first.ravel(), next_step.ravel()]))[0, 1])) < 0.05
    assert float(first.std()) == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_both_of_a_pair_are_divided_by_one_number(alpha: float) -> None:
    rng = np.random.default_rng(0)
    images = rng.standard_normal((4, 1, 64, 64)).astype(np.float16).repeat(2, axis=1)
    pairs = validation_pairs(images, np.full((4, 128, 65), 0.7, np.float16), alpha, 3)
    assert pairs[:, 0].std(axis=(1, 2)) == pytest.approx(1, abs=1e-3)
    # y + αz and y − z/α: α² times the first and the second make (1 + α²) y, on one scale.
    both = (pairs[:, 0] + alpha**2 * pairs[:, 1]) / (1 + alpha**2)
    for image, found in zip(images[:, 0].astype(np.float64), both, strict=True):
        assert np.corrcoef(image.ravel(), found.ravel())[0, 1] == pytest.approx(1, abs=1e-4)
    noise = pairs[:, 0] - pairs[:, 1]
    assert noise.std() / both.std() == pytest.approx(0.7 * (alpha + 1 / alpha), rel=0.05)


def test_electron_counts_are_thinned_into_independent_halves(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    counts = rng.poisson(exposure_image(1, 512, noise=0) - 60).astype(np.float32)
    recipe = Recipe(max_resolution=4.5, patch_size=32)
    exposure = prepare_exposure(write(tmp_path / "counts.mrc", counts), recipe)
    assert len(exposure.images) == 2
    assert exposure.amplitude is None
    flat = prepare_exposure(write(tmp_path / "flat.mrc", rng.poisson(9.0, (512, 512)).astype(np.float32)), recipe)
    even, odd = flat.images
    assert abs(np.corrcoef(even.ravel(), odd.ravel())[0, 1]) < 4 / even.size**0.5 * 1.5


def stored(tmp_path: Path) -> PatchStore:
    micrographs = [write(tmp_path / f"{name}.mrc", exposure_image(seed, 400)) for seed, name in enumerate("ab")]
    recipe = Recipe(max_resolution=8.0, patch_size=32)
    result = prepare_patches(micrographs, recipe, tmp_path / "patches", recorrupted=True)
    assert result.refused == {}
    return PatchStore(result.files)


def test_the_stored_noise_has_the_patches_units(tmp_path: Path) -> None:
    """Patches differ in contrast and are divided by it; their noise, of one strength in the micrograph, with them."""
    store = stored(tmp_path)
    assert store.recorrupted
    config = TrainConfig(recipe=Recipe(max_resolution=8.0, patch_size=32), batch_size=16)
    pairs, _, amplitudes = make_batch(store, np.arange(len(store)), config, 0)
    assert torch.equal(pairs[:, 0], pairs[:, 1])
    assert amplitudes.shape == (16, 64, 33)
    chosen = np.arange(8)
    exposure = prepare_exposure(write(tmp_path / "a.mrc", exposure_image(0, 400)), config.recipe)
    assert exposure.amplitude is not None
    for corner, amplitude in zip(store.corners[0][chosen], store.amplitudes(chosen), strict=True):
        patch = exposure.images[0][corner[0] : corner[0] + 32, corner[1] : corner[1] + 32]
        np.testing.assert_allclose(amplitude, exposure.amplitude / patch.std(), rtol=2e-3, atol=1e-4)


@pytest.mark.usefixtures("no_pictures")
def test_a_stopped_run_without_halves_resumes_to_the_same_bits(tmp_path: Path) -> None:
    store = stored(tmp_path)
    config = TrainConfig(
        preset="small",
        recipe=Recipe(max_resolution=8.0, patch_size=32),
        epochs=2,
        batches_per_epoch=2,
        batch_size=3,
        device="cpu",
        validation_fraction=0.2,
    )
    fit(store, tmp_path / "straight", config)

    def stop(progress: Progress) -> None:
        if progress.step == 2:
            os.kill(os.getpid(), signals.SIGINT)

    fit(store, tmp_path / "stopped", config, progress=stop)
    fit(store, tmp_path / "stopped", config, resume=True)
    straight, stopped = (load_model(tmp_path / name / "model.pt") for name in ("straight", "stopped"))
    assert straight.step == stopped.step == 4
    assert all(torch.equal(weights, stopped.weights[name]) for name, weights in straight.weights.items())


@pytest.mark.usefixtures("no_pictures")
def test_an_overfitted_network_is_not_the_model(tmp_path: Path) -> None:
    """The model is the one of the lowest loss on held-out pairs, not the last."""
    config = TrainConfig(preset="small", recipe=Recipe(patch_size=32), batches_per_epoch=4, epochs=1, batch_size=2)
    run: Run = start(tmp_path, config, torch.device("cpu"), resume=False, facts={}, keep_best=True)
    pairs = np.random.default_rng(0).standard_normal((6, 2, 32, 32)).astype(np.float32)
    run.report(pairs)
    good = {name: weights.clone() for name, weights in run.best.items()} if run.best else {}
    first = run.history[-1].validation_loss
    with torch.no_grad():
        for weights in run.network.parameters():
            weights += 0.02
    run.step = 3
    run.report(pairs)
    assert run.history[-1].validation_loss > first
    model = load_model(run.save(pairs))
    assert (model.step, model.summary["best_step"]) == (3, 0)
    assert good
    assert all(torch.equal(weights, model.weights[name]) for name, weights in good.items())


def table_of(tmp_path: Path, image: Image) -> Path:
    write(tmp_path / "a_DW.mrc", image)
    columns = {
        "rlnMicrographName": ["a_DW.mrc"],
        "rlnDefocusU": 12000.0,
        "rlnDefocusV": 11500.0,
        "rlnDefocusAngle": 30.0,
    }
    table = tmp_path / "micrographs.star"
    table.write_text(star_table(columns, pixel_size=1.0))
    return table


@pytest.fixture
def tiny() -> TrainConfig:
    recipe = Recipe(max_resolution=8.0, patch_size=32)
    return TrainConfig(preset="small", recipe=recipe, epochs=1, batches_per_epoch=2, batch_size=2, device="cpu")


def test_a_table_without_halves_trains_and_says_so(tmp_path: Path, tiny: TrainConfig) -> None:
    told: list[Preparation] = []
    table = table_of(tmp_path, exposure_image(0, 512))
    path = train(table, tmp_path / "run", tiny, prepared=told.append)
    assert load_model(path).summary["pairs"] == "recorrupted"
    (note,) = told[0].notes
    assert "training on recorrupted pairs" in note
    assert "\n" not in note
    assert (tmp_path / "run" / "noise.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    asked = tiny.model_copy(update={"pairs": "recorrupted"})
    train(table, tmp_path / "asked", asked, prepared=told.append, naming=NamingOptions(suffixes=("DW", "EVN", "ODD")))
    assert told[1].notes == []


def test_a_mistyped_suffix_stays_an_error(tmp_path: Path, tiny: TrainConfig) -> None:
    with pytest.raises(DataError, match=r"a_EVM\.mrc: the even half is missing"):
        train(
            table_of(tmp_path, exposure_image(0, 512)),
            tmp_path / "run",
            tiny,
            naming=NamingOptions(suffixes=("DW", "EVM", "ODD")),
        )


def test_a_micrograph_whose_noise_is_hidden_is_refused_alone(tmp_path: Path) -> None:
    recipe = Recipe(max_resolution=8.0, patch_size=32)
    image = exposure_image(0, 512)
    filtered = np.fft.irfft2(np.fft.rfft2(image) * (frequencies((512, 512), (1.0, 1.0)) < 0.3), s=(512, 512))
    micrographs = [write(tmp_path / "good.mrc", image), write(tmp_path / "bad.mrc", filtered.astype(np.float32))]
    result = prepare_patches(micrographs, recipe, tmp_path / "patches", recorrupted=True)
    assert [path.name[:4] for path in result.files] == ["good"]
    (reason,) = result.refused.values()
    assert reason.startswith(str(tmp_path / "bad.mrc"))
    assert "--pairs halves" in reason
