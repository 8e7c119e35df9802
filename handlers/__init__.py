"""The handlers of the ``exact`` convention: one file per family of operators.

Importing this package fills ``graphflops.registry.EXACT``. It ships as
``graphflops.handlers``, whatever the folder is called in a checkout.
"""

if __name__ != "graphflops.handlers":
    msg = "handlers is part of graphflops: import graphflops.handlers"
    raise ImportError(msg)

from . import (
    activation,
    activation_backward,
    attention,
    attention_backward,
    conv,
    distance,
    embedding,
    fft,
    foreach,
    free,
    indexing_backward,
    linalg,
    loss,
    loss_backward,
    matmul,
    norm,
    norm_backward,
    optimizer,
    pointwise,
    pooling,
    prims,
    quantized,
    random,
    reduction,
    resample,
    resample_backward,
    rnn,
    rnn_backward,
    sparse,
    special,
    spectral,
    transformer,
)

__all__ = [
    "activation",
    "activation_backward",
    "attention",
    "attention_backward",
    "conv",
    "distance",
    "embedding",
    "fft",
    "foreach",
    "free",
    "indexing_backward",
    "linalg",
    "loss",
    "loss_backward",
    "matmul",
    "norm",
    "norm_backward",
    "optimizer",
    "pointwise",
    "pooling",
    "prims",
    "quantized",
    "random",
    "reduction",
    "resample",
    "resample_backward",
    "rnn",
    "rnn_backward",
    "sparse",
    "special",
    "spectral",
    "transformer",
]
