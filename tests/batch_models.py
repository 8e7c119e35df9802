"""Models that end a batch's work in every way there is, as a file that a batch is given."""

from __future__ import annotations

MODELS = '''
import os, signal, sys, time
import torch
from torch import nn

class Acting(nn.Module):
    def __init__(self, act):
        super().__init__()
        self.act, self.linear = act, nn.Linear(4, 2)
    def forward(self, x):
        self.act(x)
        return self.linear(x)

class Unpriced(nn.Module):
    def forward(self, x):
        return torch.ops.batch_test.copy(x)

@torch.library.custom_op("batch_test::copy", mutates_args=())
def copy(x: torch.Tensor) -> torch.Tensor:
    return x.clone()

@copy.register_fake
def _(x):
    return torch.empty_like(x)

def acting(act):
    return Acting(act), (torch.zeros(3, 4),)

def spin(x):
    while True:
        pass

def once(x):
    """Dies in the first process that runs it."""
    if not os.path.exists("ran"):
        open("ran", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)

def tiny(): return acting(lambda x: None)
def nap(): time.sleep(0.2); return tiny()
def exits(): return acting(lambda x: os._exit(3))
def killed(): return acting(lambda x: os.kill(os.getpid(), signal.SIGKILL))
def segfault(): return acting(lambda x: os.kill(os.getpid(), signal.SIGSEGV))
def killed_once(): return acting(once)
def leaves(): return acting(lambda x: sys.exit(4))
def hangs(): return acting(lambda x: time.sleep(1000))
def spins(): return acting(spin)
def greedy(): return acting(lambda x: bytearray(1 << 40))
def branches(): return acting(lambda x: x + 1 if x.sum() > 0 else x)
def misfit(): return Acting(lambda x: None), (torch.zeros(3, 5),)
def unfed(): return nn.Linear(3, 4)
def broken(): raise RuntimeError("out of luck")
def hoard(): return bytearray(1 << 40)
def heavy(): return nn.Linear(1 << 20, 1 << 20, device="cpu"), ()
def unpriced(): return Unpriced(), (torch.zeros(3, 4),)
'''

FAILURES = {
    "models.py:nothing": "name",
    "nowhere.py:tiny": "name",
    "no_such_package:tiny": "name",
    "nonsense": "name",
    "hf:bertt": "name",
    "timm:nothing": "name",
    "torchvision:nothing": "name",
    "models.py:broken": "build",
    "models.py:misfit": "inputs",
    "models.py:unfed": "inputs",
    "models.py:branches": "capture",
    "models.py:leaves": "capture",
    "models.py:unpriced": "unsupported operators",
    "models.py:hangs": "timeout",
    "models.py:spins": "timeout",
    "models.py:greedy": "memory",
    "models.py:hoard": "memory",
    "models.py:heavy": "memory",
    "models.py:exits": "crash",
    "models.py:killed": "crash",
    "models.py:segfault": "crash",
}
"""Class of the failure of each."""
