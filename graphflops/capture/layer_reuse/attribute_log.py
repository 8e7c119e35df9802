"""Log of module attribute accesses: which attributes a block reads and writes."""

from __future__ import annotations

import contextlib
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from graphflops.capture.fake.stateful_code import stateful_methods
from graphflops.capture.layer_reuse.layer_index import LayerIndex
from graphflops.capture.layer_reuse.module_dict import module_dict
from graphflops.capture.layer_reuse.outside_state import PLAIN_TYPES
from graphflops.capture.named_modules import MODULE_INTERNALS, own_attributes
from graphflops.capture.torch_internals.count_flags import COUNT_FLAGS
from graphflops.capture.torch_internals.dispatch import TorchDispatchMode, disable_current_modes
from graphflops.capture.torch_internals.frames import NN_MODULE_FILE
from graphflops.capture.torch_internals.trees import pytree
from graphflops.runtime.patches import AttributePatch, Patches, patch_function

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
ALL_ATTRIBUTES = "*"
# nn.Module reads ``__dict__`` to look up a parameter or a child: such a read is not logged.


@dataclass(slots=True)
class AttributeLog:
    """Reads and writes, by the id of the module's attribute dictionary.

    Attributes:
        index_attributes: Attributes that may be the layer index in a cache, with the number of
            the module and their value. They are handed out as ``LayerIndex``, and count as read
            only if they are used as numbers.
        reads: Names of attributes, present or not; ``"*"`` if all of them may have been read.
        module_dicts: The attribute dictionaries of ``reads``.
        has_writes: True if an attribute was written of a module that existed before.
        has_outside_state: True if a method was looked up that may see state outside of modules.
        new_modules: Attribute dictionaries of modules constructed in the block.
        layer_indices: The layer indices that were handed out.
        identity_calls: Arguments of calls that returned their input, of modules without
            children, parameters and buffers.
    """

    index_attributes: dict[tuple[int, str], tuple[int, int]] = field(default_factory=dict)
    reads: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    module_dicts: dict[int, dict[str, Any]] = field(default_factory=dict)
    has_writes: bool = False
    has_outside_state: bool = False
    new_modules: dict[int, dict[str, Any]] = field(default_factory=dict)
    layer_indices: dict[tuple[int, str], LayerIndex] = field(default_factory=dict)
    identity_calls: defaultdict[int, list[Arguments]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def record_read(self, attributes: dict[str, Any], name: str) -> None:
        """Record a read."""
        self.reads[id(attributes)].add(name)
        self.module_dicts[id(attributes)] = attributes

    def layer_index(self, attributes: dict[str, Any], name: str) -> LayerIndex | None:
        """Return the stand-in for an attribute that may be a layer index, if it is one."""
        key = (id(attributes), name)
        if key not in self.index_attributes:
            return None
        if key not in self.layer_indices:
            number, value = self.index_attributes[key]
            self.layer_indices[key] = LayerIndex(
                (number, name, 0), value, lambda: record_read(attributes, name)
            )
        return self.layer_indices[key]


@contextlib.contextmanager
def log_attributes(log: AttributeLog) -> Iterator[None]:
    """Log reads and writes of module attributes in a block of ``attribute_patches``.

    Blocks may be nested.
    """
    outer = COUNT_FLAGS.attribute_logs
    COUNT_FLAGS.attribute_logs = (*outer, log)
    try:
        if not _ATTRIBUTE_PATCHES.is_held():
            _ATTRIBUTE_PATCHES.hold()
        yield
    finally:
        COUNT_FLAGS.attribute_logs = outer


@contextlib.contextmanager
def attribute_patches() -> Iterator[None]:
    """Keep the patches that log attributes from the first log in the block to its end.

    Python visits every loaded class of modules when one is installed.
    """
    count = _ATTRIBUTE_PATCHES.hold_count()
    try:
        yield
    finally:
        _ATTRIBUTE_PATCHES.release(count)


def is_logging() -> bool:
    """Return True inside a block of ``log_attributes``."""
    return bool(COUNT_FLAGS.attribute_logs)


def record_identity_call(
    attributes: dict[str, Any],
    arguments: Arguments,
    copy: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    """Record that a module returned its input, if it has no children, parameters or buffers.

    Args:
        attributes: Attribute dictionary of the module.
        arguments: Arguments of the call.
        copy: Function that copies a tensor without its memory; the copies are kept.
    """
    if not (attributes["_modules"] or attributes["_parameters"] or attributes["_buffers"]):
        copies: Arguments = pytree.tree_map_only(torch.Tensor, copy, arguments)
        for log in COUNT_FLAGS.attribute_logs:
            log.identity_calls[id(attributes)].append(copies)


class _ForbidOperators(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's gap
    """Raises at the first operator."""

    def __torch_dispatch__(self, *_: Any) -> Any:
        raise _OperatorRan


class _OperatorRan(Exception):  # noqa: N818 - a signal
    pass


def is_identity(module: nn.Module, arguments: Arguments) -> bool:
    """Return True if a module of plain attributes returns its input and does nothing else."""
    args, kwargs = arguments
    before = _own_attributes(module)
    if not PLAIN_TYPES.issuperset(map(type, before.values())):
        return False
    try:
        with disable_current_modes(), _ForbidOperators():  # type: ignore[no-untyped-call]  # likewise
            is_input = module.forward(*args, **kwargs) is args[0]
    except _OperatorRan:
        return False
    return is_input and _own_attributes(module) == before


def _own_attributes(module: nn.Module) -> dict[str, Any]:
    attributes = module_dict(module)
    return {name: attributes[name] for name in own_attributes(tuple(attributes))}


def record_read(attributes: dict[str, Any], name: str) -> None:
    """Record a read on behalf of a replayed layer, whose template read the attribute."""
    for log in COUNT_FLAGS.attribute_logs:
        log.record_read(attributes, name)


def _getattribute(module: nn.Module, name: str) -> Any:
    if not COUNT_FLAGS.attribute_logs:
        return object.__getattribute__(module, name)
    attributes = module_dict(module)
    if name == "__dict__":
        if not sys._getframe(1).f_code.co_filename.endswith(NN_MODULE_FILE):
            record_read(attributes, ALL_ATTRIBUTES)
        return attributes
    if name in attributes and name not in MODULE_INTERNALS:
        layer_index = None
        # The outermost first: its layer may be the one replayed most.
        for log in COUNT_FLAGS.attribute_logs:
            index = log.layer_index(attributes, name) if layer_index is None else None
            if index is None:
                log.record_read(attributes, name)
            else:
                layer_index = index
        return attributes[name] if layer_index is None else layer_index
    cls: type = type(module)
    if name in (stateful_methods(cls) or ()):
        for log in COUNT_FLAGS.attribute_logs:
            log.has_outside_state = True
    try:
        return object.__getattribute__(module, name)
    except AttributeError:
        record_read(attributes, name)
        raise


def _init(original_init: Callable[..., None], module: nn.Module, *args: Any, **kwargs: Any) -> None:
    attributes = module_dict(module)
    for log in COUNT_FLAGS.attribute_logs:
        log.new_modules[id(attributes)] = attributes
    original_init(module, *args, **kwargs)


def _setattr(
    original_setattr: Callable[..., None], module: nn.Module, name: str, value: Any
) -> None:
    if not name.startswith("__"):
        for log in COUNT_FLAGS.attribute_logs:
            log.has_writes |= id(module_dict(module)) not in log.new_modules
    original_setattr(module, name, value)


_ATTRIBUTE_PATCHES = Patches(
    patch_function(nn.Module, "__init__", _init),
    AttributePatch(nn.Module, "__getattribute__", lambda _, __: _getattribute),
    patch_function(nn.Module, "__setattr__", _setattr),
)
