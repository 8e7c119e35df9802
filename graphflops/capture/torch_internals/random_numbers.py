"""Random numbers of a count: it draws from generators of its own, not from the process's."""

from __future__ import annotations

import copy
import pickle
import random
import sys
import threading
from collections.abc import Callable
from typing import Any

import torch

from graphflops.runtime.patches import AttributePatch, Patches


class Generators(threading.local):
    """The generators that the counts of a thread draw from: copies of the process's."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget them: the next number drawn is the one that the process would draw."""
        self._python: random.Random | None = None
        self._numpy: Any = None

    def python(self) -> random.Random:
        """Return the one in place of the module ``random``'s."""
        if self._python is None:
            python: Any = random
            self._python = random.Random()  # noqa: S311 - what a model draws is no secret
            self._python.setstate(python._inst.getstate())  # the module's own is exchanged
        return self._python

    def numpy(self) -> Any:
        """Return the one in place of the module ``numpy.random``'s."""
        if self._numpy is None:
            numpy: Any = sys.modules["numpy"]
            self._numpy = copy.deepcopy(numpy.random.mtrand._rand)  # of whatever algorithm it is
        return self._numpy

    def drawn(self) -> tuple[Any, ...]:
        """Return what tells whether a number was drawn in between."""
        python = self._python and self._python.getstate()
        if self._numpy is None:
            return python, None
        return python, _comparable(self._numpy.get_state(legacy=False))


GENERATORS = Generators()


class RandomState:
    """The state of the process's generators, as it was when a count began.

    A model may reach them by ways that nobody watches. Where other threads run, it may have been
    they who drew, and their numbers are left to them.
    """

    def __init__(self) -> None:
        self._states = [(read, write, read()) for read, write in _states()]

    def restore(self) -> None:
        """Put back what was changed; may be called again when it was interrupted."""
        if threading.active_count() > 1:
            return
        for read, write, state in self._states:
            if not _same(read(), state):
                write(state)


def _states() -> list[tuple[Callable[[], Any], Callable[[Any], Any]]]:
    generator: Any = torch.default_generator
    found: list[tuple[Callable[[], Any], Callable[[Any], Any]]] = [
        (random.getstate, random.setstate),
        (generator.get_state, generator.set_state),
    ]
    if "numpy" in sys.modules:
        numpy: Any = sys.modules["numpy"].random.mtrand._rand
        found.append(
            (
                lambda: _comparable(numpy.get_state(legacy=False)),
                lambda state: numpy.set_state(pickle.loads(state)),  # noqa: S301 - pickled here
            )
        )
    return found


def _comparable(state: Any) -> bytes:
    """Return a state of NumPy's, of whatever algorithm: arrays have no one truth."""
    return pickle.dumps(state)


def _same(state: Any, other: Any) -> bool:
    if isinstance(state, torch.Tensor):
        with torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
            return bool(torch.equal(state, other))
    return bool(state == other)


class OwnGenerators:
    """A change to the process: threads that count draw from generators of their own."""

    def __init__(self) -> None:
        self._exchanges: list[AttributePatch] = []

    def install(self, patches: Patches) -> None:
        """Exchange the functions that draw from the process's generators."""
        if not self._exchanges:
            self._exchanges = _exchanges()
        for exchange in self._exchanges:
            exchange.install(patches)

    def remove(self) -> None:
        """Put them back."""
        for exchange in self._exchanges:
            exchange.remove()
        self._exchanges = []  # numpy may be imported before the next count


def _exchanges() -> list[AttributePatch]:
    python: Any = random
    found = [
        *_drawn_from(python, python._inst, GENERATORS.python),
        *(
            AttributePatch(home, name, _ignoring(result))
            for home in (torch, torch.random)
            for name, result in _SEEDS.items()
        ),
    ]
    if "numpy" in sys.modules:
        numpy: Any = sys.modules["numpy"].random
        found += _drawn_from(numpy, numpy.mtrand._rand, GENERATORS.numpy)
    return found


_SEEDS = {"manual_seed": torch.default_generator, "seed": 0, "set_rng_state": None}
"""Functions that seed torch's generator, each with a result of its type."""


def _drawn_from(home: Any, shared: Any, own: Callable[[], Any]) -> list[AttributePatch]:
    """Exchange those functions of a module that are methods of the process's generator."""
    return [
        AttributePatch(home, name, _drawing(name, own))
        for name, value in vars(home).items()
        if getattr(value, "__self__", None) is shared
    ]


def _drawing(name: str, own: Callable[[], Any]) -> Callable[[Any, Callable[[], bool]], Any]:
    def value(original: Any, held: Callable[[], bool]) -> Any:
        def draw(*args: Any, **kwargs: Any) -> Any:
            return (getattr(own(), name) if held() else original)(*args, **kwargs)

        return draw

    return value


def _ignoring(result: Any) -> Callable[[Any, Callable[[], bool]], Any]:
    """Leave torch's generator alone: fake tensors take no numbers from it."""

    def value(original: Any, held: Callable[[], bool]) -> Any:
        def seed(*args: Any, **kwargs: Any) -> Any:
            return result if held() else original(*args, **kwargs)

        return seed

    return value
