"""Measurements against other counters; run from the root of a checkout."""
