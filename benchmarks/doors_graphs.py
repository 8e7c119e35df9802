"""The doors: ways in which compilers hold a model, each as a function to its reports.

Every function takes a model with its inputs and returns one report for each graph there is.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.partitioners import default_partition
from torch._inductor import config as inductor_config
from torch.export import Dim, ExportedProgram, export
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.passes.split_module import split_module

import graphflops as gf
from benchmarks.doors_models import BATCH, Case
from graphflops.core.ir import Phase


class Door(NamedTuple):
    """A form in which a compiler holds a model.

    Attributes:
        reports: Returns the reports of its graphs.
        how: Code that makes the graph.
        phases: Phases that its graphs hold.
    """

    reports: Callable[[Case], list[gf.Report]]
    how: str
    phases: frozenset[Phase] = frozenset({Phase.FORWARD})


def _count(model: Any, *args: Any) -> list[gf.Report]:
    return [gf.count(model, args, on_unknown="ignore")]


def _module(case: Case) -> list[gf.Report]:
    return _count(case.model, *case.args)


def _program(case: Case) -> ExportedProgram:
    # Of its own for each door: unflatten removes dead code from the program it is given.
    return export(case.model, case.args)


def _strict(case: Case) -> list[gf.Report]:
    return _count(export(case.model, case.args, strict=True))


def _named_dims(case: Case) -> list[gf.Report]:
    batch = Dim("batch", min=2)
    program = export(case.model, case.args, dynamic_shapes=[{0: batch}] * len(case.args))
    (report,) = _count(program)
    (symbol,) = report.symbols  # torch keeps no names of dims
    return [report.subs(**{symbol: BATCH})]


def _file(case: Case) -> list[gf.Report]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"
        torch.export.save(_program(case), path)
        return _count(path)


def _make_fx(case: Case) -> list[gf.Report]:
    return _count(make_fx(case.model)(*case.args))


def _compile(case: Case, backend: Any, *, backward: bool = False) -> None:
    """Compile a model and run it once, as a whole: LSTMs too, which Dynamo skips by default."""
    torch._dynamo.reset()
    with torch._dynamo.config.patch(allow_rnn=True):
        run: Any = torch.compile(case.model, backend=backend, fullgraph=True)
        with contextlib.nullcontext() if backward else torch.no_grad():
            output = run(*case.args)
        if backward:
            output.sum().backward()
    torch._dynamo.reset()


def _dynamo(case: Case) -> list[gf.Report]:
    reports: list[gf.Report] = []

    def backend(graph: fx.GraphModule, inputs: list[Any]) -> Any:
        reports.extend(_count(graph, *inputs))
        return graph.forward

    _compile(case, backend)
    return reports


@lru_cache(maxsize=1)
def _aot(case: Case) -> dict[str, list[gf.Report]]:
    reports: dict[str, list[gf.Report]] = {"forward": [], "backward": [], "joint": []}

    def keep(name: str) -> Any:
        def compiler(graph: fx.GraphModule, _: Any) -> Any:
            reports[name].extend(_count(graph))
            return graph

        return compiler

    def partition(joint: fx.GraphModule, inputs: Any, **options: Any) -> Any:
        keep("joint")(joint, inputs)
        return default_partition(joint, inputs, **options)

    backend = aot_autograd(
        fw_compiler=keep("forward"), bw_compiler=keep("backward"), partition_fn=partition
    )
    _compile(case, backend, backward=True)
    return reports


class _Seen(Exception):  # noqa: N818 - ends a compilation; nothing is wrong
    """The graph is there, and code need not be made of it."""


def _inductor(case: Case) -> list[gf.Report]:
    reports: list[gf.Report] = []

    def keep(graph: fx.Graph) -> None:
        owner = graph.owning_module
        reports.extend(_count(owner if owner is not None else fx.GraphModule(nn.Module(), graph)))
        raise _Seen

    with (
        inductor_config.patch(post_grad_custom_post_pass=keep, force_disable_caches=True),
        contextlib.suppress(torch._dynamo.exc.BackendCompilerFailed),
    ):
        _compile(case, "inductor")
    return reports


def _quantized(case: Case) -> list[gf.Report]:
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    quantizer = X86InductorQuantizer()
    quantizer.set_global(get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(_program(case).module(), quantizer)
    prepared(*case.args)  # calibrates
    return _count(convert_pt2e(prepared), *case.args)


def _partitions(case: Case) -> list[gf.Report]:
    graph = _program(case).module()
    calls = [node for node in graph.graph.nodes if node.op == "call_function"]
    half = set(calls[len(calls) // 2 :])
    split = split_module(graph, case.model, lambda node: int(node in half))
    return _count(split, *case.args)


def _to_fx(case: Case) -> list[gf.Report]:
    return _count(_module(case)[0].graph.to_fx(case.model))


_BACKWARD = frozenset({Phase.BACKWARD})
DOORS: dict[str, Door] = {
    "exported program": Door(
        lambda case: _count(_program(case)), "torch.export.export(model, args)"
    ),
    "decomposed": Door(
        lambda case: _count(_program(case).run_decompositions()), "program.run_decompositions()"
    ),
    "strict": Door(_strict, "torch.export.export(model, args, strict=True)"),
    "named dims": Door(_named_dims, "torch.export.export(model, args, dynamic_shapes=...)"),
    "saved": Door(_file, "torch.export.save(program, path)"),
    "module()": Door(lambda case: _count(_program(case).module(), *case.args), "program.module()"),
    "unflatten": Door(
        lambda case: _count(torch.export.unflatten(_program(case)), *case.args),
        "torch.export.unflatten(program)",
    ),
    "symbolic_trace": Door(
        lambda case: _count(fx.symbolic_trace(case.model), *case.args), "fx.symbolic_trace(model)"
    ),
    "make_fx": Door(_make_fx, "make_fx(model)(*args)"),
    "Dynamo": Door(_dynamo, "torch.compile(model, backend=...)"),
    "AOT forward": Door(lambda case: _aot(case)["forward"], "aot_autograd(fw_compiler=...)"),
    "AOT backward": Door(
        lambda case: _aot(case)["backward"], "aot_autograd(bw_compiler=...)", _BACKWARD
    ),
    "AOT joint": Door(
        lambda case: _aot(case)["joint"],
        "aot_autograd(partition_fn=...)",
        frozenset({Phase.FORWARD, Phase.BACKWARD}),
    ),
    "Inductor": Door(_inductor, "inductor.config.post_grad_custom_post_pass"),
    "PT2E": Door(_quantized, "convert_pt2e(prepare_pt2e(program.module(), quantizer))"),
    "to_fx": Door(_to_fx, "report.graph.to_fx(model)"),
    "partitions": Door(_partitions, "split_module(program.module(), model, ...)"),
}
