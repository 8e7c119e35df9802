"""Captures of models that are graphs already: exported programs, graph modules, ``.pt2`` files.

In: a graph whose nodes have shapes, or inputs to compute them from. Out: a ``Capture``. May
import ``capture.record``, ``capture.fake``, ``capture.diagnose`` and what is below ``capture``.
"""
