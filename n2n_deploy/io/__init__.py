"""Micrograph files: images and tables, read into arrays and records and written atomically."""
