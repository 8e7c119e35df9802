"""Reports in files: saved as data, loaded without torch, all queries included.

In: a report, or a file that :func:`save` wrote. Out: the file, or an equal report.
May import reports and what is below them.
"""

from graphflops.saving.files import load, save

__all__ = ["load", "save"]
