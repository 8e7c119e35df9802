"""Peak memory and time of PyTorch models as a GPU gives them: an oracle for predictions.

``python -m benchmarks.gpu.measure --output DIR --minutes 7`` on a machine with one CUDA GPU,
torch, transformers, torchvision and timm; nothing else of this project is imported, and nothing
is downloaded: every model is built from a configuration in ``cases.py`` with random weights.
``--dry-run`` takes the same path with tiny models on the CPU.

``DIR/measured.jsonl`` has one JSON object per line; its ``kind`` says what it is:

- ``environment``: the card, the versions, the settings, the bytes that the CUDA context takes
  beside the allocator, and those that stay allocated after a lone matrix product, a linear
  layer, a backward pass (cuBLAS's workspaces, one per thread that calls it), a convolution and
  an attention.
- ``machine``: one number of a roofline (TFLOP/s, GB/s, microseconds per launch).
- ``measurement``: one model in one mode, precision and batch.
- ``operators``: device time and calls by ATen operator over ``steps`` steady steps.

``DIR/history.json.gz`` holds, by key of a row, the allocator's events in one steady step:
``{"live": [[bytes, block], ...], "reserved": bytes, "events": [[action, bytes, block, stream]]}``
where ``live`` lists what was allocated before the step and blocks are addresses renumbered in
the order of their first appearance.

What a measurement means:

- ``memory`` has the caching allocator's numbers, in bytes. ``baseline`` is taken before the
  model is built, with the cache emptied and cuBLAS's workspaces freed, so that every row is
  like the first one of a fresh process; ``model`` after it is built and the cache emptied
  again, ``inputs`` after those are made too. ``first`` is the first step and ``steady`` a later
  one, the third of a training and the second of what else there is, each by phase:
  ``allocated`` is what lives at the phase's end, ``peak_allocated`` the most since the phase
  before ended; a step's peak is the largest of its phases'. ``requested`` is before the
  allocator rounds, ``outside`` what the device has in use beside the allocator's segments.
- A training step is ``zero_grad(set_to_none=True)`` (its end is ``start``), the forward pass
  with the loss (of which only the loss is kept), ``backward()`` and the optimizer's ``step()``.
  An inference's output lives until the end of the step.
- ``time`` has milliseconds between CUDA events, queued without waiting for the device between
  repetitions; ``wall`` is the clock around one step with a synchronization before and after.
- A generation's ``prefill`` is one forward pass over the prompt that fills the cache and
  yields the last position's logits, ``decode`` each further token's forward pass, and
  ``generate`` the library's own greedy loop over as many tokens.
- ``flops`` is what ``torch.utils.flop_counter.FlopCounterMode`` counts in one such step, by
  phase and operator.
  Where it refuses, ``flops_error`` says why; ``flops_grouped`` then counts attention with fewer
  heads of keys than of queries as if the keys were repeated, else by the same formulas.
- ``error`` says why a row is incomplete; what was measured before stays in it.
"""
