"""A whole job: what to do, many micrographs at once, tables and summaries."""
