"""Movies to micrographs: even, odd and whole sums with gain, defects, known motion and dose weights applied."""
