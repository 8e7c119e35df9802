"""graphflops inside a compiler: costs on nodes, a backend, hooks of the partitioner and Inductor.

In: graphs as Dynamo, AOTAutograd and Inductor hand them over. Out: reports, records in
``node.meta``, weights for torch's own schedulers, cuts into pipeline stages. May import
``counting``, ``reports``, ``analysis``, ``capture`` and everything below them.
"""

from graphflops.compiler.annotation import AnnotatePass, annotate

__all__ = ["AnnotatePass", "annotate"]
