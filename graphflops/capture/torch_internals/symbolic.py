"""Symbolic sizes: symbols, their ranges, and the specs of dynamic shapes."""

from __future__ import annotations

from typing import Any

from torch import _check as assume_condition
from torch.export.dynamic_shapes import _check_dynamic_shapes as check_dynamic_shapes
from torch.export.dynamic_shapes import _DerivedDim as DerivedDim
from torch.export.dynamic_shapes import _DimHint as DimHint
from torch.export.dynamic_shapes import _DimHintType as DimHintType
from torch.export.dynamic_shapes import _StaticDim as StaticDim
from torch.export.dynamic_shapes import _tree_map_with_path as tree_map_with_path
from torch.fx.experimental import _config as symbolic_options
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.fx.proxy import GraphAppendingTracer
from torch.utils._sympy import functions
from torch.utils._sympy.interp import sympy_interp
from torch.utils._sympy.numbers import int_oo
from torch.utils._sympy.reference import PythonReferenceAnalysis
from torch.utils._sympy.symbol import SymT, symbol_is_type
from torch.utils._sympy.value_ranges import ValueRanges

from graphflops.runtime.deferred_modules import defer_module, load_module

_VALIDATOR = "torch.fx.experimental.validator"


class ShapeEnvWithoutFrames(ShapeEnv):
    """Shape environment that does not look for the line of code behind each of its symbols.

    To tell code of torch from a user's, torch's own imports the compilers. It also asks whether
    translations are validated: a function of a module that imports much of Dynamo, and that is
    needed only where they are.
    """

    def __init__(self, **options: Any) -> None:
        defer_module(_VALIDATOR, translation_validation_enabled=_is_validation_enabled)
        super().__init__(**options)

    def _get_user_frame(self) -> None:
        return None


def _is_validation_enabled() -> bool:
    return bool(symbolic_options.translation_validation) and bool(
        load_module(_VALIDATOR).translation_validation_enabled()
    )


def constant_source(name: str) -> Any:
    """Return a source that is only a name, as symbols need one."""
    from torch._dynamo.source import ConstantSource

    return ConstantSource(name)


__all__ = [
    "DerivedDim",
    "DimHint",
    "DimHintType",
    "GraphAppendingTracer",
    "PythonReferenceAnalysis",
    "ShapeEnvWithoutFrames",
    "StaticDim",
    "SymT",
    "ValueRanges",
    "assume_condition",
    "check_dynamic_shapes",
    "constant_source",
    "functions",
    "int_oo",
    "symbol_is_type",
    "sympy_interp",
    "tree_map_with_path",
]

PIECES = {
    "assume_condition": "Let symbols fulfil a condition from now on; raise if they cannot.",
    "SymT": "Enumeration of the kinds of symbols that torch makes.",
    "symbol_is_type": "Return True if a symbol is of one of some kinds.",
    "int_oo": "Infinity as an integer: the upper bound of an unbounded size.",
    "ValueRanges": "Class of the range of a symbol's values.",
    "functions": "Module of torch's sympy functions, e.g. ``FloorDiv``.",
    "constant_source": "Return a source that is only a name, as symbols need one.",
    "ShapeEnvWithoutFrames": "Shape environment that makes symbols without an import of Dynamo.",
    "DerivedDim": "Class of a dynamic dimension that is a function of another.",
    "DimHint": "Class of ``Dim.AUTO``, ``Dim.DYNAMIC`` and ``Dim.STATIC``.",
    "DimHintType": "Enumeration of the kinds of hints.",
    "StaticDim": "Class of a dimension that is a number.",
    "GraphAppendingTracer": "Class of the tracer whose proxies add nodes to a graph.",
    "PythonReferenceAnalysis": "Class of torch's sympy functions as Python's own operators.",
    "sympy_interp": "Evaluate a sympy expression with the functions of such a class.",
    "check_dynamic_shapes": "Raise if the specs of dynamic shapes do not fit the inputs.",
    "tree_map_with_path": "Map a function over inputs and their specs, with key paths.",
}
"""What each name is, as the test of it says when torch has changed it."""
