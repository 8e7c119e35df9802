"""The prices. Only shapes are seen here; torch is not needed."""

from graphflops import OpCost, TensorMeta, register


@register("example::selective_scan")
def selective_scan(u: TensorMeta, A: TensorMeta) -> OpCost:
    """Selective scan over u (B, D, L) with a state of N: FLOPs = 9 * B * D * L * N.

    Per position, channel and state: delta * A, exp, * h, delta * B, * u, +, * C, and 2 that
    authors count for the output's sum and the skip. Source: the formula quoted in
    state-spaces/mamba issue 110.
    """
    positions = u.numel * A.shape[1]
    return OpCost(flops=9 * positions, transcendentals=positions)


@register("example::scaled_relu")
def scaled_relu(*, out: TensorMeta) -> OpCost:
    """relu(x * scale): a multiplication and a comparison per element."""
    return OpCost(flops=2 * out.numel)
