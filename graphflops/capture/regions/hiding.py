"""Parameters that an export need not see, because the layers that have them will be reused.

To export a parameter takes as long as an operator, and a deep model has thousands. Those of
layers that look like a sibling's repetition are put aside before anything is known for sure;
if one of them is asked for after all, the model is captured again with all in place.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from torch import nn

from graphflops.capture.regions.held import Hidden
from graphflops.capture.regions.siblings import Siblings

_TELLING = {bool, str, int, type(None)}
_HELD = ("_parameters", "_buffers")
_LEAST = 5
"""Modules in a layer; one of fewer may be too small to be repeated."""


class Asked(Exception):  # noqa: N818 - no error: the model is captured again
    """A parameter that was put aside is needed."""


class Hiding:
    """Puts the parameters of some layers aside.

    Attributes:
        asked: Whether one of them was needed.
        running: Whether the model runs: only then it is the model that asks.
        undo: What puts things outside of modules back that layers have changed: the model will
            run again, from the beginning.
    """

    def __init__(self) -> None:
        self.undo: list[Callable[[], None]] = []
        self.asked = self.running = self._active = False

    def refuse(self) -> None:
        """Give up, if it is the model that asks.

        Raises:
            Asked: It is.
        """
        if self.running:
            self.asked = True
            for undo in reversed(self.undo):
                undo()
            raise Asked

    def refuse_if_active(self) -> None:
        """Give up, if anything was put aside.

        Raises:
            Asked: It was.
        """
        if self._active:
            self.refuse()

    @contextlib.contextmanager
    def hidden(self, model: nn.Module, siblings: dict[int, Siblings]) -> Iterator[None]:
        """Put parameters of the repetitions among siblings aside until the block ends."""
        held = [part for layer in _repetitions(model, siblings) for part in layer.modules()]
        names = Counter(id(part) for _, part in model.named_modules(remove_duplicate=False))
        tensors = Counter(
            id(tensor)
            for module in model.modules()
            for kind in _HELD
            for tensor in vars(module)[kind].values()
            if tensor is not None
        )
        kept = []
        for part in held:
            for kind in _HELD:
                own = vars(part)[kind]
                # What others have too stays where it is.
                if own and names[id(part)] == 1 and all(tensors[id(t)] <= 1 for t in own.values()):
                    kept.append((part, kind, own))
                    vars(part)[kind] = Hidden(own, self.refuse)
        self._active = bool(kept)
        try:
            yield
        finally:
            self._active = False
            for part, kind, own in kept:
                vars(part)[kind] = own


def _repetitions(model: nn.Module, siblings: dict[int, Siblings]) -> Iterator[nn.Module]:
    """The outermost layers that look like repetitions of a sibling before them."""
    kinds: dict[int, Any] = {}
    for group in {id(group): group for group in siblings.values()}.values():
        first, *others = group.members
        if len(others) > 1 and sum(1 for _ in first.modules()) >= _LEAST:
            kinds |= {
                id(m): (id(group), k) for m, k in zip(group.members, _kinds(group), strict=True)
            }
    seen: set[Any] = set()
    waiting = [model]
    while waiting:
        for child in waiting.pop().children():
            kind = kinds.get(id(child))
            if kind is not None and kind in seen:
                yield child
            else:
                seen.add(kind)
                waiting.append(child)


def _kinds(group: Siblings) -> list[Any]:
    """What tells kinds of siblings apart: flags, words, and numbers that come up again."""
    found = [
        [
            (name, value)
            for part in member.modules()
            for name, value in vars(part).items()
            if type(value) in _TELLING
        ]
        for member in group.members
    ]
    if len({len(attributes) for attributes in found}) > 1:
        return [tuple(attributes) for attributes in found]
    # A number that is another in each of them is that of the layer.
    columns = [c for c in zip(*found, strict=True) if len(set(c)) < len(c)]
    return list(zip(*columns, strict=True)) or [()] * len(found)
