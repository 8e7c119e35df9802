"""Layer index: the number of a layer's entry in a cache, which differs between layers.

``layer_idx`` differs from layer to layer and is read, but if it only selects the layer's own
entry of a cache, the work is the same. So it is handed out as an object that reports every
other use.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from graphflops.capture.transformers_compat import CACHE_FILE

# All special methods of an integer.
_INT_METHODS = (
    *("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__", "__bool__"),
    *("__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__mod__", "__rmod__"),
    *("__floordiv__", "__rfloordiv__", "__truediv__", "__rtruediv__", "__divmod__", "__rdivmod__"),
    *("__pow__", "__rpow__", "__and__", "__rand__", "__or__", "__ror__", "__xor__", "__rxor__"),
    *("__lshift__", "__rlshift__", "__rshift__", "__rrshift__", "__neg__", "__pos__", "__abs__"),
    *("__invert__", "__index__", "__int__", "__float__", "__str__", "__repr__", "__format__"),
)


class LayerIndex:
    """Stand-in for an integer attribute of a module.

    Args:
        on_use: Called when the integer is used for anything but the selection of a cache entry.

    Attributes:
        key: Number of the module in its fingerprint, name of the attribute, and what was added.
        number: The integer.
    """

    def __init__(self, key: tuple[int, str, int], number: int, on_use: Callable[[], None]) -> None:
        self.key = key
        self.number = number
        self._on_use = on_use

    @property  # type: ignore[misc]  # what isinstance asks for
    def __class__(self) -> type:
        return int

    def __getattr__(self, name: str) -> Any:
        self._on_use()
        return getattr(self.number, name)


def _int_method(name: str) -> Any:
    def method(layer_index: LayerIndex, *args: Any) -> Any:
        if not sys._getframe(1).f_code.co_filename.endswith(CACHE_FILE):
            layer_index._on_use()
        return getattr(layer_index.number, name)(*map(unwrap_index, args))

    return method


for _name in _INT_METHODS:
    setattr(LayerIndex, _name, _int_method(_name))


def _plus(layer_index: LayerIndex, number: Any) -> Any:
    """Return the index of another entry of the layer, such as its entry of a cycle."""
    if type(number) is not int:
        return _plus_unknown(layer_index, number)
    module, name, added = layer_index.key
    key = module, name, added + number
    return LayerIndex(key, layer_index.number + number, layer_index._on_use)


_plus_unknown = _int_method("__add__")
for _name in ("__add__", "__radd__"):
    setattr(LayerIndex, _name, _plus)


def unwrap_index(value: Any) -> Any:
    """Return the integer of a layer index, and any other value as it is."""
    return value.number if type(value) is LayerIndex else value
