"""Graphs: the dataflow between the calls of a capture, and its forms in FX and networkx.

In: the priced calls of a capture. Out: edges, a ``networkx`` graph, an ``fx.GraphModule``.
May import torch (for FX alone), ``capture`` and what is below it.
"""
