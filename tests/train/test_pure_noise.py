"""The answer to pure noise, against denoisers whose answer is known."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from n2n_deploy.train.pure_noise import noise_response, pure_noise

Images = NDArray[np.float32]


def pairs(alpha: float, signal: float) -> tuple[Images, Images]:
    """Recorrupted pairs of noise of variance 1 and a signal of this variance; and the noise of the first of each."""
    rng = np.random.default_rng(0)
    smooth = np.array([gaussian_filter(rng.standard_normal((64, 64)), 4, mode="wrap") for _ in range(40)])
    smooth *= np.sqrt(signal) / smooth.std()
    n, z = rng.standard_normal((2, 40, 64, 64))
    first = smooth + n + alpha * z
    made = np.stack([first, smooth + n - z / alpha], axis=1)
    return made.astype(np.float32), (n + alpha * z).astype(np.float32)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_the_noise_has_the_strength_of_the_inputs_noise_and_no_signal(alpha: float) -> None:
    made, true = pairs(alpha, signal=4.0)
    noise = pure_noise(made, alpha)
    assert noise.std() == pytest.approx(true.std(), rel=0.02)
    blurred = np.array([gaussian_filter(image, 4, mode="wrap") for image in noise])
    # The blur would keep the signal, whose variance is 4, and leaves 1/(4π·4²) of white noise.
    assert blurred.var() == pytest.approx(true.var() / (4 * np.pi * 16), rel=0.1)


def test_the_answer_is_that_of_the_denoiser() -> None:
    made, _ = pairs(1.0, signal=2.0)
    inputs = made[:, 0]
    assert noise_response(made, inputs, lambda images: images) == pytest.approx(2 / 4, rel=0.03)

    def gate(images: Images) -> Images:
        """Passes images with signal, whose variance is 4, and none of noise alone, whose variance is 2."""
        return images * (images.var(axis=(1, 2), keepdims=True) > 3)

    assert noise_response(made, gate(inputs), gate) == 0
