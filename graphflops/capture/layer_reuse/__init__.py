"""Layer reuse: a repeated layer is recorded once and replayed for equivalent instances.

In: module calls during a capture. Out: the calls of the template on the tape again, relocated.
May import ``record``, ``fake``, ``torch_internals`` and what is below them.

``fingerprint``, ``outside_state``, ``attribute_log``, ``layer_index``, ``kv_caches`` and
``replayer`` decide if two module calls are equivalent and know nothing of tapes. ``forward_replay``
records layers on the tape of a forward pass and replays them; ``training_replay`` adds the backward
pass.
"""

from graphflops.capture.layer_reuse.replayer import LayerReplayer

__all__ = ["LayerReplayer"]
