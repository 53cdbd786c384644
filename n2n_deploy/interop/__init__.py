"""Other programs' ways in and out: RELION's job folder."""
