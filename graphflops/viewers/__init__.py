"""Reports and graphs as files of viewers: flame graphs, time lines, graphs with their hierarchy.

In: a report, through the protocols of ``viewers.viewed`` and ``render.protocols``. Out: texts of
files. May import ``render``, ``analysis``, ``graph``, ``core`` and what is below them; pydot is
imported when a graph in DOT is written.
"""
