"""Captures of saved programs: the graph with shapes, and the parameters."""

from __future__ import annotations

from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

from torch import fx
from torch.export.graph_signature import ExportGraphSignature

from graphflops.capture.diagnose import first_line
from graphflops.capture.export.program import capture_signed_graph
from graphflops.capture.export.pt2.archive import Archive, open_archive
from graphflops.capture.export.pt2.errors import UnreadableError, escape_controls, quote
from graphflops.capture.export.pt2.records import PROGRAM, WEIGHTS
from graphflops.capture.fake.metadata import dtype_name
from graphflops.capture.record.module_hierarchy import modules_in_stacks, parameter_of
from graphflops.capture.torch_internals.serialized_programs import schema, serialize
from graphflops.capture.torch_internals.symbolic import ValueRanges, int_oo
from graphflops.core.ir import Capture, Parameter, TensorMeta
from graphflops.errors import GraphFlopsError, ModelSpecError
from graphflops.runtime.interruption import raise_interruption
from graphflops.runtime.patches import QUIET


def capture_file(path: Path) -> Capture:
    """Capture an exported program saved as ``.pt2``, from its graph and metadata alone.

    Raises:
        ModelSpecError: There is no such file, it is another kind of file, it is damaged, or a
            part of it cannot be read.
    """
    try:
        with open_archive(path) as archive:
            return _capture(archive)
    except UnreadableError as error:
        raise ModelSpecError(f"{path} {error}") from error
    except GraphFlopsError:
        raise
    except Exception as error:
        raise_interruption(error)
        # Torch wraps the error at a node in a page of text.
        reason = first_line(error.__cause__ or error)
        msg = (
            f"{path} is damaged: its graph does not fit together ({escape_controls(reason)}). "
            "Save the program again with torch.export.save."
        )
        raise ModelSpecError(msg) from error


def _capture(archive: Archive) -> Capture:
    program = PROGRAM(archive.program())
    version, readable = program.schema_version, schema.SCHEMA_VERSION[0]
    if version.major != readable:
        raise UnreadableError(
            f"is of version {version.major} of the format of programs, and this version of "
            f"PyTorch reads version {readable}",
            "Save the program again with this version of PyTorch, or count it under the other.",
        )
    with QUIET.holding():
        saved = _deserialize(program)
    parameters, notes = _parameters(archive, program.graph_module)
    if archive.others:
        notes = (*notes, f"not counted: {', '.join(archive.others)}, which the file also holds")
    modules = modules_in_stacks(saved.graph_module, parameters)
    return capture_signed_graph(saved, modules, "pt2 file", notes)


class _Saved(NamedTuple):
    """Deserialized program: a ``graphflops.capture.export.program.SignedGraph``."""

    graph_module: fx.GraphModule
    graph_signature: ExportGraphSignature


def _deserialize(program: schema.ExportedProgram) -> _Saved:
    """Return the graph that torch builds from checked records, with fake tensors."""
    ranges = {
        symbol: ValueRanges(
            -int_oo if bound.min_val is None else bound.min_val,
            int_oo if bound.max_val is None else bound.max_val,
        )
        for symbol, bound in program.range_constraints.items()
    }
    deserialize = serialize.GraphModuleDeserializer.deserialize
    # Torch keeps the running deserializer in a global, and refuses a second one meanwhile: this
    # copy of the function has its own globals, so that threads are independent. It never needs
    # to open a pickle.
    function_globals = {
        **deserialize.__globals__,
        "_CURRENT_DESERIALIZER": None,
        "deserialize_torch_artifact": _refuse_pickle,
    }
    rebuild = FunctionType(deserialize.__code__, function_globals, argdefs=deserialize.__defaults__)
    result = rebuild(
        serialize.GraphModuleDeserializer(), program.graph_module, {}, {}, None, ranges
    )
    return _Saved(result.graph_module, result.signature)


def _refuse_pickle(serialized: dict[str, Any]) -> dict[str, Any]:
    if serialized:
        raise UnreadableError("has a pickle where its graph belongs")
    return serialized


def _parameters(
    archive: Archive, module: schema.GraphModule
) -> tuple[dict[str, Parameter], tuple[str, ...]]:
    """Return the parameters of a program by name, and notes on them.

    Tied weights are two names of one file of the archive.
    """
    specs = [spec.parameter for spec in module.signature.input_specs if spec.type == "parameter"]
    metas = {spec.parameter_name: module.graph.tensor_values[spec.arg.name] for spec in specs}
    config = archive.weights()
    weights = {} if config is None else WEIGHTS(config).config
    files: dict[str, str] = {}
    for name in metas if config is not None else ():
        weight = weights.get(name)
        if weight is None or weight.tensor_meta is None:
            raise UnreadableError(f"is damaged: its weights lack {quote(name)}")
        metas[name] = weight.tensor_meta
        # Weights without data, on meta or fake, are all saved to one empty file.
        if archive.stored_bytes(weight.path_name):
            files[name] = weight.path_name
    numbers = {file: number for number, file in enumerate(dict.fromkeys(files.values()))}
    parameters = {
        name: _parameter(name, meta, numbers[files[name]] if name in files else -1 - position)
        for position, (name, meta) in enumerate(metas.items())
    }
    return parameters, () if metas.keys() == files.keys() else (_TIES_UNKNOWN,)


_TIES_UNKNOWN = "tied weights count under each name: the file does not say which are tied"


def _parameter(name: str, meta: schema.TensorMeta, identity: int) -> Parameter:
    tensor = TensorMeta(
        shape=_concrete_sizes(meta.sizes),
        dtype=dtype_name(serialize.deserialize_scalar_type(meta.dtype)),
        strides=_concrete_sizes(meta.strides) if meta.layout == schema.Layout.Strided else None,
    )
    leaf = name.rpartition(".")[2]
    return parameter_of(leaf, tensor, trainable=meta.requires_grad, identity=identity)


def _concrete_sizes(sizes: list[schema.SymInt]) -> tuple[int, ...]:
    if any(size.type != "as_int" for size in sizes):
        raise UnreadableError("has weights of a symbolic size")
    return tuple(size.as_int for size in sizes)
