"""Random numbers: what is done with a uniform or normal sample, which itself is integer work."""

from __future__ import annotations

from graphflops.registry import free, register
from graphflops.traffic import created

from .pointwise import per_element

free(
    *("aten::rand", "aten::rand_like", "aten::randn", "aten::randn_like", "aten::randint"),
    *("aten::randint_like", "aten::randperm", "aten::random", "aten::multinomial"),
    "aten::uniform",
    reason="random numbers: the generator's integer work is not floating-point arithmetic",
    traffic=created,
)

_BERNOULLI = per_element("A uniform sample compared with a probability", 1)
register("aten::bernoulli")(_BERNOULLI)
register("aten::bernoulli.p", "aten::bernoulli_.float", traffic=created)(_BERNOULLI)
register("aten::normal", traffic=created)(per_element("mean + std z", 2))
register("aten::log_normal", traffic=created)(per_element("exp(mean + std z)", 3, 1))
register("aten::exponential", traffic=created)(per_element("-log(u) / lambda, tested near 1", 3, 1))
register("aten::cauchy", traffic=created)(per_element("median + sigma tan(pi (u - 1 / 2))", 5, 1))
register("aten::geometric", traffic=created)(per_element("floor(log1p(-u) / log1p(-p)) + 1", 5, 1))
