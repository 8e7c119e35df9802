"""Time of operator calls on a device: the roofline, and what its kernels reach of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import sympy

from graphflops.analysis.devices import Device
from graphflops.analysis.efficiency import Efficiency
from graphflops.analysis.tiling import product_of, time_of_tiles
from graphflops.core.cost import Dim, OpCost
from graphflops.core.ir import OpRecord, TensorMeta, dtype_bits
from graphflops.core.sums import sum_by_key

Seconds: TypeAlias = float | sympy.Expr
"""Time: a number, or an expression if sizes are symbolic."""
_TF32 = "tf32"


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTime:
    """Seconds of one or more operator calls on a device, and their cost. A value: ``+`` sums.

    Attributes:
        bound: Seconds at the peak rates: of each call, the longer of arithmetic and traffic.
        expected: Seconds at the rates that kernels reach, with the start of each kernel.
        compute_bound: Part of ``expected`` of the calls whose arithmetic takes longer.
        flops: Floating-point operations.
        nbytes: Bytes read and written.
        kernels: Number of calls that compute or move anything.
    """

    bound: Seconds = 0.0
    expected: Seconds = 0.0
    compute_bound: Seconds = 0.0
    flops: Dim = 0
    nbytes: Dim = 0
    kernels: Dim = 0

    @property
    def memory_bound(self) -> Seconds:
        """Part of ``expected`` of the calls whose traffic takes longer."""
        return self.expected - self.compute_bound

    @property
    def intensity(self) -> Any:
        """Arithmetic intensity: FLOPs per byte; 0 without traffic."""
        return self.flops / self.nbytes if self.nbytes else 0

    def __add__(self, other: CallTime) -> CallTime:
        return CallTime(
            bound=self.bound + other.bound,
            expected=self.expected + other.expected,
            compute_bound=self.compute_bound + other.compute_bound,
            flops=self.flops + other.flops,
            nbytes=self.nbytes + other.nbytes,
            kernels=self.kernels + other.kernels,
        )

    def __mul__(self, times: Dim) -> CallTime:
        return CallTime(**{f.name: getattr(self, f.name) * times for f in fields(self)})


class Roofline:
    """Time of calls on a device.

    A call takes as long as its arithmetic at the device's rate, or as its traffic at the
    bandwidth of the memory, whichever is longer (S. Williams, A. Waterman, D. Patterson,
    "Roofline", CACM 52, 2009). Contractions run on the matrix units where these compute in the
    dtype, all else on the ordinary ones.

    Args:
        device: The device.
        efficiency: What kernels reach of the peak rates, for ``expected``.
        dtype: Dtype of contractions and of all floating tensors, in place of the dtypes that were
            counted; ``"tf32"`` is that of contractions in float32 alone.
        precision: Dtype of most contractions, whose rate is the peak.

    Attributes:
        rates: FLOP/s of the calls so far, by dtype and whether it is that of the matrix units.
    """

    def __init__(
        self,
        device: Device,
        efficiency: Efficiency,
        dtype: str | None = None,
        precision: str = "float32",
    ) -> None:
        self.device, self.efficiency, self.dtype = device, efficiency, dtype
        self.precision = precision
        self.rates: dict[tuple[str, bool], float] = {}

    def time(self, record: OpRecord) -> CallTime:
        """Return the time of a call as a kernel of its own; without a price it takes none.

        Raises:
            ModelSpecError: The device has no rate for a contraction in its dtype.
        """
        cost = record.cost
        if cost is None or not (cost.flops or cost.bytes_read or cost.bytes_written):
            return CallTime()
        return self.time_of_kernel((record,), (0,))

    def time_of_kernel(self, records: Sequence[OpRecord], on_chip: Sequence[Dim]) -> CallTime:
        """Return the time of calls that run as one kernel.

        Args:
            records: The calls, with costs.
            on_chip: Bytes that each of them reads and writes which do not reach the memory.

        Raises:
            ModelSpecError: The device has no rate for a contraction in its dtype.
        """
        work = [self._work(record, n) for record, n in zip(records, on_chip, strict=True)]
        arithmetic, reached, nbytes = (
            sum(column[1:], column[0]) for column in zip(*work, strict=True)
        )
        traffic = nbytes / self.device.bandwidth
        moved = traffic / self.efficiency.memory
        expected = _longer(reached, moved) + self.device.launch
        return CallTime(
            bound=_longer(arithmetic, traffic),
            expected=expected,
            compute_bound=expected * _is_longer(reached, moved),
            flops=sum((r.cost.flops for r in records if r.cost is not None), start=0),
            nbytes=nbytes,
            kernels=1,
        )

    def _work(self, record: OpRecord, on_chip: Dim) -> tuple[Seconds, Seconds, Any]:
        """Return seconds of arithmetic at the peak rate and as reached, and bytes in memory."""
        call, cost = record.call, record.cost or OpCost()
        is_contraction = bool(cost.macs)
        nbytes = (cost.bytes_read + cost.bytes_written - on_chip) * self._scale(call.dtype)
        arithmetic = cost.flops / self._rate(call.dtype, matrix=is_contraction)
        reached = arithmetic / self.efficiency.compute
        if is_contraction and self.device.multiprocessors and self.efficiency.waves:
            product = product_of(call, cost.macs)
            tiles = time_of_tiles(product, self.device.multiprocessors) if product else 1.0
            reached *= 1 + self.efficiency.waves * (tiles - 1)
        return arithmetic, reached, nbytes

    @property
    def peak(self) -> float:
        """FLOP/s that contractions reach at best in the precision.

        Raises:
            ModelSpecError: The device has no rate for them.
        """
        return self.device.rate(self.precision, matrix=True)

    def _rate(self, dtype: str, *, matrix: bool) -> float:
        key = self._replaced(dtype), matrix
        if key not in self.rates:
            self.rates[key] = self._uncached_rate(*key)
        return self.rates[key]

    def _uncached_rate(self, replaced: str, matrix: bool) -> float:
        if matrix:
            return self.device.rate(replaced, matrix=True)
        # Comparisons, indices: no rate is published, and the bound has to hold.
        rates = {**self.device.vector, **self.device.matrix}
        return self.device.vector.get(replaced) or max(rates.values())

    def _replaced(self, dtype: str) -> str:
        """Return the dtype in place of one that was counted."""
        if self.dtype is None or not _is_floating(dtype):
            return dtype
        if self.dtype == _TF32:
            return _TF32 if dtype == "float32" else dtype
        return self.dtype

    def _scale(self, dtype: str) -> float:
        replaced = self._replaced(dtype)
        if replaced in {dtype, _TF32}:
            return 1
        return dtype_bits(replaced) / dtype_bits(dtype)


def _is_floating(dtype: str) -> bool:
    return TensorMeta((), dtype=dtype).is_floating


def _longer(one: Seconds, other: Seconds) -> Seconds:
    if isinstance(one, float) and isinstance(other, float):
        return max(one, other)
    return sympy.Max(one, other)


def _is_longer(one: Seconds, other: Seconds) -> Any:
    """Return 1 if the first time is the longer one, else 0; of expressions, as one."""
    if isinstance(one, float) and isinstance(other, float):
        return int(one >= other)
    return sympy.Piecewise((1, sympy.Ge(one, other)), (0, True))


def times_by_module_and_operator(
    records: Iterable[OpRecord], roofline: Roofline
) -> dict[tuple[str, str], CallTime]:
    """Return the time of calls by the path of the module that makes them, and operator.

    A repeated layer is summed once.
    """
    return sum_by_key(
        records,
        lambda record: (((record.call.module_path, record.call.op), roofline.time(record)),),
        lambda key, relocation: (relocation.map_path(key[0]), key[1]),
    )
