"""Analyses: what follows from priced records without the report around them.

In: records, modules and registries. Out: optimizer steps, differences between conventions, the
makers' figures of devices. May import ``capture``, ``pricing``, ``core`` and what is below them.
"""
