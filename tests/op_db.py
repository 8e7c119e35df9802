"""PyTorch's own operator samples, counted and held against the prims oracle."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import oracle
import torch
from calls import Call
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.opinfo.core import OpInfo
from torch.utils import _pytree as pytree

import graphflops as gf
from graphflops.capture.record.loss import loss_of


def name_of(info: OpInfo) -> str:
    """An OpInfo's name with its variant."""
    return f"{info.name}.{info.variant_test_name}" if info.variant_test_name else info.name


OPINFOS: dict[str, OpInfo] = {name_of(info): info for info in op_db}

_ALPHA = "a product scaled by 1 is scaled in the reference, in no kernel"
_DOT = "a contraction counts 2 K per output; the reference multiplies K and adds K - 1"
_SCAN = "a scan costs n - m; the reference sums every prefix afresh"
_WINDOWS = "the reference pads uneven windows to the widest"
_PART = "a part of it costs what it costs alone: log_softmax tests the maxima of its rows"
_SECOND = "the composite kernel that runs is not the reference's"
DIFFERENT: dict[str, str] = {
    **dict.fromkeys(("addmm.decomposed", "nn.functional.linear"), _ALPHA),
    **dict.fromkeys(("addmv", "nn.functional.multi_head_attention_forward"), _ALPHA),
    **dict.fromkeys(("dot", "vdot", "mv", "inner", "matmul", "__rmatmul__"), _DOT),
    **dict.fromkeys(("tensordot", "linalg.vecdot"), _DOT),
    **dict.fromkeys(("cumsum", "cumprod", "masked.cumsum", "masked.cumprod"), _SCAN),
    **dict.fromkeys(("cumulative_trapezoid", "linalg.vander"), _SCAN),
    **{
        f"nn.functional.{name}": _PART
        for name in (
            *("cross_entropy", "linear_cross_entropy", "linear_cross_entropy.chunked"),
            "linear_cross_entropy.chunked_none",
        )
    },
    **dict.fromkeys(("__rdiv__", "isclose", "nn.functional.pdist"), _SECOND),
    **{
        f"nn.functional.adaptive_{kind}_pool{rank}d": _WINDOWS
        for kind, rank in (("avg", 1), ("avg", 2), ("max", 1), ("max", 2), ("max", 3))
    },
    "nn.functional.interpolate.area": _WINDOWS,
    "nn.functional.nll_loss": "the reference multiplies by weights of 1 where none are given",
    "lerp": "a scalar weight is examined on the host, not as a tensor",
}
"""OpInfos whose price differs from the reference on purpose, with the reason."""
if oracle.REWRITTEN:
    _BATCH_NORMS = ("native_batch_norm", "_native_batch_norm_legit", "nn.functional.batch_norm")
    DIFFERENT |= dict.fromkeys(_BATCH_NORMS, "later references take rsqrt for 1 / sqrt")
    DIFFERENT["masked.norm"] = "later references take the magnitude for a norm of one element"

_DATA = "its shapes or its course depend on values"
_SPARSE = "sparse tensors have no shape rules on meta"
_NO_META = "PyTorch has no shape rule for it on meta"
_CUDA = "compiles a kernel on CUDA only"
NOT_TRACEABLE: dict[str, str] = {
    **dict.fromkeys(("allclose", "equal", "cov", "linalg.lstsq"), _DATA),
    "linalg.lstsq.grad_oriented": _DATA,
    "nn.functional.gaussian_nll_loss": _DATA,
    **dict.fromkeys(("sparse.sampled_addmm", "sparse.mm.reduce", "to_sparse"), _SPARSE),
    **dict.fromkeys(("geqrf", "histogram", "histogramdd"), _NO_META),
    "tensor_split": "its sections must be values on the CPU",
    **{name: _CUDA for name in OPINFOS if name.startswith("jiterator")},
}
"""OpInfos that PyTorch itself cannot trace without data, with the reason."""
COUNTABLE = [name for name in OPINFOS if name not in NOT_TRACEABLE]


class Sample(NamedTuple):
    """A call of an operator: a function of its tensors alone, and those on meta."""

    function: Callable[..., Any]
    tensors: tuple[torch.Tensor, ...]


@dataclass
class Outcome:
    """What became of the samples of an OpInfo."""

    samples: int = 0
    failed: list[str] = field(default_factory=list)
    unknown: set[str] = field(default_factory=set)
    different: list[str] = field(default_factory=list)
    stopped: set[str] = field(default_factory=set)
    equal: set[str] = field(default_factory=set)


def dtype_of(info: OpInfo) -> torch.dtype | None:
    """float32 if the operator takes it, else a complex dtype, else nothing."""
    return next((d for d in (torch.float32, torch.complex64) if d in info.dtypes), None)


def samples(info: OpInfo, most: int) -> Iterator[Sample]:
    """The first samples of an OpInfo, tensors replaced by meta tensors of the same layout."""
    dtype = dtype_of(info)
    if dtype is None:
        return
    found: Any = info.sample_inputs("cpu", dtype)  # type: ignore[no-untyped-call]  # torch's gap
    for sample in itertools.islice(found, most):
        leaves, spec = pytree.tree_flatten((sample.input, sample.args, sample.kwargs))
        tensors = tuple(t.detach().to("meta") for t in leaves if isinstance(t, torch.Tensor))
        yield Sample(functools.partial(_call, info.op, leaves, spec), tensors)


class Trained(torch.nn.Module):
    """A sample as a model: its floating-point tensors are parameters, all others buffers."""

    def __init__(self, sample: Sample) -> None:
        super().__init__()
        self.function = sample.function
        self.names = [f"t{i}" for i in range(len(sample.tensors))]
        for name, tensor in zip(self.names, sample.tensors, strict=True):
            if tensor.is_floating_point() or tensor.is_complex():
                self.register_parameter(name, torch.nn.Parameter(tensor.clone()))
            else:
                self.register_buffer(name, tensor)

    def forward(self) -> Any:
        return self.function(*(getattr(self, name) for name in self.names))


def differentiable(sample: Sample) -> bool:
    """Whether PyTorch itself runs a step of a sample on meta tensors."""
    try:
        value, _ = loss_of(Trained(sample)(), None)
        value.backward()  # type: ignore[no-untyped-call]  # torch's gap
    except Exception:  # noqa: BLE001 - whatever it fails with
        return False
    return True


def check(info: OpInfo, most: int) -> Outcome:
    """Count samples of an OpInfo and compare each price with the prims'."""
    outcome = Outcome()
    for sample in samples(info, most):
        outcome.samples += 1
        try:
            report = gf.count(Call(sample.function), sample.tensors, on_unknown="ignore")
        except gf.CaptureError as error:
            outcome.failed.append(str(error))
            continue
        outcome.unknown |= set(report.unsupported_ops())
        try:
            expected = oracle.count(sample.function, *sample.tensors)
        except Exception as error:  # noqa: BLE001 - where the reference fails there is no oracle
            outcome.stopped.add(f"reference fails: {type(error).__name__}")
            continue
        found = (report.flops, report.transcendentals)
        if expected.stopped:
            outcome.stopped |= expected.stopped
        elif found == (expected.flops, expected.transcendentals):
            outcome.equal |= set(report.by_operator())
        else:
            shapes = [tuple(t.shape) for t in sample.tensors]
            outcome.different.append(f"{shapes}: {found}, reference {expected}")
    return outcome


def _call(op: Callable[..., Any], leaves: list[Any], spec: Any, *tensors: torch.Tensor) -> Any:
    given = iter(tensors)
    filled = [
        next(given)
        if isinstance(leaf, torch.Tensor)
        # A device named in the arguments would put the result elsewhere than its inputs.
        else torch.device("meta")
        if isinstance(leaf, torch.device)
        else leaf
        for leaf in leaves
    ]
    first, args, kwargs = pytree.tree_unflatten(filled, spec)
    return op(first, *args, **{k: "meta" if k == "device" else v for k, v in kwargs.items()})
