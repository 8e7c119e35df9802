"""Private names, patches and stack frames of torch, each with a sentence and a canary test.

In: torch, in the versions of ``runtime.versions.TESTED``. Out: names without an underscore, by
subject; ``PIECES`` of each module says what they are. May import ``runtime`` and ``errors``.

``tests/test_torch_internals.py`` runs each piece: where a version of torch has changed one, the
test fails with its sentence. No other module of the package touches a private name of torch.
"""
