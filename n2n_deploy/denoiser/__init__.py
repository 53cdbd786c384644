"""One micrograph as an array in, the denoised micrograph out."""
