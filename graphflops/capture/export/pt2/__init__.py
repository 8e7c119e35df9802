"""Captures of ``.pt2`` files: their graph and metadata are read, and nothing else of them.

What comes from strangers is data here. No pickle is opened, no weight and no sample input is
read, and no string of a file is evaluated: :mod:`graphflops.capture.export.pt2.records` lists
every field that is read, with the rule that its values pass before PyTorch's own deserializer
sees them.

==============  =================================================================
``archive``     the zip archive: which members are read, and how large they may be
``records``     the JSON in it, field by field
``operators``   which functions a graph may name
``sizes``       symbolic sizes, as arithmetic over a closed list of functions
``program``     from those to a graph with shapes, and its parameters
``kinds``       what a file is that is no exported program
==============  =================================================================
"""

from graphflops.capture.export.pt2.program import capture_file

__all__ = ["capture_file"]
