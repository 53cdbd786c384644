"""Other programs' ways in and out: RELION's job folder, Triton's model repository, notebooks."""
