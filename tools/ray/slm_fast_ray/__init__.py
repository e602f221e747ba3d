"""Places the jobs of `slm-fast search --engine ray` on a Ray cluster."""
