"""What all tests need before they import a model library."""

from __future__ import annotations

from importlib.util import find_spec

from graphflops.models.optional_dependencies import repair_torchvision

# Tests build transformers models without asking graphflops for them.
repair_torchvision()

# Imports Lightning, which is an extra; its doctests run where it is installed.
collect_ignore = [] if find_spec("lightning") else ["graphflops/integrations/lightning.py"]
