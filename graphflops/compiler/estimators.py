"""Estimators of the cost of a node, as AOTAutograd's partitioner and Inductor ask for it."""

from __future__ import annotations

from importlib.metadata import version

from torch import fx

from graphflops.capture.torch_internals.compiler import CustomRuntimeEstimator
from graphflops.compiler.operator_price import price_node
from graphflops.compiler.roofline import Roofline
from graphflops.core.ir import OpRecord
from graphflops.pricing.memory_traffic import read_all_write_all


class FlopsEstimator(CustomRuntimeEstimator):
    """FLOPs of a node, for ``activation_memory_budget_runtime_estimator``.

    The partitioner saves what costs most to compute again. Its own estimator, ``"flops"``, weighs
    what has no formula in ``torch.utils.flop_counter`` as 1: normalizations, softmax, reductions,
    and the fused attention of the CPU. An operator without a price here weighs as many FLOPs as it
    moves bytes.
    """

    def __call__(self, node: fx.Node) -> float:
        """Return the FLOPs of a node, symbolic sizes at torch's hints."""
        return sum(map(_flops, price_node(node)), start=0.0)

    def uuid(self) -> str:
        """Return a key for Inductor's caches: partitions depend on the prices."""
        return f"graphflops {version('graphflops')}, FLOPs"


def _flops(record: OpRecord) -> float:
    if record.cost is None:
        return float(sum(read_all_write_all(record.call)))
    return float(record.cost.flops)


class TimeEstimator(CustomRuntimeEstimator):
    """Time of a node in milliseconds, for ``activation_memory_budget_runtime_estimator``.

    Each operator moves its bytes from and to memory; Inductor fuses most that are memory-bound, so
    that they take less.

    Args:
        roofline: Rates of the accelerator.
    """

    def __init__(self, roofline: Roofline) -> None:
        self._roofline = roofline

    def __call__(self, node: fx.Node) -> float:
        """Return the time of a node; 0 for a view."""
        return sum(map(self._roofline.milliseconds, price_node(node)), start=0.0)

    def uuid(self) -> str:
        """Return a key for Inductor's caches: partitions depend on these rates."""
        return f"graphflops {version('graphflops')}, {self._roofline}"


class OverlapEstimator:
    """Time of a node in milliseconds, for Inductor's overlap scheduler.

    Args:
        roofline: Rates of the accelerator.
    """

    def __init__(self, roofline: Roofline) -> None:
        self._estimate = TimeEstimator(roofline)

    def __call__(self, node: fx.Node, override_size: int | None = None) -> float | None:
        """Return the time of a node; ``None`` for collectives and views, which torch estimates.

        Args:
            node: The node.
            override_size: Bytes of a collective of which torch asks for another size.
        """
        namespace = getattr(node.target, "namespace", "")
        if override_size is not None or "c10d" in namespace:
            return None
        return self._estimate(node) or None
