"""Models of other packages: ``python -m benchmarks.others``."""
