"""The exceptions graphflops raises on purpose.

Every message is a sentence about what was wrong, followed by what to do next.
"""

from __future__ import annotations


class GraphFlopsError(Exception):
    """Base of every error that graphflops raises on purpose."""


class CaptureError(GraphFlopsError):
    """The model could not be turned into a graph, or its own forward failed."""


class UnknownOpError(GraphFlopsError):
    """An operator without a price, where every one was asked to have one."""


class HandlerError(GraphFlopsError):
    """A handler failed or returned something that is not a cost."""


class DuplicateHandlerError(GraphFlopsError):
    """Two handlers were registered for one operator."""


class UnboundSymbolError(GraphFlopsError):
    """A number was asked for where a symbolic dimension is still unbound."""


class ModelSpecError(GraphFlopsError):
    """A model name, config, input or option given by the user does not make sense."""


class OutputError(GraphFlopsError):
    """A result could not be written where it was to go."""


class ReportFileError(GraphFlopsError):
    """A file is no report that this version can load."""


class VersionError(GraphFlopsError):
    """A piece of torch or transformers is not as it is in the versions that were tested."""


class UnknownOpWarning(UserWarning):
    """Operators without a price: the totals are lower bounds."""


class PluginWarning(UserWarning):
    """Third-party handlers that could not be loaded."""
