"""Integrations: callbacks that log the utilization of a training run, step by step.

In: trainers of transformers and Lightning, which the module of each imports. Out: TFLOP/s, MFU and
HFU in what they log. May import ``counting``, ``reports``, ``analysis`` and everything below them.
"""
