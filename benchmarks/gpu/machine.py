"""What the machine is and what it reaches on the roofline's two sides."""

from __future__ import annotations

import datetime as dt
import statistics
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu.device import Device

REPETITIONS = 10
LAUNCHES = 1000
GIBI = 1 << 30
_PACKAGES = ("torch", "torchvision", "transformers", "timm", "numpy", "triton")


def settle() -> None:
    """Set what the rows' precision means: no TF32, cuDNN's heuristics instead of trials."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False


def fill_environment(record: dict[str, Any], device: Device) -> None:
    """Put what the machine is into a record, what later work needs most first."""
    first = torch.empty(1, device=device.device)  # makes the context
    device.synchronize()
    record["context"] = device.memory()
    del first
    record["left_allocated"] = left_allocated(device)
    record["date"] = dt.datetime.now(tz=dt.UTC).date().isoformat()
    record["versions"] = {name: _version(name) for name in _PACKAGES}
    record["settings"] = {
        "matmul_tf32": torch.backends.cuda.matmul.allow_tf32,
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "reduced_precision_bf16": (
            torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction
        ),
        "default_blas": str(torch.backends.cuda.preferred_blas_library()),
    }
    record["device"] = device.properties()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def left_allocated(device: Device) -> dict[str, dict[str, int]]:
    """Memory after an operation whose tensors are all gone, one after another in one process."""
    device.clean()
    left = {"nothing": device.memory()}
    for name, operation in _OPERATIONS.items():
        for dtype in (torch.float32, torch.bfloat16):
            operation(device.device, dtype)
            device.synchronize()
            left[f"{name} {dtype}".replace("torch.", "")] = device.memory()
    device.clean()
    left["cleaned"] = device.memory()
    return left


def _matmul(device: torch.device, dtype: torch.dtype) -> None:
    matrix = torch.randn(1024, 1024, device=device, dtype=dtype)
    torch.mm(matrix, matrix)


def _linear(device: torch.device, dtype: torch.dtype) -> None:
    matrix = torch.randn(1024, 1024, device=device, dtype=dtype)
    F.linear(matrix, matrix, matrix[0])


def _backward(device: torch.device, dtype: torch.dtype) -> None:
    layer = torch.nn.Linear(1024, 1024, device=device, dtype=dtype)
    matrix = torch.randn(1024, 1024, device=device, dtype=dtype)
    layer(matrix).sum().backward()


def _convolution(device: torch.device, dtype: torch.dtype) -> None:
    layer = torch.nn.Conv2d(64, 64, 3, padding=1, device=device, dtype=dtype)
    layer(torch.randn(8, 64, 56, 56, device=device, dtype=dtype)).sum().backward()


def _attention(device: torch.device, dtype: torch.dtype) -> None:
    query = torch.randn(2, 8, 128, 64, device=device, dtype=dtype, requires_grad=True)
    mixed = F.scaled_dot_product_attention(query, query, query, dropout_p=0.1)
    mixed.sum().backward()  # type: ignore[no-untyped-call]


_OPERATIONS: dict[str, Callable[[torch.device, torch.dtype], None]] = {
    "matmul": _matmul,
    "linear": _linear,
    "backward": _backward,
    "convolution": _convolution,
    "attention": _attention,
}


def roofline(device: Device, *, tiny: bool) -> Iterator[dict[str, Any]]:
    """One row per number; each is made once the one before has been used.

    Yields:
        The rows.
    """
    for name, run, work, unit in _roofline(device.device, tiny=tiny):
        row: dict[str, Any] = {"kind": "machine", "key": f"machine/{name}", "name": name}
        try:
            milliseconds = _milliseconds(device, run)
            row |= {
                "value": round(work / milliseconds * 1e3, 3),
                "unit": unit,
                "milliseconds": round(milliseconds, 5),
            }
        except (RuntimeError, ValueError) as error:
            row["error"] = f"{type(error).__name__}: {error}"[:300]
        finally:
            settle()
        device.clean()
        yield row


def _milliseconds(device: Device, run: Callable[[], object]) -> float:
    """Median of a run between two marks, after three that are not counted."""
    for _ in range(3):
        run()
    times = []
    for _ in range(REPETITIONS):
        first = device.mark()
        run()
        last = device.mark()
        device.synchronize()
        times.append(device.elapsed(first, last))
    return max(statistics.median(times), 1e-6)


_Number = tuple[str, Callable[[], object], float, str]


def _roofline(device: torch.device, *, tiny: bool) -> Iterator[_Number]:
    """Name, run, work of a run in units per second, and that unit.

    Yields:
        Each with tensors of its own.
    """
    kinds = {
        "bf16": torch.bfloat16,
        "fp16": torch.float16,
        "fp32": torch.float32,
        "tf32": torch.float32,
    }
    for size in (64, 128) if tiny else (4096, 8192):
        for kind, dtype in kinds.items():
            torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
            left = torch.randn(size, size, device=device, dtype=dtype)
            yield f"matmul {kind} {size}", _product(left), 2 * size**3 / 1e12, "TFLOP/s"
            del left
    yield from _bandwidths(device, tiny=tiny)
    one = torch.zeros(1, device=device)

    def launches() -> None:
        for _ in range(LAUNCHES):
            one.add_(1)

    yield "launches", launches, LAUNCHES / 1e6, "million/s"
    batch, length = (1, 64) if tiny else (8, 4096)
    query = torch.randn(batch, 16, length, 128, device=device, dtype=torch.bfloat16)

    def attention() -> Tensor:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return F.scaled_dot_product_attention(query, query, query)

    work = 4 * batch * 16 * length**2 * 128 / 1e12
    yield f"flash attention bf16 {length}", attention, work, "TFLOP/s"


def _product(left: Tensor) -> Callable[[], object]:
    return lambda: torch.mm(left, left)


def _bandwidths(device: torch.device, *, tiny: bool) -> Iterator[_Number]:
    count = (1 << 16) if tiny else GIBI // 4
    source = torch.ones(count, device=device)
    target = torch.empty_like(source)
    yield "copy", lambda: target.copy_(source), 8 * count / 1e9, "GB/s"
    yield "add", lambda: torch.add(source, source, out=target), 8 * count / 1e9, "GB/s"
    other = torch.ones_like(source)
    yield "add of two", lambda: torch.add(source, other, out=target), 12 * count / 1e9, "GB/s"
    yield "fill", lambda: target.fill_(1.0), 4 * count / 1e9, "GB/s"
