"""Plots of reports in SVG and PNG files, by matplotlib, which is imported when a plot is made.

In: a report, through the protocols of ``render.protocols``. Out: a file. May import ``render``,
``analysis``, ``core`` and what is below them; matplotlib's figures, and no state of ``pyplot``.
"""
