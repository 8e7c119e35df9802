"""What all tests need before they import a model library."""

from __future__ import annotations

from graphflops.models.optional_dependencies import repair_torchvision

# Tests build transformers models without asking graphflops for them.
repair_torchvision()
