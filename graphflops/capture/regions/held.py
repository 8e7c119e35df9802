"""What a module holds: its attributes, and parameters of it that are put aside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import nn


def variables(module: nn.Module) -> dict[str, Any]:
    """The attribute dictionary of a module, whoever is watching."""
    found: dict[str, Any] = object.__getattribute__(module, "__dict__")
    return found


class Hidden(dict[str, Any]):
    """Parameters or buffers of a module, put aside: whoever asks for one is refused."""

    def __init__(self, kept: dict[str, Any], refuse: Callable[[], None]) -> None:
        super().__init__()
        self.kept, self._refuse = kept, refuse

    def __contains__(self, name: object) -> bool:
        if name in self.kept:
            self._refuse()
        return False

    def __setitem__(self, name: str, value: Any) -> None:
        self._refuse()
        super().__setitem__(name, value)

    def __iter__(self) -> Iterator[str]:
        self._refuse()
        return super().__iter__()

    def items(self) -> Any:
        """None: they are refused."""
        self._refuse()
        return super().items()

    def values(self) -> Any:
        """None: they are refused."""
        self._refuse()
        return super().values()

    def keys(self) -> Any:
        """None: they are refused."""
        self._refuse()
        return super().keys()


def kept(held: dict[str, Any]) -> dict[str, Any]:
    """Parameters or buffers of a module, put aside or not."""
    return held.kept if type(held) is Hidden else held
