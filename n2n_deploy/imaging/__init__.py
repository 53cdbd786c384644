"""Arrays to arrays, NumPy or CuPy alike: CTF, Fourier grids and filters, preprocessing and restoring."""
