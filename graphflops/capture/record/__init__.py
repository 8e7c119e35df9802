"""Records: from a model that runs under fake tensors, or from a graph, to operator calls.

In: the stand-in of a model, or an fx graph. Out: calls with their call sites, modules, notes.
May import ``diagnose``, ``counting_thread``, ``fake`` and what is below them.
"""
