"""Reports of a forward pass, a training step and a generation, on one base.

In: a capture and its priced records. Out: answers: totals, by module, by operator, comparisons,
text and data. May import ``render``, ``analysis``, ``conventions`` and what is below them.
"""
