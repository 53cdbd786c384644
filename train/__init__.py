"""Training: from the halves of micrographs to a network (S2.1 to S2.3). Needs torch, h5py and matplotlib."""
