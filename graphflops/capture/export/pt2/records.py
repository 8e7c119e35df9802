"""Fields that are read of a saved program, each with its rule.

The names are those of ``torch._export.serde.schema``. Fields without a rule are not read: the
pytrees of inputs and outputs, guards (they are Python), verifiers, and provenance of nodes. A
kind of argument that is not listed is refused.
"""

from __future__ import annotations

import re
from typing import Any

from graphflops.capture.export.pt2.errors import UnreadableError, quote
from graphflops.capture.export.pt2.operators import check_operator
from graphflops.capture.export.pt2.sizes import check_expression
from graphflops.capture.export.pt2.value_rules import (
    MAX_ARGUMENTS,
    MAX_DEPTH,
    MAX_NAME,
    Rule,
    boolean,
    dict_of,
    enum_member,
    identifier,
    ignored,
    integer,
    list_of,
    number,
    optional,
    optional_identifier,
    qualified_name,
    record,
    tensor,
    text,
    union,
)
from graphflops.capture.torch_internals.serialized_programs import schema

_SYMBOL = re.compile(r"[a-z]{1,8}\d{1,5}")


def _operator(value: Any) -> str:
    return check_operator(text(value, MAX_NAME))


def _expression(value: Any) -> str:
    return check_expression(text(value))


def _symbol(value: Any) -> str:
    # Torch counts up to the number of a symbol.
    if isinstance(value, str) and _SYMBOL.fullmatch(value):
        return value
    raise UnreadableError(f"has a size called {quote(value)}")


def _metadata(value: Any) -> dict[str, str]:
    """Return stack trace, module stack and torch function of a node; the rest is not read."""
    raw = dict_of(text, lambda item: item)(value)
    metadata = {key: text(raw[key]) for key in ("stack_trace", "nn_module_stack") if key in raw}
    stack = metadata.get("nn_module_stack", "")
    if any(entry.count(".") > MAX_DEPTH for entry in stack.split(",")):
        raise UnreadableError(f"has modules within modules, more than {MAX_DEPTH} deep")
    if "torch_fn" in raw and text(raw["torch_fn"]).count(";") == 1:
        metadata["torch_fn"] = raw["torch_fn"]
    return metadata


_DTYPE, _LAYOUT = enum_member(schema.ScalarType), enum_member(schema.Layout)
_DEVICE = record("Device", {"type": identifier, "index": optional(integer)})
_HINT = union("SymExprHint", {"as_int": integer, "as_bool": boolean, "as_float": number})
_SYM_EXPR = record("SymExpr", {"expr_str": _expression, "hint": optional(_HINT)})
_SYM_INT = union("SymInt", {"as_expr": _SYM_EXPR, "as_int": integer})
_SYM_FLOAT = union("SymFloat", {"as_expr": _SYM_EXPR, "as_float": number})
_SYM_BOOL = union("SymBool", {"as_expr": _SYM_EXPR, "as_bool": boolean})
_TENSOR_META = tensor(
    record(
        "TensorMeta",
        {
            "dtype": _DTYPE,
            "sizes": list_of(_SYM_INT),
            "requires_grad": boolean,
            "device": _DEVICE,
            "strides": list_of(_SYM_INT),
            "storage_offset": _SYM_INT,
            "layout": _LAYOUT,
        },
    )
)

_TENSOR = record("TensorArgument", {"name": identifier})
_TOKEN = record("TokenArgument", {"name": identifier})
_OBJECT = record("CustomObjArgument", {"name": identifier, "class_fqn": text})
_COMPLEX = record("ComplexValue", {"real": number, "imag": number})
_INT_NAME = union("SymIntArgument", {"as_name": identifier, "as_int": integer})
_FLOAT_NAME = union("SymFloatArgument", {"as_name": identifier, "as_float": number})
_BOOL_NAME = union("SymBoolArgument", {"as_name": identifier, "as_bool": boolean})
_OPTIONAL_TENSOR = union("OptionalTensorArgument", {"as_tensor": _TENSOR, "as_none": boolean})


def _graph_argument(value: Any) -> Any:
    return record("GraphArgument", {"name": identifier, "graph": _graph})(value)


def _argument(value: Any) -> Any:
    return _ARGUMENT(value)


_ARGUMENT: Rule = union(
    "Argument",
    {
        "as_none": boolean,
        "as_tensor": _TENSOR,
        "as_tensors": list_of(_TENSOR),
        "as_optional_tensor": _OPTIONAL_TENSOR,
        "as_optional_tensors": list_of(_OPTIONAL_TENSOR),
        "as_nested_tensors": list_of(list_of(_TENSOR)),
        "as_int": integer,
        "as_ints": list_of(integer),
        "as_int_lists": list_of(list_of(integer)),
        "as_float": number,
        "as_floats": list_of(number),
        "as_float_lists": list_of(list_of(number)),
        "as_complex": _COMPLEX,
        "as_bool": boolean,
        "as_bools": list_of(boolean),
        "as_string": text,
        "as_strings": list_of(text),
        "as_string_to_argument": dict_of(text, _argument),
        "as_sym_int": _INT_NAME,
        "as_sym_ints": list_of(_INT_NAME),
        "as_sym_float": _FLOAT_NAME,
        "as_sym_floats": list_of(_FLOAT_NAME),
        "as_sym_bool": _BOOL_NAME,
        "as_sym_bools": list_of(_BOOL_NAME),
        "as_scalar_type": _DTYPE,
        "as_memory_format": enum_member(schema.MemoryFormat),
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
        "inputs": list_of(
            record(
                "NamedArgument",
                {
                    "name": optional_identifier,
                    "arg": _ARGUMENT,
                    "kind": optional(enum_member(schema.ArgumentKind)),
                },
            ),
            MAX_ARGUMENTS,
        ),
        "outputs": list_of(_ARGUMENT),
        "metadata": _metadata,
        "is_hop_single_tensor_return": optional(boolean),
        "name": optional(identifier),
    },
)
_graph = record(
    "Graph",
    {
        "inputs": list_of(_ARGUMENT),
        "outputs": list_of(_ARGUMENT),
        "nodes": list_of(_NODE),
        "tensor_values": dict_of(identifier, _TENSOR_META),
        "sym_int_values": dict_of(identifier, _SYM_INT),
        "sym_bool_values": dict_of(identifier, _SYM_BOOL),
        "sym_float_values": dict_of(identifier, _SYM_FLOAT),
        "custom_obj_values": dict_of(identifier, _OBJECT),
        "is_single_tensor_return": boolean,
    },
)

_CONSTANT = union(
    "ConstantValue",
    {
        "as_none": boolean,
        "as_int": integer,
        "as_float": number,
        "as_string": text,
        "as_bool": boolean,
    },
)
_INPUT = union(
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
            # A count does not depend on the specs of outputs.
            {"input_specs": list_of(_INPUT), "output_specs": ignored(list)},
        ),
        "module_call_graph": ignored(list),
    },
)
_RANGE = record("RangeConstraint", {"min_val": optional(integer), "max_val": optional(integer)})
_VERSION = record("SchemaVersion", {"major": integer, "minor": integer})

PROGRAM = record(
    "ExportedProgram",
    {
        "graph_module": _GRAPH_MODULE,
        "opset_version": ignored(dict),
        "range_constraints": dict_of(_symbol, _RANGE),
        "schema_version": _VERSION,
    },
)
"""Rule for ``models/*.json``."""

WEIGHTS = record(
    "PayloadConfig",
    {
        "config": dict_of(
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
"""Rule for ``data/weights/*_weights_config.json``."""
