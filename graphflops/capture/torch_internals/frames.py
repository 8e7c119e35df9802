"""Files of torch by which a stack frame is recognized."""

from __future__ import annotations

__all__ = ["NN_MODULE_FILE"]

NN_MODULE_FILE = "torch/nn/modules/module.py"

PIECES = {
    "NN_MODULE_FILE": "File of ``nn.Module``, whose own look-ups of attributes are not a model's.",
}
"""What each name is, as the test of it says when torch has changed it."""
