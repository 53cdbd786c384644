"""What is shown of a run: entries in, one page out."""
