"""Model names: from what a user types to a model with inputs.

==================  ==================================================================
``hf:PATH``         a transformers ``config.json`` or a folder with one
``hf:TYPE``         a transformers model type with its default config, e.g. ``hf:bert``
``FILE.py:NAME``    a module, module class or factory in a Python file
``PACKAGE:NAME``    the same in an importable module
``FILE.pt2``        an exported program
==================  ==================================================================
"""

from __future__ import annotations

import importlib

from graphflops.errors import ModelSpecError
from graphflops.models.workload import Options, Workload

__all__ = ["Options", "Workload", "resolve"]


def resolve(name: str, options: Options) -> Workload:
    """Find the model a name stands for and make its inputs.

    Args:
        name: One of the forms above.
        options: Sizes, dtype, config overrides and inputs.

    Raises:
        ModelSpecError: The name, the config or an option does not make sense.
    """
    # Resolvers import torch and transformers: only the one that is needed is loaded.
    if name.startswith("hf:"):
        found = importlib.import_module("graphflops.models.huggingface")
        return found.resolve(name.removeprefix("hf:"), options)  # type: ignore[no-any-return]  # a module found by name
    if name.endswith(".pt2"):
        options.forbid(
            "an exported program", "batch_size", "seq_len", "dtype", "overrides", "inputs"
        )
        return Workload(model=name)
    if ":" in name:
        found = importlib.import_module("graphflops.models.python")
        return found.resolve(name, options)  # type: ignore[no-any-return]  # a module found by name
    msg = (
        f"{name!r} is no model name. Give hf:TYPE (a transformers model type), hf:PATH (a "
        "config.json or its folder), FILE.py:NAME, package.module:NAME or FILE.pt2."
    )
    raise ModelSpecError(msg)
