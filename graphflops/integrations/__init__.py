"""Integrations: callbacks that log the utilization of training, and traces with costs.

In: trainers of transformers and Lightning, which the module of each imports; traces of
torch.profiler. Out: TFLOP/s, MFU and HFU in what the trainers log; costs on the events of a trace.
May import ``counting``, ``reports``, ``analysis`` and everything below them.
"""
