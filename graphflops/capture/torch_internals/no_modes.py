"""Real tensors while a model runs on fake ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

_PRE_DISPATCH = torch._C.DispatchKeySet(torch._C.DispatchKey.PreDispatch)


@contextlib.contextmanager
def no_modes() -> Iterator[None]:
    """Compute with real tensors, unseen by any mode.

    What ``_disable_current_modes`` does; but that takes modes off and puts them on again, after
    which torch looks all operators up anew. A fake tensor must not come in: it would be taken
    for one with memory.
    """
    with (
        torch._C.DisableTorchFunction(),
        torch._C._DisableTorchDispatch(),
        torch._C._ExcludeDispatchKeyGuard(_PRE_DISPATCH),
    ):
        yield
