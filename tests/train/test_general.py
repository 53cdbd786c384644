"""Training the general model: its examples have the physics they claim, and its run can be stopped and continued."""

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.train import general, general_examples, load_model
from n2n_deploy.train.config import TrainConfig
from n2n_deploy.train.general_examples import EXPOSURES, LEFT_OUT, PER_MICROGRAPH, SIDE, make_examples, stream

DOSE = 40.0


def disc(rng: np.random.Generator, shape: tuple[int, int], pixel_size: float, names: list[str]) -> SimpleNamespace:
    """A stand-in for `draw_micrograph`: discs of a tenth less electrons."""
    assert not set(names) & set(LEFT_OUT)
    y, x = np.indices(shape)
    pattern = np.hypot((y % 64) - 32 - rng.uniform(0, 4), (x % 64) - 32) < 12
    expected = (DOSE * pixel_size**2 * (1 - 0.1 * pattern)).astype(np.float32)
    optics = Optics(pixel_size, voltage=300.0, spherical_aberration=2.7, amplitude_contrast=0.1)
    return SimpleNamespace(expected=expected, optics=optics, ctf=CTFParameters(15000.0, 15000.0))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(general_examples, "draw_micrograph", disc)
    monkeypatch.setattr(general_examples, "COLOURED", 0.0)
    monkeypatch.setattr(general_examples, "TILTS", (0.0, 0.0))
    monkeypatch.setattr(general_examples, "ENVELOPES", (1e-6, 1e-6))


def whole(patches: NDArray[np.floating]) -> NDArray[np.float64]:
    """Put the patches of one exposure together."""
    count = int(len(patches) ** 0.5)
    rows = [np.concatenate(patches[count * row : count * (row + 1)], axis=1) for row in range(count)]
    return np.concatenate(rows).astype(np.float64)


def test_the_noise_of_an_example_is_that_of_counted_electrons() -> None:
    examples = make_examples(0, 1)
    rng = np.random.default_rng((0, 1))
    rng.uniform()  # the resolution
    expected = disc(rng, (SIDE, SIDE), examples.resolution / 2, []).expected.astype(np.float64)
    each = PER_MICROGRAPH // EXPOSURES
    for first in range(0, PER_MICROGRAPH, each):
        noisy, clean = (whole(examples.images[first : first + each, part]) for part in (0, 1))
        assert noisy.std() == pytest.approx(1, abs=2e-3)
        electrons = float(examples.thinning[first]) * expected
        for low, high in ((0.05, 0.2), (0.2, 0.4)):  # white: the same in both
            # From electrons to the example's units; the phase flip changes no power.
            factor = band_power(clean, low, high) / band_power(electrons, low, high)
            noise = band_power(noisy - clean, low, high)
            assert noise == pytest.approx(factor * electrons.mean() * electrons.size, rel=0.03)


def test_contrast_falls_by_the_power_law_and_the_envelope_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = make_examples(0, 1)
    pixel_size = plain.resolution / 2
    monkeypatch.setattr(general_examples, "TILTS", (0.3, 0.3))
    tilted = make_examples(0, 1)
    bands = ((1 / 80, 1 / 70), (1 / 40, 1 / 36))  # 1/Å
    ratios = [
        band_power(whole(tilted.images[:16, 1]), low * pixel_size, high * pixel_size)
        / band_power(whole(plain.images[:16, 1]), low * pixel_size, high * pixel_size)
        for low, high in bands
    ]
    assert ratios[1] / ratios[0] == pytest.approx((75 / 38) ** 0.6, rel=0.05)
    # The envelope is drawn before anything else that follows, for two of three micrographs.
    monkeypatch.setattr(general_examples, "ENVELOPES", (1500.0, 1500.0))
    powers = []
    for number in range(8):
        image = whole(make_examples(0, number).images[:16, 1])
        powers.append(band_power(image, 0.2, 0.25) / band_power(image, 0.03, 0.06))
    assert max(powers) > 10 * min(powers)


def band_power(image: NDArray[np.float64], low: float, high: float) -> float:
    """Mean squared modulus of the Fourier components between two frequencies in cycles per pixel."""
    s = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.fftfreq(SIDE)[None])
    return float(np.mean(np.abs(np.fft.fft2(image)[(s >= low) & (s < high)]) ** 2))


def test_examples_depend_on_seed_and_number_alone() -> None:
    first = make_examples(3, 5)
    again = list(itertools.islice(_closing(3, 5, workers=2), 2))
    assert np.array_equal(first.images, again[0].images)
    assert not np.array_equal(first.images, again[1].images)
    assert first.flipped.mean() == 0.5


def _closing(seed: int, first: int, workers: int) -> "itertools.chain[general_examples.Examples]":
    source = stream(seed, first, workers)
    found = [next(source), next(source)]
    source.close()
    return itertools.chain(found)


def test_a_resumed_run_has_the_same_examples_in_the_same_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(general, "BUFFER", 3)
    made = [make_examples(0, number) for number in range(7)]
    going = general.Buffer(iter(made), 0)
    for _ in range(4):
        going.replace()
    resumed = general.Buffer(iter(made[4:]), 4)
    for one, other in zip(*(each.batch(np.random.default_rng(1), 64) for each in (going, resumed)), strict=True):
        assert torch.equal(one, other)


def test_a_run_learns_stops_and_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(general, "BUFFER", 2)
    monkeypatch.setattr(general, "_VALIDATION_MICROGRAPHS", 2)
    monkeypatch.setattr(general, "_ROW_EVERY", 5)
    config = TrainConfig(preset="small", epochs=1, batches_per_epoch=15, schedule="linear", device="cpu")
    first = load_model(general.train_general(tmp_path, config, 1))
    assert first.step == 15
    assert first.summary["accepts"]["either_phase"]
    rows = np.genfromtxt(tmp_path / "curves.csv", delimiter=",", names=True)
    assert rows["validation_loss"][-1] < rows["validation_loss"][0]
    longer = config.model_copy(update={"epochs": 2})
    second = load_model(general.train_general(tmp_path, longer, 1))
    assert second.step == 30
    other = TrainConfig(
        epochs=1, batches_per_epoch=1, schedule="linear", device="cpu", start=str(tmp_path / "model.pt")
    )
    third = load_model(general.train_general(tmp_path / "from", other, 1))
    assert third.preset == "small"
    assert all(torch.allclose(third.weights[name], value, atol=0.02) for name, value in second.weights.items())
