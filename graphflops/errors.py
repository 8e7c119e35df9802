"""Exceptions and warnings of graphflops.

Every message says what is wrong, then what to do next.
"""

from __future__ import annotations


class GraphFlopsError(Exception):
    """Base class of all errors that graphflops raises deliberately."""


class CaptureError(GraphFlopsError):
    """Failure to capture a model as a graph, or of the model's own forward."""


class ForwardError(CaptureError):
    """Failure of a model's own forward on its inputs."""


class UnknownOpError(GraphFlopsError):
    """Operators without a price, with ``on_unknown="raise"``."""


class HandlerError(GraphFlopsError):
    """Failure of a handler, or a return value that is not a cost."""


class DuplicateHandlerError(GraphFlopsError):
    """Second registration of an operator."""


class UnboundSymbolError(GraphFlopsError):
    """Use of a symbolic cost where a number is needed."""


class ModelSpecError(GraphFlopsError):
    """Invalid model name, config, input or option."""


class ModelNameError(ModelSpecError):
    """Name of no model: unknown, not found, or of a package that is not installed."""


class InputError(ModelSpecError):
    """Input, size or dtype that a model does not take."""


class BatchError(GraphFlopsError):
    """Batch that cannot run: its spec, its results file or its executor."""


class OutputError(GraphFlopsError):
    """Failure to write a result to its destination."""


class ReportFileError(GraphFlopsError):
    """File that is no report, or of a version that cannot be loaded."""


class VersionError(GraphFlopsError):
    """Name of torch or transformers that differs from the tested versions."""


class UnknownOpWarning(UserWarning):
    """Operators without a price: the totals are lower bounds."""


class PluginWarning(UserWarning):
    """Plugin with handlers that could not be loaded."""


class DeviceOutOfMemoryError(GraphFlopsError):
    """A request finds no room on the device, even after the cache is emptied."""
