"""Run by ``make wheel`` with the built wheel in an empty environment, away from the sources."""

from pathlib import Path

import torch

import graphflops as gf
from graphflops import handlers
from graphflops.render import data

report = gf.count(torch.nn.Linear(3, 4), (torch.empty(2, 3),))
assert "site-packages" in str(Path(handlers.__file__))
assert (report.macs, report.flops, report.complete) == (2 * 3 * 4, 2 * 24 + 8, True)
assert data.schema()["title"] == "graphflops forward report"
assert gf.peak_flops("a100") == 312 * 10**12  # devices.toml ships
report.to_html("report.html")  # its scripts and libraries ship
assert "@tanstack" in Path("report.html").read_text()
Path("report.html").unlink()
print(f"graphflops {gf.__version__} from the wheel: {report.flops} FLOPs, as by hand")
