"""Whole micrographs drawn at random (micrograph, exposure, conditions, detectors): electrons, contrast, seeds."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from torch_ctf import calculate_ctf_2d

from n2n_deploy.core.errors import UsageError
from n2n_deploy.data.structures import structure
from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.simulate import NAMES, draw_micrograph
from n2n_deploy.simulate.canvas import Canvas
from n2n_deploy.simulate.conditions import CONTRASTS, Conditions, draw_conditions, mean_free_path
from n2n_deploy.simulate.detectors import DETECTORS
from n2n_deploy.simulate.exposure import expose
from n2n_deploy.simulate.potential import PROTEIN_VOLUME, contrast_factor
from n2n_deploy.simulate.proteins import Population, draw_atoms, draw_proteins
from n2n_deploy.simulate.specimen import Particles
from n2n_deploy.simulate.specimens import KINDS

SMALL = ("esterase", "get3", "cav1.1")


def ideal(pixel_size: float) -> Conditions:
    """An exposure without ice's grain, envelope or losses."""
    optics = Optics(pixel_size, 300.0, 2.7, 0.1)
    return Conditions(
        *(optics, CTFParameters(15000.0, 14000.0, 30.0), 40.0, 0.0, 0.0, 1.0, 0.0, 0.0, DETECTORS["perfect"]),
        *(pixel_size, True, 0.0, 0.0),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_and_repeats_with_its_seed(kind: str) -> None:
    first, second, other = (draw_micrograph(np.random.default_rng(n), (160, 200), 5.0, SMALL, kind) for n in (1, 1, 2))
    assert first.expected.dtype == np.float32
    assert first.expected.shape == (160, 200)
    assert np.array_equal(first.expected, second.expected)
    assert not np.array_equal(first.expected, other.expected)
    assert first.expected.min() >= 0
    assert kind == "membranes" or (first.particles > 0) == (kind != "empty")
    assert first.optics.pixel_size == 5.0


def test_electrons_are_those_of_the_dose() -> None:
    """Ice and protein scatter electrons within the image, so its mean is the dose but for amplitude contrast."""
    for seed in range(6):
        drawn = draw_micrograph(np.random.default_rng(seed), (200, 200), 4.0, SMALL, "single")
        if not drawn.contamination:
            assert drawn.expected.mean() == pytest.approx(drawn.conditions.dose * 16, rel=0.04)


def test_single_particle_in_electrons() -> None:
    """Dose · (1 − 2 Φ ⊗ CTF): torch-ctf's CTF, and a phase from Kirkland's interaction parameter and mean potentials.

    Here every atom counts with its potential at s = 0, so both images are compared after blurring by 6 Å.
    """
    pixel_size, atoms, conditions = 2.0, structure("proteasome"), ideal(2.0)
    canvas = Canvas.empty((128, 128), pixel_size)
    rotation, centre = Rotation.from_euler("ZYZ", [[0, 90, 0]], degrees=True), canvas.margin + 64.0
    draw_atoms(canvas, atoms, Particles(np.full((1, 2), centre), rotation))
    image = expose(np.random.default_rng(0), canvas, conditions) / (40 * pixel_size**2)
    x, y, _ = (rotation.inv().apply(atoms.positions) / pixel_size + centre).T
    weights = np.array([contrast_factor(z, np.zeros(1))[0] for z in range(1, 17)])[atoms.elements - 1]
    edges = [np.arange(n + 1) - 0.5 for n in canvas.shape]
    volts = 47.878 / pixel_size**2 * np.histogram2d(y, x, edges, weights=weights)[0]
    transfer = calculate_ctf_2d(
        defocus=1.45,
        astigmatism=0.05,
        astigmatism_angle=30.0,
        voltage=300.0,
        spherical_aberration=2.7,
        amplitude_contrast=0.1,
        phase_shift=0.0,
        pixel_size=pixel_size,
        image_shape=canvas.shape,
        rfft=True,
        fftshift=False,
    ).numpy()
    s = np.hypot(np.fft.fftfreq(canvas.shape[0], pixel_size)[:, None], np.fft.rfftfreq(canvas.shape[1], pixel_size))
    blur = np.exp(-2 * (np.pi * 6.0 * s) ** 2)
    phase = 6.526e-4 * volts
    expected = 1 - 2 * canvas.crop(np.fft.irfft2(np.fft.rfft2(phase) * transfer * blur, canvas.shape))
    wide = np.ones(canvas.shape)
    wide[canvas.margin : canvas.margin + 128, canvas.margin : canvas.margin + 128] = image
    found = canvas.crop(np.fft.irfft2(np.fft.rfft2(wide) * blur, canvas.shape))
    inner = np.s_[24:-24, 24:-24]
    assert np.corrcoef(found[inner].ravel(), expected[inner].ravel())[0, 1] > 0.98
    assert np.std(found[inner]) == pytest.approx(np.std(expected[inner]), rel=0.1)


def test_range_of_contrast_includes_the_published_potentials() -> None:
    """Hydrated protein lies about 2.4 V above ice (Vulović et al. 2013: 6.9 V and 4.5 V); free atoms give more."""
    atoms = structure("rubisco")
    elements, counts = np.unique(atoms.elements, return_counts=True)
    total = sum(contrast_factor(int(z), np.zeros(1))[0] * n for z, n in zip(elements, counts, strict=True))
    mass = {6: 13.019, 7: 15.015, 8: 17.007, 15: 31.982, 16: 33.068}
    volume = PROTEIN_VOLUME * sum(mass[int(z)] * n for z, n in zip(elements, counts, strict=True))
    free = 47.878 * total / volume
    assert free * CONTRASTS[0] < 2.4 < free * CONTRASTS[1]


def test_inelastic_losses_are_as_published() -> None:
    """203 nm at 120 kV (Grimm et al. 1996) and 280 to 400 nm at 300 kV; a filter keeps the contrast."""
    assert mean_free_path(120.0) == pytest.approx(2030)
    assert 2800 < mean_free_path(300.0) < 4000
    thick = dataclasses.replace(ideal(4.0), thickness=mean_free_path(300.0), energy_filter=False)
    assert thick.coherent_fraction == pytest.approx(np.exp(-1))
    assert dataclasses.replace(thick, energy_filter=True).coherent_fraction == 1


def test_detector_lowers_the_signal_by_its_dqe() -> None:
    """Signal power falls by the DQE at zero, half and whole Nyquist frequency."""
    pixel_size = 1.1
    for detector in DETECTORS.values():
        s = np.array([0, 0.25, 0.5]) / pixel_size
        np.testing.assert_allclose(detector.envelope(s, pixel_size) ** 2, detector.dqe, rtol=1e-6)
        assert np.all(np.diff(detector.envelope(np.linspace(0, 0.5, 50), 1.0)) <= 1e-6)


def test_signal_to_noise_ratios_span_those_of_real_micrographs() -> None:
    """At 100 to 30 Å the real one of this package has 0.23 to 0.35 in each half."""
    ratios = []
    s = np.hypot(np.fft.fftfreq(192, 5.0)[:, None], np.fft.rfftfreq(192, 5.0))
    window = np.outer(np.hanning(192), np.hanning(192))
    for seed in range(24):
        rng = np.random.default_rng(seed)
        expected = draw_micrograph(rng, (192, 192), 5.0, SMALL, "single").expected / 2
        power = np.abs(np.fft.rfft2((expected - expected.mean()) * window)) ** 2
        noise = expected.mean() * np.sum(window**2)
        ratios.append(power[(s > 0.01) & (s < 1 / 30)].mean() / noise)
    assert np.quantile(ratios, 0.1) < 0.2
    assert np.quantile(ratios, 0.9) > 0.6


def test_conditions_stay_in_their_range() -> None:
    for seed in range(50):
        drawn = draw_conditions(np.random.default_rng(seed), 3.0)
        assert 15 <= drawn.dose <= 70
        assert 100 <= drawn.thickness <= 1000
        assert drawn.ctf.defocus_v > 2500
        assert drawn.ctf.defocus_u < 47000
        assert drawn.detector_pixel <= 3.0
        assert 80 <= (drawn.optics.voltage or 0) <= 300


def test_unknown_names_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(UsageError, match="no structure named 'ferritin'; use one of proteasome"):
        draw_micrograph(rng, (64, 64), 4.0, ("ferritin",))
    with pytest.raises(UsageError, match="no kind of specimen named 'virus'; use one of single"):
        draw_micrograph(rng, (64, 64), 4.0, NAMES, "virus")
    population = Population()
    draw_proteins(Canvas.empty((64, 64), 4.0), population, 0.5, rng)
    assert len(population) == 0
