"""Symbolic elements of fake tensors, and the number of scores that attention masks hide.

In: operator calls on fake tensors. Out: each element of a result as an expression of its indices,
and counts of hidden mask elements, for masks too large to compute or of symbolic size.
May import sympy, torch and ``fake.metadata``; ``elements`` tracks tensors, ``rules`` propagates
through operators, ``counting`` and ``refinement`` count.
"""

from graphflops.capture.fake.mask_elements.elements import SymbolicElements

__all__ = ["SymbolicElements"]
