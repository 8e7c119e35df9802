"""The operators. A count never runs them; it needs their schema and their shapes.

``torch.library.custom_op`` reads the schema off the signature, ``register_fake`` gives the
shapes of the result.
"""

from typing import Any

import torch


@torch.library.custom_op("example::selective_scan", mutates_args=())
def selective_scan(
    u: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor
) -> torch.Tensor:
    """Mamba's recurrence: h = exp(delta A) h + delta B u, y = C h.

    Args:
        u: (batch, D, L).
        delta: (batch, D, L).
        A: (D, N).
        B: (batch, N, L).
        C: (batch, N, L).
    """
    batch, width, length = u.shape
    state = u.new_zeros(batch, width, A.shape[1])
    outputs = []
    for step in range(length):
        d = delta[:, :, step, None]
        state = torch.exp(d * A) * state + d * B[:, None, :, step] * u[:, :, step, None]
        outputs.append((state * C[:, None, :, step]).sum(-1))
    return torch.stack(outputs, dim=-1)


@selective_scan.register_fake
def _(
    u: torch.Tensor, delta: torch.Tensor, A: torch.Tensor, B: torch.Tensor, C: torch.Tensor
) -> torch.Tensor:
    return torch.empty_like(u)


@torch.library.custom_op("example::scaled_relu", mutates_args=())
def scaled_relu(x: torch.Tensor, scale: float) -> torch.Tensor:
    """relu(x * scale) in one Triton kernel; needs a GPU to run, and none to be counted."""
    import triton
    import triton.language as tl

    @triton.jit  # type: ignore[untyped-decorator]  # Triton has no types
    def kernel(x_ptr: Any, out_ptr: Any, scale: float, n: int, block: tl.constexpr) -> None:
        offsets = tl.program_id(0) * block + tl.arange(0, block)
        inside = offsets < n
        values = tl.load(x_ptr + offsets, mask=inside)
        tl.store(out_ptr + offsets, tl.maximum(values * scale, 0.0), mask=inside)

    out = torch.empty_like(x)
    kernel[(triton.cdiv(x.numel(), 1024),)](x, out, scale, x.numel(), block=1024)
    return out


@scaled_relu.register_fake
def _(x: torch.Tensor, scale: float) -> torch.Tensor:
    return torch.empty_like(x)
