"""Real tensors while a model runs on fake ones."""

from __future__ import annotations

import torch

_PRE_DISPATCH = torch._C.DispatchKeySet(torch._C.DispatchKey.PreDispatch)


class no_modes:  # noqa: N801 - a context manager, in lower case as those of torch
    """Context manager: compute with real tensors, unseen by any mode.

    What ``_disable_current_modes`` does; but that takes modes off and puts them on again, after
    which torch looks all operators up anew. A fake tensor must not come in: it would be taken
    for one with memory.
    """

    def __enter__(self) -> None:
        """Take all modes off."""
        self._guards = (
            torch._C.DisableTorchFunction(),
            torch._C._DisableTorchDispatch(),
            torch._C._ExcludeDispatchKeyGuard(_PRE_DISPATCH),
        )
        for guard in self._guards:
            guard.__enter__()

    def __exit__(self, *_: object) -> None:
        """Put them on again."""
        for guard in reversed(self._guards):
            guard.__exit__(None, None, None)
