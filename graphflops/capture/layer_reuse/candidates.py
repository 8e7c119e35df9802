"""Candidates for layer reuse: modules with equal structure, modules called again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from graphflops.capture.layer_reuse.module_call import LayerTemplate
from graphflops.capture.layer_reuse.module_dict import module_dict
from graphflops.capture.named_modules import Modules
from graphflops.capture.torch_internals.dispatch import DisableTorchFunction


@dataclass(slots=True)
class CandidateGroup:
    """Modules of equal structure, or one module that is called again and again.

    Attributes:
        members: The modules.
        uncalled: Those that have not been called yet, by the id of their attribute dictionary.
        siblings: Largest number of them that are children of one parent.
        templates: Recorded layers among them.
        failures: Number of recordings that yielded no template.
    """

    members: list[nn.Module]
    uncalled: set[int]
    siblings: int = 1
    templates: list[LayerTemplate] = field(default_factory=list)
    failures: int = 0

    @property
    def is_scattered(self) -> bool:
        """True if no two of several members are children of one parent."""
        return self.siblings == 1 < len(self.members)


def find_candidates(modules: Modules) -> dict[int, CandidateGroup]:
    """Return groups of candidates, by the id of the attribute dictionary of each member.

    Args:
        modules: Modules of the model; empty if no layer is to be reused.
    """
    candidates: dict[int, CandidateGroup] = {}
    module_numbers: dict[int, int] = {}
    structure_numbers: dict[Any, int] = {}
    with DisableTorchFunction():
        for _, module in modules[:1]:
            _structure_number(module, module_numbers, structure_numbers)
    members: dict[int, dict[nn.Module, None]] = {}
    parents: dict[int, set[int]] = {}
    siblings: dict[int, int] = {}
    for _, parent in modules:
        if not parent._modules or _is_container(parent):
            continue
        for number, children in _grouped(parent, module_numbers).items():
            members.setdefault(number, {}).update(dict.fromkeys(children))
            parents.setdefault(number, set()).add(module_numbers[id(parent)])
            siblings[number] = max(siblings.get(number, 0), len(children))
    for number, found in members.items():
        # Single children of equal parents repeat with these.
        if siblings[number] > 1 or len(parents[number]) > 1:
            uncalled = {id(module_dict(module)) for module in found}
            group = CandidateGroup([*found], uncalled, siblings[number])
            candidates |= dict.fromkeys(uncalled, group)
    return candidates


def _grouped(parent: nn.Module, module_numbers: dict[int, int]) -> dict[int, list[nn.Module]]:
    """Return the children of a module that may repeat, by the number of their structure."""
    groups: dict[int, list[nn.Module]] = {}
    for child in dict.fromkeys(_called_children(parent)):
        if may_repeat(child):
            groups.setdefault(module_numbers[id(child)], []).append(child)
    return groups


def may_repeat(module: nn.Module) -> bool:
    """Return True for a module that may call operators enough: single layers of torch do not."""
    return bool(module._modules) or not type(module).__module__.startswith("torch.nn")


def _called_children(parent: nn.Module) -> Iterator[nn.Module]:
    """Yield the children of a module; those of a container, a list of lists also, in its place."""
    for child in parent._modules.values():
        if child is None:
            continue
        if _is_container(child):
            yield from _called_children(child)
        else:
            yield child


def _is_container(module: nn.Module) -> bool:
    """Return True for a module that cannot be called, such as a ``ModuleList``."""
    return type(module).forward is nn.Module.forward


def _structure_number(
    module: nn.Module, module_numbers: dict[int, int], structure_numbers: dict[Any, int]
) -> int:
    """Return the number of a module's structure: equal for modules with equal subtrees."""
    number = module_numbers.get(id(module))
    if number is None:
        parameters, children = module._parameters, module._modules
        structure = (
            type(module),
            *((*parameters, *map(_parameter_key, parameters.values())) if parameters else ()),
            *children,
            *[
                child is not None and _structure_number(child, module_numbers, structure_numbers)
                for child in children.values()
            ],
        )
        number = module_numbers[id(module)] = structure_numbers.setdefault(
            structure, len(structure_numbers)
        )
    return number


def _parameter_key(tensor: torch.Tensor | None) -> Any:
    if tensor is None:
        return None
    # A lazy parameter has no shape yet: it equals no other.
    return id(tensor) if is_lazy(tensor) else (tensor.dtype, tensor.shape)
