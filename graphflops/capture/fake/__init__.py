"""Model and inputs as a stand-in of fake tensors: what the user holds is never written.

In: a module, its inputs, a fake mode. Out: copies that hold fake tensors, down to lists, hooks
and closures; nothing of the user's. May import torch, and nothing of what records or prices.
"""
