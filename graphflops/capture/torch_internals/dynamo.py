"""Classes of Dynamo that a model or an error may be of."""

from __future__ import annotations

from torch._dynamo.eval_frame import OptimizedModule
from torch._dynamo.exc import TorchDynamoException

__all__ = [
    "OptimizedModule",
    "TorchDynamoException",
]

PIECES = {
    "OptimizedModule": "Class of what ``torch.compile`` makes of a module.",
    "TorchDynamoException": "Base class of Dynamo's errors.",
}
"""What each name is, as the test of it says when torch has changed it."""
