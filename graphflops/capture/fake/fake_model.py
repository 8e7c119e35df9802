"""Fake copies of a model and its inputs, which run in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, partial
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from graphflops.capture.fake.class_attributes import CLASS_ATTRIBUTES
from graphflops.capture.fake.constant_propagation import ValueTracker
from graphflops.capture.fake.object_copier import IMMUTABLE, ObjectCopier
from graphflops.capture.fake.offloading import (
    disable_offload,
    execution_device,
    offloading_hooks,
)
from graphflops.capture.fake.stateful_code import copy_class
from graphflops.capture.fake.symbolic_shapes import Specs
from graphflops.capture.fake.tensor_converters import (
    CPU,
    InputTensorConverter,
    MetaTensorConverter,
    ModelTensorConverter,
    device_of,
    is_on_meta,
)
from graphflops.capture.named_modules import Modules, modules_in
from graphflops.capture.torch_internals.dispatch import DisableTorchFunction
from graphflops.capture.torch_internals.dynamo import original_module
from graphflops.capture.torch_internals.fake_mode import FakeTensor
from graphflops.capture.torch_internals.trees import pytree

Inputs: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
_MODULE_DEFAULTS = vars(nn.Module())


class FakeModel(NamedTuple):
    """Copies of a model and its inputs that hold fake tensors.

    Attributes:
        model: Copy of the model.
        modules: Modules of the copy.
        args: Copies of the positional inputs.
        kwargs: Copies of the keyword inputs.
        tracker: Mode of the fake tensors, and their values.
        is_on_meta: True if the model is on the meta device, which stands for a GPU.
    """

    model: Any
    modules: Modules
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    tracker: ValueTracker
    is_on_meta: bool


def fakify_model_and_inputs(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    specs: Specs | None = None,
) -> FakeModel:
    """Make fake copies of a model and its inputs; the originals are not written.

    The inputs are moved to the model's device, so that real, fake and meta tensors may be mixed.

    Args:
        model: The model; compiled parts are copied as their originals, and run eagerly.
        args: Positional inputs.
        kwargs: Keyword inputs.
        specs: Symbolic axes of the inputs.

    Raises:
        CaptureError: An object in the model cannot be copied.
    """
    tracker = ValueTracker()
    inputs = (args, dict(kwargs))
    first = next(chain(model.parameters(), model.buffers()), None)
    leaves = pytree.tree_leaves(inputs)
    device = device_of(first, leaves)
    input_converter = InputTensorConverter(tracker, device, specs or {})
    copier = _ModelCopier(ModelTensorConverter(tracker))
    with DisableTorchFunction():
        fake_model = copier.deepcopy(model)
        copier.input_converter = input_converter
        fake_args, fake_kwargs = copier.deepcopy(list(inputs))
    modules = modules_in(fake_model)
    return FakeModel(
        fake_model, modules, fake_args, fake_kwargs, tracker, is_on_meta(first, leaves)
    )


def copy_to_meta(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Inputs:
    """Return a model and its inputs on the meta device, as ``((model, *args), kwargs)``.

    The copies run as any model on meta does, without a mode of ours.
    """
    converter = MetaTensorConverter()
    copier = _ModelCopier(converter)
    with DisableTorchFunction():
        meta_model = copier.deepcopy(model)
        copier.input_converter = converter
        meta_args, meta_kwargs = copier.deepcopy([tuple(args), dict(kwargs)])
    return (meta_model, *meta_args), meta_kwargs


class _ModelCopier(ObjectCopier):
    """Copies modules with fake tensors in place of their tensors.

    Attributes:
        input_converter: Converter of the input tensors; set after the model is copied.
    """

    def __init__(self, converter: ModelTensorConverter | MetaTensorConverter) -> None:
        super().__init__()
        self.input_converter: InputTensorConverter | MetaTensorConverter | None = None
        self._converter = converter
        self._classes: dict[type, type] = {}

    def copy_tensor(self, value: torch.Tensor) -> Any:
        """Return the fake tensor of an attribute or an input."""
        return self._fakify(value)

    def _fakify(self, value: torch.Tensor, *, weight_device: torch.device | None = None) -> Any:
        if self.input_converter is not None:
            return self._with_hooks(value, self.input_converter.convert(value))
        if is_lazy(value):
            raise self.error("has weights without a shape", _RUN_ONCE)
        try:
            if weight_device is None:
                fake = self._converter.convert_attribute(value)
            else:
                fake = self._converter.convert_weight(value, weight_device)
        except NotImplementedError as error:
            reason = f"holds a {type(value).__name__}, which has no fake tensor ({error})"
            raise self.error(reason, "Count the model without it.") from error
        self.register(value, fake)
        # The attributes of a nested tensor are its components, converted already.
        is_converted = type(value) is FakeTensor or value.is_nested
        if not is_converted and (attributes := vars(value)):
            self.defer(lambda: _add_attributes(fake, self.copy_attributes(attributes)))
        return self._with_hooks(value, fake)

    def _with_hooks(self, value: torch.Tensor, fake: Any) -> Any:
        """Register the gradient hooks of an autograd leaf on its fake tensor."""
        if not (value.requires_grad and value.is_leaf):
            return fake
        for hooks, register_hook in (
            (value._backward_hooks, fake.register_hook),
            (value._post_accumulate_grad_hooks, fake.register_post_accumulate_grad_hook),
        ):
            if hooks:
                self.defer(partial(self._register_hooks, register_hook, list(hooks.values())))
        return fake

    def _register_hooks(self, register_hook: Callable[[Any], Any], hooks: list[Any]) -> None:
        for hook in hooks:
            register_hook(self.copy(hook))

    def copy_module(self, value: nn.Module) -> Any:
        """Return the fake copy of a module."""
        if (original := original_module(value)) is not value:
            return self.copy(original)
        if isinstance(value, torch.jit.ScriptModule):
            reason = f"is TorchScript (a {type(value).__name__}), whose code and weights are closed"
            raise self.error(reason, "Count the Python module that it was made from.")
        cls = type(value)
        if cls not in self._classes:
            CLASS_ATTRIBUTES.snapshot(cls)
            self._classes[cls] = copy_class(self, cls)
        new: Any = object.__new__(self._classes[cls])
        self.register(value, new)
        self.defer(lambda: self._fill(value, new))
        return new

    def _fill(self, value: nn.Module, new: nn.Module) -> None:
        """Fill in the attributes of the copy of a module."""
        path = self.module_path
        module_dict = vars(value).copy()
        module_dict.pop("_compiled_call_impl", None)
        containers, user_attributes = _partition(tuple(module_dict))
        for name in containers:
            container = module_dict[name]
            module_dict[name] = container.copy() if container else type(container)()
        self._fill_tensors(module_dict)
        children = module_dict["_modules"]
        for key, child in children.items():
            self.module_path = f"{path}.{key}" if path else key
            children[key] = self.copy(child)
        self.module_path = path
        for name in _HOOKS:
            if hooks := module_dict.get(name):
                hooks.update(self.copy_attributes(hooks))
        for name in user_attributes:
            attribute = module_dict[name]
            if type(attribute) not in IMMUTABLE:
                module_dict[name] = self.copy(attribute)
        object.__setattr__(new, "__dict__", module_dict)

    def _fill_tensors(self, module_dict: dict[str, Any]) -> None:
        """Replace parameters and buffers by fake tensors, on the device they have in a call."""
        offloading = offloading_hooks(module_dict)
        device = execution_device(offloading) or CPU
        for name in ("_parameters", "_buffers"):
            tensors = module_dict[name]
            for key, tensor in tensors.items():
                if tensor is not None:
                    tensors[key] = self._fakify_weight(tensor, device)
        for hook in map(self.copy, offloading):
            self.defer(partial(disable_offload, hook))

    def _fakify_weight(self, tensor: torch.Tensor, device: torch.device) -> Any:
        fake = self.existing(tensor)
        return self._fakify(tensor, weight_device=device) if fake is None else fake


_RUN_ONCE = "Run it once on real inputs, which gives them one, or build it with the size it has."
_HOOKS = tuple(name for name in _MODULE_DEFAULTS if name.endswith("_hooks"))


def _add_attributes(fake: torch.Tensor, attributes: dict[str, Any]) -> None:
    """Add attributes to a fake tensor, without those that it has already."""
    fake_dict = vars(fake)
    fake_dict.update({name: value for name, value in attributes.items() if name not in fake_dict})


@cache
def _partition(names: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return the names of the containers of every ``nn.Module``, and of a module's other state."""
    containers = [name for name in names if isinstance(_MODULE_DEFAULTS.get(name), dict | set)]
    return containers, [name for name in names if name not in _MODULE_DEFAULTS]
