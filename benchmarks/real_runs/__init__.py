"""Counts held against real runs on the CPU: ``python -m benchmarks.real_runs``."""
