"""Repeated layers: traced once, and reused where an instance provably does the same work.

``likeness``, ``reads``, ``slots``, ``caches`` and ``rule`` say when that is so and know nothing
of graphs; ``export`` records layers in an export and repeats them; ``expansion`` reads the
graph that comes out of it.
"""

from graphflops.capture.regions.export import ExportTracer
from graphflops.capture.regions.rule import Regions

__all__ = ["ExportTracer", "Regions"]
