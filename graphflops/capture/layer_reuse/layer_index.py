"""The number of a layer's entry in a cache, which may be another in every layer.

``layer_idx`` differs from layer to layer and is read, but if all that is done with it is
picking the layer's own entry of a cache, the work is the same. So it is handed out as an
object that notes every other use.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

_CACHES = "transformers/cache_utils.py"
# All that Python does with an integer.
_USES = (
    *("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__", "__bool__"),
    *("__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__mod__", "__rmod__"),
    *("__floordiv__", "__rfloordiv__", "__truediv__", "__rtruediv__", "__divmod__", "__rdivmod__"),
    *("__pow__", "__rpow__", "__and__", "__rand__", "__or__", "__ror__", "__xor__", "__rxor__"),
    *("__lshift__", "__rlshift__", "__rshift__", "__rrshift__", "__neg__", "__pos__", "__abs__"),
    *("__invert__", "__index__", "__int__", "__float__", "__str__", "__repr__", "__format__"),
)


class Slot:
    """Stands for an integer that is an attribute of a module.

    Attributes:
        key: The module and the attribute.
        number: The integer.
    """

    def __init__(self, key: tuple[int, str], number: int, used: Callable[[], None]) -> None:
        self.key = key
        self.number = number
        self._used = used

    @property  # type: ignore[misc]  # what isinstance asks for
    def __class__(self) -> type:
        return int

    def __getattr__(self, name: str) -> Any:
        self._used()
        return getattr(self.number, name)


def _use(name: str) -> Any:
    def method(slot: Slot, *args: Any) -> Any:
        if not sys._getframe(1).f_code.co_filename.endswith(_CACHES):
            slot._used()
        return getattr(slot.number, name)(*map(number_of, args))

    return method


for _name in _USES:
    setattr(Slot, _name, _use(_name))


def number_of(value: Any) -> Any:
    """The number that a slot stands for; any other value as it is."""
    return value.number if type(value) is Slot else value
