"""Captures of ``.pt2`` files, of which only the graph and the metadata are read.

In: the path of a file that may be malicious. Out: a ``Capture``, or an error that says what the
file is. May import ``capture.export``, ``capture.record`` and ``capture.fake``, and torch.

A file is data, never code. No pickle is opened, no weight and no sample input is read, and no
string of a file is evaluated: :mod:`graphflops.capture.export.pt2.records` lists every field that
is read, with the rule that its values must pass before PyTorch's own deserializer sees them.

===============  ======================================================
``archive``      zip archive: members that are read, and their size limits
``records``      JSON records, field by field
``value_rules``  rules for the values of fields
``operators``    functions that a graph may call
``sizes``        symbolic sizes, as arithmetic over a closed list of functions
``program``      graph with shapes, and its parameters
``file_kinds``   identification of other files
===============  ======================================================
"""

from graphflops.capture.export.pt2.program import capture_file

__all__ = ["capture_file"]
