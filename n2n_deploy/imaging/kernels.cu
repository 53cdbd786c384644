// Fourier space on a GPU in one pass each way: crop × band-pass × CTF sign, and pad × low-pass × merge.
//
// The arithmetic is in plain functions that a C++ compiler takes as well, so it can be tested without a GPU against
// the NumPy functions whose formulas it shares: fourier.resize_spectrum, filters.bandpass and soft_lowpass,
// ctf.flip_phases, host_ops. Spectra are rfft2's, row by row; frequencies in 1/Å; parameters are 8-byte fields only, so
// that NumPy's structures and C's have the same layout.

#ifdef __CUDACC__
#define BOTH __host__ __device__ inline
#else
#define BOTH inline
#endif
#ifndef __CUDACC_RTC__
#include <math.h>
#endif

typedef long long integer;

struct complex32 {
    float re, im;
};

BOTH complex32 operator+(complex32 a, complex32 b) { return {a.re + b.re, a.im + b.im}; }
BOTH complex32 operator-(complex32 a, complex32 b) { return {a.re - b.re, a.im - b.im}; }
BOTH complex32 operator*(complex32 a, float b) { return {a.re * b, a.im * b}; }
BOTH complex32 conjugate(complex32 a) { return {a.re, -a.im}; }
BOTH float amplitude(complex32 a) { return sqrtf(a.re * a.re + a.im * a.im); }

// A real image's size, how many columns of its spectrum are stored, and the step from one frequency to the next.
struct Grid {
    integer ny, nx, columns;
    double step_y, step_x;
};

// γ/π as a polynomial: fourth·s⁴ + xx·x² + xy·xy + yy·y² + constant; flip is 0 where phases stay as they are.
struct Aberration {
    integer flip;
    double fourth, xx, xy, yy, constant;
};

BOTH integer signed_index(integer index, integer n) { return index < (n + 1) / 2 ? index : index - n; }

BOTH double frequency_y(const Grid& grid, integer y) { return signed_index(y, grid.ny) * grid.step_y; }
BOTH double frequency_x(const Grid& grid, integer x) { return x * grid.step_x; }

BOTH float frequency(const Grid& grid, integer y, integer x) {
    double sy = frequency_y(grid, y), sx = frequency_x(grid, x);
    return (float)sqrt(sy * sy + sx * sx);
}

// The sign of sin γ, with sign(0) = +1. γ reaches hundreds of radians: float64.
BOTH float ctf_sign(const Aberration& ctf, const Grid& grid, integer y, integer x) {
    if (!ctf.flip) return 1.0f;
    double sy = frequency_y(grid, y), sx = frequency_x(grid, x);
    // Where +x and −x are one component, y and −y are conjugates in a real image, and must keep one sign.
    if (2 * x == grid.nx) sy = fabs(sy);
    double s2 = sy * sy + sx * sx;
    double half_turns = ctf.fourth * s2 * s2 + ctf.xx * sx * sx + ctf.xy * sx * sy + ctf.yy * sy * sy + ctf.constant;
    return ((integer)floor(half_turns) & 1) ? -1.0f : 1.0f;
}

BOTH float power(float base, int exponent) {
    float result = 1.0f;
    for (; exponent; exponent >>= 1, base *= base)
        if (exponent & 1) result *= base;
    return result;
}

// Butterworth high-pass (order 4) times Butterworth low-pass (order 16); at s = 0 the first is 1/√∞ = 0.
BOTH float bandpass(float s, float highpass, float lowpass) {
    return 1.0f / sqrtf((1.0f + power(1.0f / (s * highpass), 8)) * (1.0f + power(s / lowpass, 32)));
}

// 1 up to start, a cosine edge, 0 from end on.
BOTH float soft_lowpass(float s, double start, double end) {
    float edge = (s - (float)start) / (float)fmax(end - start, 1e-12);
    edge = fminf(fmaxf(edge, 0.0f), 1.0f);
    return 0.5f + 0.5f * cosf(3.14159265f * edge);
}

// One component of a spectrum with its rows resized; source(y, x) is the component before.
template <class Source>
BOTH complex32 resized_rows(const Source& source, integer n, integer new_n, integer y, integer x) {
    if (n == new_n) return source(y, x);
    integer half = (n < new_n ? n : new_n) / 2;
    bool even = (n < new_n ? n : new_n) % 2 == 0;
    integer k = signed_index(y, new_n);
    bool at_nyquist = even && (k == half || k == -half);
    if (at_nyquist && new_n < n) return source(half, x) + source(n - half, x);
    if (at_nyquist) return source(half, x) * 0.5f;
    if (k > half || -k > half) return {0.0f, 0.0f};
    return source(k < 0 ? k + n : k, x);
}

// One component (y, x) of resize_spectrum, but for its scale: cropping adds up ±Nyquist, padding halves and spreads it.
template <class Source>
BOTH complex32 resized(const Source& source, const Grid& from, const Grid& to, integer y, integer x) {
    integer smaller = from.nx < to.nx ? from.nx : to.nx;
    if (from.nx != to.nx && x > smaller / 2) return {0.0f, 0.0f};
    complex32 value = resized_rows(source, from.ny, to.ny, y, x);
    if (from.nx == to.nx || smaller % 2 || x != smaller / 2) return value;
    if (to.nx > from.nx) return value * 0.5f;
    return value + conjugate(resized_rows(source, from.ny, to.ny, y ? to.ny - y : 0, x));
}

struct Stored {
    const complex32* values;
    integer columns;
    BOTH complex32 operator()(integer y, integer x) const { return values[y * columns + x]; }
};

struct Flipped {
    const complex32* values;
    const Grid& grid;
    const Aberration& ctf;
    BOTH complex32 operator()(integer y, integer x) const {
        return values[y * grid.columns + x] * ctf_sign(ctf, grid, y, x);
    }
};

struct Crop {
    Grid raw, network;
    Aberration ctf;
    double scale, highpass, lowpass;
};

BOTH complex32 cropped(const complex32* raw, const Crop& p, integer y, integer x) {
    complex32 value = resized(Stored{raw, p.raw.columns}, p.raw, p.network, y, x);
    float band = bandpass(frequency(p.network, y, x), (float)p.highpass, (float)p.lowpass);
    return value * ((float)p.scale * band * ctf_sign(p.ctf, p.network, y, x));
}

// denoised_ctf and noisy_ctf say what to flip; start and end are the merge's edge, or the final low-pass without one;
// a second low-pass (extra_end > 0) works on the result.
struct Pad {
    Grid network, full;
    Aberration denoised_ctf, noisy_ctf;
    double scale, start, end, extra_start, extra_end;
};

BOTH complex32 padded(const complex32* denoised, const Pad& p, integer y, integer x) {
    return resized(Flipped{denoised, p.network, p.denoised_ctf}, p.network, p.full, y, x) * (float)p.scale;
}

BOTH complex32 flipped_noisy(const complex32* noisy, const Pad& p, integer y, integer x) {
    return noisy[y * p.full.columns + x] * ctf_sign(p.noisy_ctf, p.full, y, x);
}

// Whether (y, x) lies in the merge band, and the two amplitudes there.
BOTH bool band_amplitudes(const complex32* denoised, const complex32* noisy, const Pad& p, integer y, integer x,
                          float& of_denoised, float& of_noisy) {
    float weight = soft_lowpass(frequency(p.full, y, x), p.start, p.end);
    if (!(weight > 0.0f && weight < 1.0f)) return false;
    of_denoised = amplitude(padded(denoised, p, y, x));
    of_noisy = amplitude(noisy[y * p.full.columns + x]);
    return true;
}

// s of S2.4 from the sums over the band: count, Σ|D|, Σ|D|², Σ|N|, Σ|N|².
BOTH float amplitude_ratio(const double* sums) {
    double denoised = sums[2] / sums[0] - (sums[1] / sums[0]) * (sums[1] / sums[0]);
    double noisy = sums[4] / sums[0] - (sums[3] / sums[0]) * (sums[3] / sums[0]);
    return denoised > 0.0 ? (float)sqrt(noisy / denoised) : 1.0f;
}

// noisy is null where nothing is merged.
BOTH complex32 merged(const complex32* denoised, const complex32* noisy, float ratio, const Pad& p, integer y,
                      integer x) {
    float s = frequency(p.full, y, x);
    float weight = soft_lowpass(s, p.start, p.end);
    complex32 value = {0.0f, 0.0f};
    if (weight > 0.0f) value = padded(denoised, p, y, x) * (weight * ratio);
    if (noisy && weight < 1.0f) value = value + flipped_noisy(noisy, p, y, x) * (1.0f - weight);
    return p.extra_end > 0.0 ? value * soft_lowpass(s, p.extra_start, p.extra_end) : value;
}

#ifdef __CUDACC__
__device__ inline integer thread_index() { return (integer)blockIdx.x * blockDim.x + threadIdx.x; }

extern "C" __global__ void crop_kernel(const complex32* raw, complex32* out, Crop p) {
    integer index = thread_index();
    if (index >= p.network.ny * p.network.columns) return;
    out[index] = cropped(raw, p, index / p.network.columns, index % p.network.columns);
}

extern "C" __global__ void band_kernel(const complex32* denoised, const complex32* noisy, double* sums, Pad p) {
    __shared__ double shared[5];
    if (threadIdx.x < 5) shared[threadIdx.x] = 0.0;
    __syncthreads();
    double mine[5] = {0.0, 0.0, 0.0, 0.0, 0.0};
    integer total = p.full.ny * p.full.columns, stride = (integer)gridDim.x * blockDim.x;
    for (integer index = thread_index(); index < total; index += stride) {
        float d, n;
        if (!band_amplitudes(denoised, noisy, p, index / p.full.columns, index % p.full.columns, d, n)) continue;
        mine[0] += 1.0;
        mine[1] += d;
        mine[2] += (double)d * d;
        mine[3] += n;
        mine[4] += (double)n * n;
    }
    for (int lane = 16; lane; lane /= 2)
        for (int k = 0; k < 5; ++k) mine[k] += __shfl_down_sync(0xffffffffu, mine[k], lane);
    if (threadIdx.x % 32 == 0)
        for (int k = 0; k < 5; ++k) atomicAdd(&shared[k], mine[k]);
    __syncthreads();
    if (threadIdx.x < 5) atomicAdd(&sums[threadIdx.x], shared[threadIdx.x]);
}

extern "C" __global__ void pad_kernel(const complex32* denoised, const complex32* noisy, const double* sums,
                                      complex32* out, Pad p) {
    integer index = thread_index();
    if (index >= p.full.ny * p.full.columns) return;
    float ratio = noisy ? amplitude_ratio(sums) : 1.0f;
    out[index] = merged(denoised, noisy, ratio, p, index / p.full.columns, index % p.full.columns);
}
#endif
