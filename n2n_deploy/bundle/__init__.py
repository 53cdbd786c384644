"""The `.n2n` file: what it holds, what it says of itself, and who signed it."""
