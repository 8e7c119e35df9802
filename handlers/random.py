"""Random numbers: what is done with a uniform or normal sample, which itself is integer work."""

from __future__ import annotations

from graphflops.pricing.memory_traffic import write_only
from graphflops.pricing.registry import free, register

from .pointwise import per_element

free(
    *("aten::rand", "aten::rand_like", "aten::randn", "aten::randn_like", "aten::randint"),
    *("aten::randint_like", "aten::randperm", "aten::random", "aten::multinomial"),
    "aten::uniform",
    reason="random numbers: the generator's integer work is not floating-point arithmetic",
    traffic=write_only,
)

_BERNOULLI = per_element("A uniform sample compared with a probability", 1)
register("aten::bernoulli")(_BERNOULLI)
register("aten::bernoulli.p", "aten::bernoulli_.float", traffic=write_only)(_BERNOULLI)
register("aten::normal", traffic=write_only)(per_element("mean + std z", 2))
register("aten::log_normal", traffic=write_only)(per_element("exp(mean + std z)", 3, 1))
register("aten::exponential", traffic=write_only)(
    per_element("-log(u) / lambda, tested near 1", 3, 1)
)
register("aten::cauchy", traffic=write_only)(
    per_element("median + sigma tan(pi (u - 1 / 2))", 5, 1)
)
register("aten::geometric", traffic=write_only)(
    per_element("floor(log1p(-u) / log1p(-p)) + 1", 5, 1)
)
