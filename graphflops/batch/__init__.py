"""Batches: many models counted in processes of their own, each result or failure a line of JSON.

In: a spec in TOML or YAML. Out: a file of JSON Lines, and tables of it. May import ``counting``,
``models``, ``reports`` and all that is below them; torch only in the processes that count.
"""
