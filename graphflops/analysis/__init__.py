"""Analyses: what follows from priced records without the report around them.

In: records, modules and registries. Out: optimizer steps, differences between conventions, peak
rates of accelerators. May import ``capture``, ``pricing``, ``core`` and what is below them.
"""
