"""What comes after denoising: angular distances (S2.5) and Fourier shell correlation."""
