"""Repeated layers: traced once, and reused where an instance provably does the same work.

``likeness``, ``reads``, ``slots``, ``caches`` and ``rule`` say when that is so and know nothing
of tapes; ``taping`` records layers on the tape of a forward pass and repeats them, ``autograd``
does with the backward pass.
"""

from graphflops.capture.layer_reuse.rule import LayerReplayer

__all__ = ["LayerReplayer"]
