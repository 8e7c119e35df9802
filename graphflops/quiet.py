"""Keep libraries from talking while they work for us: what matters stands in the report."""

from __future__ import annotations

import contextlib
import gc
import io
import logging
import warnings
from collections.abc import Iterator

_TALKERS = ("torch", "transformers", "huggingface_hub", "timm")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hold back warnings, the logs of the libraries we call and what is printed to stderr.

    ``torch.export`` prints the graph it had when it fails, tens of kilobytes long.
    """
    loggers = [logging.getLogger(name) for name in _TALKERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Hold back the collection of garbage: a count makes many objects and drops few of them."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()
