"""Handlers against the operators' own schemas."""

import importlib
import inspect

import pytest
import torch
import torch._inductor.inductor_prims  # registers its operators
import torch.ao.quantization.fx._decomposed  # registers its operators
import torch.nn.attention.varlen
import torch.nn.modules.linear_cross_entropy  # registers its operators
import transformers.integrations.moe  # noqa: F401 - registers its grouped matmul

from graphflops import conventions
from graphflops.core.ir import OpCall
from graphflops.pricing.registry import Registration

ENTRIES = list(conventions.exact())
ABSENT = {
    "aten::cholesky": "removed after torch 2.13",
    "aten::linalg_matrix_sqrth": "new after torch 2.13",
    "aten::linalg_polar": "new after torch 2.13",
}
"""Operators that some of the tested versions lack, with the reason."""


def _schemas(op: str) -> list[torch.FunctionSchema]:
    name, _, overload = op.partition(".")
    found = torch._C._jit_get_schemas_for_operator(name)
    # Scatter and fill families are registered by the name of their functional form, which
    # for a few exists in place only.
    found = found or torch._C._jit_get_schemas_for_operator(f"{name}_")
    return [s for s in found if not overload or s.overload_name == overload.replace("default", "")]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.op)
def test_the_operator_exists_and_has_every_name_the_handler_asks_for(entry: Registration) -> None:
    asked = set(entry.parameters)
    if entry.op.startswith("higher_order::"):
        operator = getattr(torch.ops.higher_order, entry.op.partition("::")[2])
        assert asked <= set(inspect.signature(type(operator).__call__).parameters)
        return
    if entry.op.startswith("graphflops::"):
        # Work of an operator that is priced apart takes that operator's arguments.
        overload = entry.op.partition(".")[2]
        schemas = [*_schemas(f"aten::{overload}"), *_schemas(f"torch_attn::{overload}")]
        assert not overload or any(asked <= {a.name for a in s.arguments} for s in schemas)
        return
    schemas = _schemas(entry.op)
    if not schemas and entry.op in ABSENT:
        pytest.skip(f"{entry.op} is absent: {ABSENT[entry.op]}")
    assert schemas, f"PyTorch has no operator {entry.op}"
    fitting = [s for s in schemas if asked <= {argument.name for argument in s.arguments}]
    assert fitting, f"{entry.op} has no overload with {sorted(asked)}"


def _is_dispatched(schema: torch.FunctionSchema) -> bool:
    """Whether it is an operator; TorchScript has some of its own on numbers, by the same names."""
    name = f"{schema.name}.{schema.overload_name}" if schema.overload_name else schema.name
    return torch._C._dispatch_has_kernel(name)


@pytest.mark.parametrize("convention", conventions.names())
def test_every_variant_of_an_operator_has_the_names_its_handler_asks_for(convention: str) -> None:
    # In place, into ``out=``, of other overloads: whatever is looked up must be bound.
    prices = conventions.get(convention)
    unbound: dict[str, set[str]] = {}
    for schema in torch._C._jit_get_all_schemas():
        overload = schema.overload_name or "default"
        entry = prices.lookup(OpCall(op=schema.name, overload=overload))
        if entry is None or not _is_dispatched(schema):
            continue
        if lacking := set(entry.parameters) - {argument.name for argument in schema.arguments}:
            unbound[f"{schema.name}.{overload}"] = lacking
    assert not unbound


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.op)
def test_a_handler_says_its_formula_and_a_free_operator_its_reason(entry: Registration) -> None:
    if entry.handler is None:
        assert entry.reason
    else:
        assert (entry.handler.__doc__ or "").strip()


def test_handlers_refuse_to_be_imported_under_another_name() -> None:
    with pytest.raises(ImportError, match=r"graphflops\.handlers"):
        importlib.import_module("handlers")
