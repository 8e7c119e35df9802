"""The handlers of the ``exact`` convention: one file per family of operators.

Importing this package fills ``graphflops.registry.EXACT``. It ships as
``graphflops.handlers``, whatever the folder is called in a checkout.
"""

if __name__ != "graphflops.handlers":
    msg = "handlers is part of graphflops: import graphflops.handlers"
    raise ImportError(msg)

from . import (
    activation,
    attention,
    conv,
    distance,
    embedding,
    fft,
    foreach,
    free,
    linalg,
    loss,
    matmul,
    norm,
    pointwise,
    pooling,
    prims,
    quantized,
    reduction,
    resample,
    rnn,
    special,
    spectral,
    transformer,
)

__all__ = [
    "activation",
    "attention",
    "conv",
    "distance",
    "embedding",
    "fft",
    "foreach",
    "free",
    "linalg",
    "loss",
    "matmul",
    "norm",
    "pointwise",
    "pooling",
    "prims",
    "quantized",
    "reduction",
    "resample",
    "rnn",
    "special",
    "spectral",
    "transformer",
]
