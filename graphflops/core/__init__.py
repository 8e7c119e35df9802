"""Values that every stage shares: calls, costs, module trees and conditions on sizes.

In: shapes, attributes and modules from capture, and costs from pricing, as plain numbers or
sympy expressions. Out: frozen values that reports and analyses read. May import ``runtime``,
``errors`` and sympy; never torch.
"""
