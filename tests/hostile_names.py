"""Names that others chose, with characters that a format may trip over."""

from __future__ import annotations

from hypothesis import strategies as st

import graphflops as gf
from graphflops import conventions
from graphflops.core.ir import Capture, Module, OpCall, TensorMeta
from graphflops.counting import forward

HOSTILE = [
    "\x1b[31mred\x1b[0m",
    "bell\a",
    "line\nbreak",
    "return\rtab\tback\b",
    "\x9b2J\x85",
    "\u202egnp.exe",
    "zero\u200bwidth\ufeff",
    "half\ud83d",
    "a|b\\|c",
    "`code` **bold** _it_ [link](javascript:alert(1)) ![x](y) ~~s~~ $x$",
    "<script>alert(1)</script> &lt; <!--",
    "=HYPERLINK(1)",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    'quote"d, with comma',
    "\u2028\u2029\x00",
]
# A dot would make a path, and what looks like an operator may have a price.
names = st.text(st.characters(exclude_characters=".:"), min_size=1, max_size=12)


def report_of(name: str) -> gf.Report:
    """A count in which everything that has a name has this one: two modules, two calls."""
    tensor = TensorMeta((2, 3), name=name)
    calls = tuple(
        OpCall(
            op=op,
            inputs={"self": tensor},
            outputs=(tensor,),
            module_path=name,
            name=name,
            source_line=name,
        )
        for op in ("aten::relu", name)
    )
    modules = (Module("", name), Module(name, name, extra=name, calls=1))
    captured = Capture(
        calls=calls, modules=modules, method=name, notes=(name,), inputs=((name, tensor),)
    )
    return forward.make_report(captured, name, conventions.get("exact"))
