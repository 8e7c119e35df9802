"""A stand-in of a model and its inputs, which a count runs in place of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import nn
from torch._dynamo.eval_frame import OptimizedModule
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.parameter import is_lazy
from torch.utils import _pytree as pytree

from graphflops.capture.fake.class_attributes import CLASS_ATTRIBUTES
from graphflops.capture.fake.code import own_class
from graphflops.capture.fake.constant_propagation import ValueTracker
from graphflops.capture.fake.copies import PLAIN, Copies
from graphflops.capture.fake.fake_tensors import (
    CPU,
    FakeTensors,
    InputTensors,
    MetaTensors,
    device_of,
)
from graphflops.capture.fake.offloading import (
    device_brought_to,
    leave_where_it_is,
    offloading_hooks,
)
from graphflops.capture.fake.symbolic_shapes import Specs
from graphflops.capture.named_modules import Modules, modules_in

Inputs: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
_BARE = vars(nn.Module())


class StandIn(NamedTuple):
    """Copies of a model and its inputs that hold fake tensors.

    Attributes:
        model: The copy of the model.
        modules: Its modules.
        args: Copies of the positional inputs.
        kwargs: Copies of the keyword inputs.
        known: The mode of the fake tensors, with what it knows of values.
    """

    model: Any
    modules: Modules
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    known: ValueTracker


def stand_in(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    specs: Specs | None = None,
) -> StandIn:
    """Make a stand-in of a model and its inputs; nothing of either is written.

    The inputs are brought to the model's device, so that real, fake and meta tensors may be
    mixed.

    Args:
        model: The model; what is compiled in it stands in as it was written.
        args: Positional inputs.
        kwargs: Keyword inputs.
        specs: Axes of inputs that are to be symbolic.

    Raises:
        CaptureError: Something in the model cannot be copied.
    """
    known = ValueTracker()
    inputs = (args, dict(kwargs))
    first = next(chain(model.parameters(), model.buffers()), None)
    device = device_of(first, pytree.tree_leaves(inputs))
    given = InputTensors(known, device, specs or {})
    copies = _ModelCopies(FakeTensors(known))
    with torch._C.DisableTorchFunction():
        own = copies.whole(model)
        copies.inputs = given
        own_args, own_kwargs = copies.whole(list(inputs))
    return StandIn(own, modules_in(own), own_args, own_kwargs, known)


def on_meta(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Inputs:
    """Return a model and its inputs on the meta device, as ``((model, *args), kwargs)``.

    Nothing of a count is in it: it runs as any model on meta does.
    """
    tensors = MetaTensors()
    copies = _ModelCopies(tensors)
    with torch._C.DisableTorchFunction():
        own = copies.whole(model)
        copies.inputs = tensors
        own_args, own_kwargs = copies.whole([tuple(args), dict(kwargs)])
    return (own, *own_args), own_kwargs


class _ModelCopies(Copies):
    """Copies of modules, with fake tensors for theirs.

    Attributes:
        inputs: Makes the tensors of inputs; set when the model's are made.
    """

    def __init__(self, tensors: FakeTensors | MetaTensors) -> None:
        super().__init__()
        self.inputs: InputTensors | MetaTensors | None = None
        self._tensors = tensors
        self._classes: dict[type, type] = {}

    def tensor(self, value: torch.Tensor) -> Any:
        """Return a fake tensor for one that is an attribute or an input."""
        return self._fake(value)

    def _fake(self, value: torch.Tensor, *, of_weight: torch.device | None = None) -> Any:
        if self.inputs is not None:
            return self._with_hooks(value, self.inputs.of(value))
        if is_lazy(value):
            raise self.refuse("has weights without a shape", _RUN_ONCE)
        try:
            if of_weight is None:
                fake = self._tensors.plain(value)
            else:
                fake = self._tensors.weight(value, of_weight)
        except NotImplementedError as error:
            what = f"holds a {type(value).__name__}, which has no fake tensor ({error})"
            raise self.refuse(what, "Count the model without it.") from error
        self.register(value, fake)
        # Those of a nested tensor are what it is made of.
        is_own = type(value) is FakeTensor or value.is_nested
        if not is_own and (held := vars(value)):
            self.later(lambda: _add_attributes(fake, self.attributes(held)))
        return self._with_hooks(value, fake)

    def _with_hooks(self, value: torch.Tensor, fake: Any) -> Any:
        """Give a fake leaf of autograd the hooks on its gradient that a tensor has."""
        if not (value.requires_grad and value.is_leaf):
            return fake
        for hooks, register in (
            (value._backward_hooks, fake.register_hook),
            (value._post_accumulate_grad_hooks, fake.register_post_accumulate_grad_hook),
        ):
            if hooks:
                self.later(partial(self._register, register, list(hooks.values())))
        return fake

    def _register(self, register: Callable[[Any], Any], hooks: list[Any]) -> None:
        for hook in hooks:
            register(self.of(hook))

    def module(self, value: nn.Module) -> Any:
        """Return the stand-in of a module."""
        if isinstance(value, OptimizedModule):
            return self.of(value._orig_mod)
        if isinstance(value, torch.jit.ScriptModule):
            what = f"is TorchScript (a {type(value).__name__}), whose code and weights are closed"
            raise self.refuse(what, "Count the Python module that it was made from.")
        kind = type(value)
        if kind not in self._classes:
            CLASS_ATTRIBUTES.note(kind)
            self._classes[kind] = own_class(self, kind)
        made: Any = object.__new__(self._classes[kind])
        self.register(value, made)
        self.later(lambda: self._fill(value, made))
        return made

    def _fill(self, value: nn.Module, made: nn.Module) -> None:
        """Give a stand-in its parts."""
        path = self.place
        held = vars(value).copy()
        held.pop("_compiled_call_impl", None)
        containers, own = _sorted(tuple(held))
        for name in containers:
            content = held[name]
            held[name] = content.copy() if content else type(content)()
        self._fill_tensors(held)
        children = held["_modules"]
        for key, child in children.items():
            self.place = f"{path}.{key}" if path else key
            children[key] = self.of(child)
        self.place = path
        for name in _HOOKS:
            if hooks := held.get(name):
                hooks.update(self.attributes(hooks))
        for name in own:
            content = held[name]
            if type(content) not in PLAIN:
                held[name] = self.of(content)
        object.__setattr__(made, "__dict__", held)

    def _fill_tensors(self, held: dict[str, Any]) -> None:
        """Exchange parameters and buffers for fakes, which stand where a call would have them."""
        offloading = offloading_hooks(held)
        device = device_brought_to(offloading) or CPU
        for name in ("_parameters", "_buffers"):
            tensors = held[name]
            for key, tensor in tensors.items():
                if tensor is not None:
                    tensors[key] = self._weight(tensor, device)
        for hook in map(self.of, offloading):
            self.later(partial(leave_where_it_is, hook))

    def _weight(self, tensor: torch.Tensor, device: torch.device) -> Any:
        made = self.made(tensor)
        return self._fake(tensor, of_weight=device) if made is None else made


_RUN_ONCE = "Run it once on real inputs, which gives them one, or build it with the size it has."
_HOOKS = tuple(name for name in _BARE if name.endswith("_hooks"))


def _add_attributes(fake: torch.Tensor, held: dict[str, Any]) -> None:
    """Give a fake tensor the attributes of another, but for those that make it fake."""
    own = vars(fake)
    own.update({name: value for name, value in held.items() if name not in own})


@cache
def _sorted(names: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return, of a module's attributes, the containers of every module, and its own."""
    bare = [name for name in names if isinstance(_BARE.get(name), dict | set)]
    return bare, [name for name in names if name not in _BARE]
