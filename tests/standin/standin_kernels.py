"""The kernels' arithmetic compiled for the CPU: loops over all components in place of threads."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

HARNESS = """
#define EACH(grid) for (integer y = 0; y < grid.ny; ++y) for (integer x = 0; x < grid.columns; ++x)
extern "C" void crop(const complex32* raw, complex32* out, const Crop* p) {
    EACH(p->network) *out++ = cropped(raw, *p, y, x);
}
extern "C" void band(const complex32* denoised, const complex32* noisy, double* sums, const Pad* p) {
    EACH(p->full) {
        float d, n;
        if (!band_amplitudes(denoised, noisy, *p, y, x, d, n)) continue;
        sums[0] += 1; sums[1] += d; sums[2] += (double)d * d; sums[3] += n; sums[4] += (double)n * n;
    }
}
extern "C" void pad(const complex32* denoised, const complex32* noisy, const double* sums, complex32* out,
                    const Pad* p) {
    float ratio = noisy ? amplitude_ratio(sums) : 1.0f;
    EACH(p->full) *out++ = merged(denoised, noisy, ratio, *p, y, x);
}
extern "C" void sizes(integer* out) { out[0] = sizeof(Crop); out[1] = sizeof(Pad); }
"""


def compile_kernels(source: str, folder: Path) -> ctypes.CDLL:
    """Compile the text of `kernels.cu`; skips where there is no C++ compiler."""
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler (g++ or clang++) on this machine")
    (folder / "kernels.cpp").write_text(source + HARNESS)
    options = ["-std=c++17", "-O2", "-Wall", "-Werror", "-shared", "-fPIC"]
    command = [compiler, *options, "kernels.cpp", "-o", "k.so"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(folder / "k.so"))
