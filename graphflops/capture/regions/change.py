"""What is different in the calls of another instance of a layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from graphflops.ir import OpCall, TensorMeta, Tensors


@dataclass(frozen=True, slots=True)
class Change:
    """From the calls of one instance to those of another.

    Attributes:
        was: The path of the one.
        path: The path of the other.
        was_source: The line that calls the one.
        source: The line that calls the other.
        names: Of the tensors that the other gets, by the names of those that the one got.
        dropped: What names in the one end in.
        suffix: What they end in in the other.
    """

    was: str
    path: str
    was_source: str
    source: str
    names: Mapping[str, str]
    suffix: str
    dropped: str = ""

    def of(self, call: OpCall, index: int) -> OpCall:
        """The call that stands in the place of one."""
        # What dataclasses.replace does, without checks that take twice as long.
        other = object.__new__(OpCall)
        other.__dict__.update(
            call.__dict__,
            index=index,
            repeats=None if index == call.index else call.index,
            path=moved(call.path, self.was, self.path),
            name=self._own(call.name),
            source=self.source if call.source == self.was_source else call.source,
            inputs={name: self._tensors(value) for name, value in call.inputs.items()},
            outputs=tuple([self._tensor(meta) for meta in call.outputs]),
        )
        return other

    def name(self, name: str) -> str:
        """The name of the tensor that stands in the place of one."""
        return self.names.get(name) or (name and self._own(name))

    def _own(self, name: str) -> str:
        return name.removesuffix(self.dropped) + self.suffix

    def _tensor(self, meta: TensorMeta) -> TensorMeta:
        return TensorMeta(meta.shape, meta.dtype, meta.strides, self.name(meta.name))

    def _tensors(self, value: Tensors) -> Tensors:
        if isinstance(value, tuple):
            return tuple([item and self._tensor(item) for item in value])
        return self._tensor(value)


@dataclass(frozen=True, slots=True)
class Suffixes:
    """What names of tensors end in, one for each repetition of a layer."""

    _times: Counter[str] = field(default_factory=Counter)

    def next(self, path: str) -> str:
        """That of the next repetition at a path."""
        self._times[path] += 1
        times = self._times[path]
        return f"@{path}" if times == 1 else f"@{path}@{times}"


def moved(path: str, was: str, now: str) -> str:
    """A path below one module as it is below another; other paths stay."""
    return now + path[len(was) :] if path == was or path.startswith(was + ".") else path
