"""Peak memory by others' means: ``python -m benchmarks.memory_oracles``.

Two oracles run a model eagerly, in full depth, on fake or real tensors of the CPU: torch's
``MemTracker``, and a mode of ours that knows nothing of graphflops, with a weak reference on the
storage of every result. The command compares graphflops with both on the architectures of the
tests, two layers deep, and on models of torchvision, and writes
``benchmarks/results/memory_oracles.json``.
"""

from __future__ import annotations

import copy
import json
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import ref

import torch
from tabulate import tabulate
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

import graphflops as gf
from benchmarks.results import environment
from graphflops.analysis.memory import Memory
from graphflops.analysis.optimizer_memory import Implementation
from graphflops.capture.record.loss import loss_of
from graphflops.models import Options, resolve
from graphflops.models.optional_dependencies import repair_torchvision

RESULTS = Path(__file__).parent / "results" / "memory_oracles.json"
CATEGORIES = {
    "parameters": "Parameter",
    "buffers": "Buffer",
    "gradients": "Gradient",
    "optimizer": "Optstate",
    "inputs": "Other",
}
"""Categories of graphflops that MemTracker has too, by its names."""
Optimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
OPTIMIZERS: Mapping[str, Callable[[bool], Optimizer]] = {
    "sgd": lambda foreach: lambda p: torch.optim.SGD(p, lr=0.1, foreach=foreach),
    "momentum": lambda foreach: lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, foreach=foreach),
    "adam": lambda foreach: lambda p: torch.optim.Adam(p, foreach=foreach),
    "adamw": lambda foreach: lambda p: torch.optim.AdamW(p, foreach=foreach),
}


@dataclass(frozen=True, kw_only=True)
class Step:
    """What is run.

    Attributes:
        model: The model, on any device.
        inputs: Its keyword inputs.
        trained: True for a training step, False for a forward pass without gradients.
        optimizer: Name of the optimizer of the training step, if it has one.
        implementation: Implementation of its step.
        real: True if the oracles run on real tensors: transformers keeps a mask that hides nothing
            where tensors are fake, and drops it where it can read the values.
    """

    model: nn.Module
    inputs: Mapping[str, Any]
    trained: bool = False
    optimizer: str | None = None
    implementation: Implementation = "for-loop"
    real: bool = False

    def mode(self) -> AbstractContextManager[Any]:
        """Return the mode under which the oracles run."""
        return nullcontext() if self.real else FakeTensorMode(allow_non_fake_inputs=True)


def graphflops_memory(step: Step, *, reuse_layers: bool = True) -> Memory:
    """Memory as graphflops predicts it, without running the model: on the CPU, as the oracles."""
    model, inputs = copies(step, FakeTensorMode())
    if not step.trained:
        return gf.count(model, (), inputs, reuse_layers=reuse_layers).memory
    report = gf.count_training(
        model, (), inputs, optimizer=step.optimizer, reuse_layers=reuse_layers
    )
    memory = report.memory
    return memory.with_implementation(step.implementation) if step.implementation else memory


def mem_tracker(step: Step) -> dict[str, int]:
    """Bytes at the peak by category, and ``Total``, as torch's MemTracker has them.

    Of two steps: the optimizer has its state from the second one on.
    """
    mode = step.mode()
    model, inputs = copies(step, mode)
    with mode:
        optimizer = _optimizer(step, model)
        tracker = MemTracker()
        tensors = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, torch.Tensor)]
        tracker.track_external(model, *tensors, *([] if optimizer is None else [optimizer]))
        with tracker:
            for _ in range(1 if optimizer is None else 2):
                _run(step, model, inputs, optimizer)
                tracker.reset_mod_stats()
    (peak,) = tracker.get_tracker_snapshot("peak").values()
    return {str(getattr(kind, "value", kind)): nbytes for kind, nbytes in peak.items()}


def live_storages(step: Step) -> int:
    """Peak of the bytes of storages that weak references show to be alive."""
    mode, live = step.mode(), _LiveStorages()
    model, inputs = copies(step, mode)
    with mode:
        optimizer = _optimizer(step, model)
        for tensor in (*model.parameters(), *model.buffers(), *pytree.tree_leaves(inputs)):
            if isinstance(tensor, torch.Tensor):
                live.add(tensor)
        with live:
            for _ in range(1 if optimizer is None else 2):
                _run(step, model, inputs, optimizer)
    return live.peak


def live_storages_accumulating(model: nn.Module, inputs: dict[str, Any], passes: int) -> int:
    """Peak of the bytes of storages over passes that add up gradients, on real tensors."""
    live = _LiveStorages()
    for tensor in (*model.parameters(), *pytree.tree_leaves(inputs)):
        live.add(tensor)
    with live:
        for _ in range(passes):
            loss_of(model(**inputs), None)[0].backward()  # type: ignore[no-untyped-call]  # likewise
    return live.peak


def copies(step: Step, mode: AbstractContextManager[Any]) -> tuple[nn.Module, dict[str, Any]]:
    """Return copies of a model and its inputs on the CPU, made in a mode; integers are zero."""
    made: dict[int, torch.Tensor] = {}

    def copied(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            shape, strides = tensor.shape, tensor.stride()
            new = torch.empty_strided(shape, strides, dtype=tensor.dtype, device="cpu")
            if not tensor.is_floating_point():
                new.zero_()
            if isinstance(tensor, nn.Parameter):
                new = nn.Parameter(new, requires_grad=tensor.requires_grad)
            made[id(tensor)] = new
        return made[id(tensor)]

    model = copy.deepcopy(step.model)
    with mode:
        for module in model.modules():
            tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers, vars(module))
            for tensors in tables:
                found = {n: t for n, t in tensors.items() if isinstance(t, torch.Tensor)}
                tensors.update({name: copied(tensor) for name, tensor in found.items()})
        inputs = pytree.tree_map_only(torch.Tensor, copied, dict(step.inputs))
    return model, inputs


class _LiveStorages(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's gap
    """Mode that adds up the storages of results while they are alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # likewise
        self.current = self.peak = 0
        self._references: dict[int, Any] = {}

    def add(self, tensor: torch.Tensor) -> None:
        """Add the storage of a tensor until it is freed."""
        storage = tensor.untyped_storage()
        key, nbytes = storage._cdata, storage.nbytes()
        if key in self._references:
            return

        def free(_: Any) -> None:
            self.current -= nbytes
            del self._references[key]

        self._references[key] = ref(storage, free)
        self.current += nbytes
        self.peak = max(self.peak, self.current)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in pytree.tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.add(leaf)
        return out


def _run(
    step: Step, model: nn.Module, inputs: dict[str, Any], optimizer: torch.optim.Optimizer | None
) -> None:
    if not step.trained:
        with torch.no_grad():
            model(**inputs)
        return
    loss, _ = loss_of(model(**inputs), None)
    loss.backward()  # type: ignore[no-untyped-call]  # torch's gap
    if optimizer is not None:
        optimizer.step()
        del loss
        optimizer.zero_grad()


def _optimizer(step: Step, model: nn.Module) -> torch.optim.Optimizer | None:
    if step.optimizer is None:
        return None
    return OPTIMIZERS[step.optimizer](step.implementation == "foreach")(model.parameters())


TORCHVISION = (
    *("alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "maxvit_t"),
    *("mnasnet1_0", "mobilenet_v3_large", "resnet18", "resnet50", "shufflenet_v2_x1_0"),
    *("squeezenet1_1", "swin_v2_t", "vgg11", "vit_b_16", "wide_resnet50_2"),
)
REAL_LIMIT = 10**9
"""Most parameters of a model that the oracles run on real tensors."""


def compare(model: nn.Module, inputs: Mapping[str, Any], optimizer: str | None) -> dict[str, Any]:
    """Return the peak as predicted and by both oracles, of a training step with an optimizer.

    Without one, of a forward pass. A model that branches on values runs on real tensors too.
    """
    step = Step(model=model, inputs=inputs, trained=optimizer is not None, optimizer=optimizer)
    ours = graphflops_memory(step).peak
    row: dict[str, Any] = {"graphflops": ours, "tensors": "fake"}
    row |= {"MemTracker": mem_tracker(step)["Total"], "live storages": live_storages(step)}
    small = sum(p.numel() for p in model.parameters()) < REAL_LIMIT
    if ours != row["MemTracker"] and optimizer is None and small:
        step = replace(step, real=True)
        row |= {"tensors": "real", "MemTracker": mem_tracker(step)["Total"]}
        row |= {"live storages": live_storages(step)}
    return row


def main(names: Iterable[str] = ()) -> None:
    """Compare, print, and save."""
    warnings.simplefilter("ignore")
    repair_torchvision()  # transformers imports it
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from architectures import ARCHITECTURES, at_depth

    def build(name: str) -> tuple[nn.Module, dict[str, Any]]:
        if name in ARCHITECTURES:
            with at_depth(2):
                case = ARCHITECTURES[name]()
            return case.model, dict(case.inputs)
        workload = resolve(f"torchvision:{name}", Options(batch_size=2))
        return workload.model, dict(workload.kwargs)

    rows = []
    for name in names or (*ARCHITECTURES, *TORCHVISION):
        for optimizer in (None, "sgd", "adamw"):
            model, inputs = build(name)
            model.eval()  # dropout on the CPU is composed of other operators than on a GPU
            run = f"training, {optimizer}" if optimizer else "forward"
            row = {"model": name, "run": run}
            try:
                row |= compare(model, inputs, optimizer)
            except Exception as error:  # noqa: BLE001 - an oracle that fails is a row
                row["failed"] = f"{type(error).__name__}: {error}"[:200]
            rows.append(row)
            print(row, flush=True)
    print(tabulate(rows, headers="keys"))
    for run in dict.fromkeys(row["run"] for row in rows):
        ran = [row for row in rows if row["run"] == run and "MemTracker" in row]
        equal = sum(row["graphflops"] == row["MemTracker"] for row in ran)
        print(f"{run}: {equal} of {len(ran)} equal to MemTracker, {len(rows) // 3} tried")
    if not names:
        where = environment(("torch", "transformers"))
        RESULTS.write_text(json.dumps({"environment": where, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
