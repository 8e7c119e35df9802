"""Fake copies of a model and its inputs, with shape rules and known values of fake tensors.

In: a module and its inputs, which are never written. Out: copies that hold fake tensors, down to
lists, hooks and closures, and a fake mode that tracks values. May import ``transformers_compat``,
``torch_internals`` and torch.
"""
