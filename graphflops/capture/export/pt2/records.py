"""Every field that is read of a saved program, with its rule.

The names are those of ``torch._export.serde.schema``. What has no rule here is not read: the
pytrees of inputs and outputs, guards (they are Python), verifiers, and notes of where a node
came from. A kind of argument that is not listed is refused.
"""

from __future__ import annotations

import re
from typing import Any

from graphflops.capture.export.pt2.errors import UnreadableError, shown
from graphflops.capture.export.pt2.operators import known_operator
from graphflops.capture.export.pt2.sizes import checked_expression
from graphflops.capture.export.pt2.value_rules import (
    MAX_ARGUMENTS,
    MAX_DEPTH,
    MAX_NAME,
    Rule,
    boolean,
    identifier,
    integer,
    left_out,
    many,
    mapping,
    member,
    name_or_none,
    number,
    one_of,
    optional,
    qualified_name,
    record,
    tensor,
    text,
)
from graphflops.capture.torch_internals.serialized_programs import schema

_SYMBOL = re.compile(r"[a-z]{1,8}\d{1,5}")


def _operator(value: Any) -> str:
    return known_operator(text(value, MAX_NAME))


def _expression(value: Any) -> str:
    return checked_expression(text(value))


def _symbol(value: Any) -> str:
    # Torch counts up to the number of a symbol.
    if isinstance(value, str) and _SYMBOL.fullmatch(value):
        return value
    raise UnreadableError(f"has a size called {shown(value)}")


def _metadata(value: Any) -> dict[str, str]:
    """Where a node stands in the code and among the modules; all else is not read."""
    found = mapping(text, lambda item: item)(value)
    kept = {key: text(found[key]) for key in ("stack_trace", "nn_module_stack") if key in found}
    if any(part.count(".") > MAX_DEPTH for part in kept.get("nn_module_stack", "").split(",")):
        raise UnreadableError(f"has modules within modules, more than {MAX_DEPTH} deep")
    if "torch_fn" in found and text(found["torch_fn"]).count(";") == 1:
        kept["torch_fn"] = found["torch_fn"]
    return kept


_DTYPE, _LAYOUT = member(schema.ScalarType), member(schema.Layout)
_DEVICE = record("Device", {"type": identifier, "index": optional(integer)})
_HINT = one_of("SymExprHint", {"as_int": integer, "as_bool": boolean, "as_float": number})
_SYM_EXPR = record("SymExpr", {"expr_str": _expression, "hint": optional(_HINT)})
_SYM_INT = one_of("SymInt", {"as_expr": _SYM_EXPR, "as_int": integer})
_SYM_FLOAT = one_of("SymFloat", {"as_expr": _SYM_EXPR, "as_float": number})
_SYM_BOOL = one_of("SymBool", {"as_expr": _SYM_EXPR, "as_bool": boolean})
_TENSOR_META = tensor(
    record(
        "TensorMeta",
        {
            "dtype": _DTYPE,
            "sizes": many(_SYM_INT),
            "requires_grad": boolean,
            "device": _DEVICE,
            "strides": many(_SYM_INT),
            "storage_offset": _SYM_INT,
            "layout": _LAYOUT,
        },
    )
)

_TENSOR = record("TensorArgument", {"name": identifier})
_TOKEN = record("TokenArgument", {"name": identifier})
_OBJECT = record("CustomObjArgument", {"name": identifier, "class_fqn": text})
_COMPLEX = record("ComplexValue", {"real": number, "imag": number})
_INT_NAME = one_of("SymIntArgument", {"as_name": identifier, "as_int": integer})
_FLOAT_NAME = one_of("SymFloatArgument", {"as_name": identifier, "as_float": number})
_BOOL_NAME = one_of("SymBoolArgument", {"as_name": identifier, "as_bool": boolean})
_OPTIONAL_TENSOR = one_of("OptionalTensorArgument", {"as_tensor": _TENSOR, "as_none": boolean})


def _graph_argument(value: Any) -> Any:
    return record("GraphArgument", {"name": identifier, "graph": _graph})(value)


def _argument(value: Any) -> Any:
    return _ARGUMENT(value)


_ARGUMENT: Rule = one_of(
    "Argument",
    {
        "as_none": boolean,
        "as_tensor": _TENSOR,
        "as_tensors": many(_TENSOR),
        "as_optional_tensor": _OPTIONAL_TENSOR,
        "as_optional_tensors": many(_OPTIONAL_TENSOR),
        "as_nested_tensors": many(many(_TENSOR)),
        "as_int": integer,
        "as_ints": many(integer),
        "as_int_lists": many(many(integer)),
        "as_float": number,
        "as_floats": many(number),
        "as_float_lists": many(many(number)),
        "as_complex": _COMPLEX,
        "as_bool": boolean,
        "as_bools": many(boolean),
        "as_string": text,
        "as_strings": many(text),
        "as_string_to_argument": mapping(text, _argument),
        "as_sym_int": _INT_NAME,
        "as_sym_ints": many(_INT_NAME),
        "as_sym_float": _FLOAT_NAME,
        "as_sym_floats": many(_FLOAT_NAME),
        "as_sym_bool": _BOOL_NAME,
        "as_sym_bools": many(_BOOL_NAME),
        "as_scalar_type": _DTYPE,
        "as_memory_format": member(schema.MemoryFormat),
        "as_layout": _LAYOUT,
        "as_device": _DEVICE,
        "as_graph": _graph_argument,
        "as_custom_obj": _OBJECT,
        "as_operator": _operator,
    },
)
_NODE = record(
    "Node",
    {
        "target": _operator,
        "inputs": many(
            record(
                "NamedArgument",
                {
                    "name": name_or_none,
                    "arg": _ARGUMENT,
                    "kind": optional(member(schema.ArgumentKind)),
                },
            ),
            MAX_ARGUMENTS,
        ),
        "outputs": many(_ARGUMENT),
        "metadata": _metadata,
        "is_hop_single_tensor_return": optional(boolean),
        "name": optional(identifier),
    },
)
_graph = record(
    "Graph",
    {
        "inputs": many(_ARGUMENT),
        "outputs": many(_ARGUMENT),
        "nodes": many(_NODE),
        "tensor_values": mapping(identifier, _TENSOR_META),
        "sym_int_values": mapping(identifier, _SYM_INT),
        "sym_bool_values": mapping(identifier, _SYM_BOOL),
        "sym_float_values": mapping(identifier, _SYM_FLOAT),
        "custom_obj_values": mapping(identifier, _OBJECT),
        "is_single_tensor_return": boolean,
    },
)

_CONSTANT = one_of(
    "ConstantValue",
    {
        "as_none": boolean,
        "as_int": integer,
        "as_float": number,
        "as_string": text,
        "as_bool": boolean,
    },
)
_INPUT = one_of(
    "InputSpec",
    {
        "user_input": record("UserInputSpec", {"arg": _ARGUMENT}),
        "parameter": record(
            "InputToParameterSpec", {"arg": _TENSOR, "parameter_name": qualified_name}
        ),
        "buffer": record(
            "InputToBufferSpec",
            {"arg": _TENSOR, "buffer_name": qualified_name, "persistent": boolean},
        ),
        "tensor_constant": record(
            "InputToTensorConstantSpec", {"arg": _TENSOR, "tensor_constant_name": qualified_name}
        ),
        "custom_obj": record(
            "InputToCustomObjSpec", {"arg": _OBJECT, "custom_obj_name": qualified_name}
        ),
        "token": record("InputTokenSpec", {"arg": _TOKEN}),
        "constant_input": record(
            "InputToConstantInputSpec", {"name": identifier, "value": _CONSTANT}
        ),
    },
)
_GRAPH_MODULE = record(
    "GraphModule",
    {
        "graph": _graph,
        "signature": record(
            "GraphSignature",
            # What becomes of the outputs is of no consequence for a count.
            {"input_specs": many(_INPUT), "output_specs": left_out(list)},
        ),
        "module_call_graph": left_out(list),
    },
)
_RANGE = record("RangeConstraint", {"min_val": optional(integer), "max_val": optional(integer)})
_VERSION = record("SchemaVersion", {"major": integer, "minor": integer})

PROGRAM = record(
    "ExportedProgram",
    {
        "graph_module": _GRAPH_MODULE,
        "opset_version": left_out(dict),
        "range_constraints": mapping(_symbol, _RANGE),
        "schema_version": _VERSION,
    },
)
"""The rule for ``models/*.json``."""

WEIGHTS = record(
    "PayloadConfig",
    {
        "config": mapping(
            qualified_name,
            record(
                "PayloadMeta",
                {
                    "path_name": text,
                    "is_param": boolean,
                    "use_pickle": boolean,
                    "tensor_meta": optional(_TENSOR_META),
                },
            ),
        )
    },
)
"""The rule for ``data/weights/*_weights_config.json``."""
