"""Prices of calls: registries of handlers, rules for memory traffic, and their application.

In: calls with shapes and attributes, and a registry. Out: a record for each call, with its cost
or as unknown. May import ``core``, ``runtime``, ``errors`` and sympy; never torch or handlers.
"""
