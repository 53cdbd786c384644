"""Plain values and exceptions that every room may name."""
