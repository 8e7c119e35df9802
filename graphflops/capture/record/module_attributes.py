"""Attributes of modules in which a model keeps state from one call to the next."""

from __future__ import annotations

from typing import Any, TypeAlias

from torch import nn

from graphflops.capture.named_modules import own_attributes

ChangedAttributes: TypeAlias = list[tuple[nn.Module, dict[str, Any]]]
"""Modules with new values of their attributes, by name."""


class ModuleAttributes:
    """Attributes of the modules of a stand-in, as they are before it runs.

    Args:
        model: The stand-in.
    """

    def __init__(self, model: nn.Module) -> None:
        self._before = [(module, _attributes(module)) for module in model.modules()]

    def changed(self) -> ChangedAttributes:
        """Return the attributes that are other objects by now."""
        found: ChangedAttributes = []
        missing = object()
        for module, before in self._before:
            changed = {
                name: value
                for name, value in _attributes(module).items()
                if before.get(name, missing) is not value
            }
            if changed:
                found.append((module, changed))
        return found


def restore_attributes(changed: ChangedAttributes) -> None:
    """Give modules other values of their attributes."""
    for module, attributes in changed:
        for name, value in attributes.items():
            setattr(module, name, value)


def _attributes(module: nn.Module) -> dict[str, Any]:
    """Return the attributes and buffers of a module, without its methods."""
    attributes = vars(module)
    own = {name: attributes[name] for name in own_attributes(tuple(attributes))}
    own.pop("forward", None)  # a wrapper that a capture has set
    return own | module._buffers
