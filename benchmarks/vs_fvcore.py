"""Compare graphflops with fvcore on the same models, operator by operator.

Run ``python -m benchmarks.vs_fvcore`` to print the comparison, and with ``--write`` to put it
into ``docs/evidence/vs_fvcore.md`` as well. A figure that the rules printed with it do not explain
to the last digit stops the run.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from fvcore.nn import FlopCountAnalysis
from tabulate import tabulate

import graphflops as gf
from graphflops.core.cost import FLOPS_PER_MAC
from graphflops.core.ir import OpCall, TensorMeta
from graphflops.models.optional_dependencies import repair_torchvision

PAGE = Path(__file__).resolve().parent.parent / "docs" / "evidence" / "vs_fvcore.md"
ATTENTION = "aten::scaled_dot_product_attention"


def _model(class_name: str, config: Any, attention: str) -> torch.nn.Module:
    repair_torchvision()
    model_class = getattr(transformers, class_name)
    model: torch.nn.Module = model_class._from_config(config, attn_implementation=attention)
    return model.eval()


def _resnet(class_name: str, **overrides: Any) -> torch.nn.Module:
    return _model(class_name, transformers.ResNetConfig(num_labels=1000, **overrides), "eager")


def _vit(attention: str) -> torch.nn.Module:
    config = transformers.ViTConfig(num_labels=1000)
    return _model("ViTForImageClassification", config, attention)


def _bert(attention: str) -> torch.nn.Module:
    return _model("BertModel", transformers.BertConfig(), attention)


IMAGE = torch.zeros(1, 3, 224, 224)
TOKENS = torch.zeros(1, 128, dtype=torch.int64)
CASES: dict[str, tuple[Callable[[], torch.nn.Module], torch.Tensor]] = {
    "ResNet-50 without a head": (lambda: _resnet("ResNetModel"), IMAGE),
    "ResNet-50": (lambda: _resnet("ResNetForImageClassification"), IMAGE),
    "ViT-B/16": (lambda: _vit("sdpa"), IMAGE),
    "ViT-B/16, eager attention": (lambda: _vit("eager"), IMAGE),
    "BERT-base": (lambda: _bert("sdpa"), TOKENS),
    "BERT-base, eager attention": (lambda: _bert("eager"), TOKENS),
}


class Count(NamedTuple):
    """So many operations for each n and for each m of an operator."""

    per_n: int = 0
    per_m: int = 0

    def of(self, n: int, m: int) -> int:
        """The number of operations."""
        return self.per_n * n + self.per_m * m

    def __str__(self) -> str:
        terms = [f"{k} {size}" for k, size in ((self.per_n, "n"), (self.per_m, "m")) if k]
        return " + ".join(terms).replace("+ -", "- ") or "0"


class Rule(NamedTuple):
    """What is counted for an operator, beside the multiply-accumulates of a contraction.

    ``sizes`` reads n and m off a call, ``n`` and ``m`` say in words what they are.
    """

    n: str
    sizes: Callable[[OpCall], tuple[int, int]]
    graphflops: Count
    fvcore: Count = Count()
    m: str = ""


def _tensor(call: OpCall, name: str) -> TensorMeta:
    tensor = call.inputs[name]
    if not isinstance(tensor, TensorMeta):
        raise TypeError(f"{name} of {call.op} is no tensor")
    return tensor


def _elements(call: OpCall) -> tuple[int, int]:
    return int(call.outputs[0].numel), 0


def _biased(call: OpCall) -> tuple[int, int]:
    return _elements(call) if call.inputs.get("bias") else (0, 0)


def _averaged(call: OpCall) -> tuple[int, int]:
    return int(_tensor(call, "self").numel), 0


def _by_channel(call: OpCall) -> tuple[int, int]:
    return int(call.outputs[0].numel), int(_tensor(call, "weight").numel)


def _by_row(call: OpCall) -> tuple[int, int]:
    *rows, length = call.outputs[0].shape
    return int(prod(rows) * length), int(prod(rows))


def _scores(call: OpCall) -> tuple[int, int]:
    rows = prod(_tensor(call, "query").shape[:-1])
    return int(rows * _tensor(call, "key").shape[-2]), int(rows)


OUTPUT = "elements of the output"
BIASED = f"{OUTPUT}, where there is a bias"
RULES = {
    "aten::conv2d": Rule(BIASED, _biased, Count(1)),
    "aten::linear": Rule(BIASED, _biased, Count(1)),
    "aten::matmul": Rule("", lambda _: (0, 0), Count()),
    # 6 n - 2 m for the softmax, 2 * 64 m to scale the rows of Q and K.
    ATTENTION: Rule("scores", _scores, Count(6, 126), m="rows of scores"),
    "aten::softmax": Rule("scores", _by_row, Count(5, -2), m="rows of scores"),
    "aten::layer_norm": Rule(OUTPUT, _by_row, Count(9, 2), Count(5), m="rows"),
    "aten::batch_norm": Rule(OUTPUT, _by_channel, Count(4, 4), Count(2), m="channels"),
    "aten::adaptive_avg_pool2d": Rule("elements of the input", _averaged, Count(1), Count(1)),
    "aten::max_pool2d": Rule(f"{OUTPUT}, windows of 3 x 3", _elements, Count(8)),
    "aten::gelu": Rule(OUTPUT, _elements, Count(5)),
    "aten::relu": Rule(OUTPUT, _elements, Count(1)),
    "aten::tanh": Rule(OUTPUT, _elements, Count(1)),
    "aten::add": Rule(OUTPUT, _elements, Count(1)),
    "aten::add_": Rule(OUTPUT, _elements, Count(1)),
    "aten::mul": Rule(OUTPUT, _elements, Count(1)),
}


class Row(NamedTuple):
    """One operator over a whole model; ``fvcore`` is its figure, or why it has none."""

    op: str
    calls: int
    n: int
    m: int
    fvcore: int | str
    macs: int
    flops: int

    def check(self) -> Row:
        """Itself, if both figures follow from the operator's rule.

        Raises:
            ValueError: One does not.
        """
        rule = RULES[self.op]
        ours = FLOPS_PER_MAC * self.macs + rule.graphflops.of(self.n, self.m)
        theirs = self.macs + rule.fvcore.of(self.n, self.m)
        if self.flops != ours or self.fvcore not in {theirs, "unsupported", "ignored"}:
            raise ValueError(
                f"by its rule {self.op} is {ours} FLOPs and {theirs} in fvcore: {self}"
            )
        return self


class Comparison(NamedTuple):
    """Both counts of one model: the operators with a price, and the totals."""

    rows: list[Row]
    fvcore_total: int
    report: gf.Report


def compare(model: torch.nn.Module, inputs: torch.Tensor) -> Comparison:
    """Count a model with both.

    Raises:
        ValueError: A figure does not follow from its operator's rule.
    """
    report = gf.count(model, (inputs,))
    analysis = FlopCountAnalysis(model, (inputs,))
    analysis.unsupported_ops_warnings(enabled=False).uncalled_modules_warnings(enabled=False)
    costs = {op: cost for op, cost in report.by_operator().items() if cost.flops}
    rows = [_row(op, report, analysis).check() for op in costs]
    rows.sort(key=lambda row: row.flops, reverse=True)
    return Comparison(rows, analysis.total(), report)


def _row(op: str, report: gf.Report, analysis: FlopCountAnalysis) -> Row:
    calls = [r.call for r in report.records if r.call.op == op and r.cost and r.cost.flops]
    sizes = [RULES[op].sizes(call) for call in calls]
    total = analysis.by_operator()
    left_out = "unsupported" if op in analysis.unsupported_ops() else "ignored"
    cost = report.by_operator()[op]
    return Row(
        op=op,
        calls=len(calls),
        n=sum(n for n, _ in sizes),
        m=sum(m for _, m in sizes),
        fvcore=total.get(_name_in_fvcore(op), left_out),
        macs=int(cost.macs),
        flops=int(cost.flops),
    )


def _name_in_fvcore(op: str) -> str:
    return "conv" if op == "aten::conv2d" else op.removeprefix("aten::")


def _table(headers: Sequence[str], rows: Sequence[Sequence[object]], texts: int = 1) -> str:
    """A Markdown table whose first ``texts`` columns are words and the others numbers."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else cell for cell in row] for row in rows]
    aligned = ["left"] * texts + ["right"] * (len(headers) - texts)
    return tabulate(cells, headers, tablefmt="pipe", colalign=aligned, disable_numparse=True)


def operators_table(comparison: Comparison) -> str:
    """The operators of one model."""
    rows: list[tuple[object, ...]] = [
        (f"`{row.op}`", row.calls, row.n or "", row.m or "", row.fvcore, row.macs, row.flops)
        for row in comparison.rows
    ]
    report = comparison.report
    rows.append(("total", "", "", "", comparison.fvcore_total, report.macs, report.flops))
    headers = ("operator", "calls", "n", "m", "fvcore", "graphflops MACs", "graphflops FLOPs")
    return _table(headers, rows)


def bridge_table(comparisons: dict[str, Comparison]) -> str:
    """From fvcore's total to graphflops' MACs.

    What stands in the last column neither rule nor skipped attention explains.
    """
    extras = ("batch_norm", "layer_norm", "adaptive_avg_pool2d")
    rows = []
    for name, (operators, total, report) in comparisons.items():
        theirs = {_name_in_fvcore(row.op): row.fvcore for row in operators}
        minus = [-int(theirs.get(op, 0)) for op in extras]
        skipped = sum(row.macs for row in operators if row.fvcore == "unsupported")
        unexplained = int(report.macs) - (total + sum(minus) + skipped)
        rows.append((name, total, *minus, skipped, report.macs, unexplained))
    headers = ("fvcore total", *extras, "skipped attention", "graphflops MACs", "unexplained")
    return _table(("model", *headers), rows)


def rules_table() -> str:
    """What each counter counts for an operator, beside multiply-accumulates."""
    rows = [
        (f"`{op}`", rule.n, rule.m, str(rule.fvcore), str(rule.graphflops))
        for op, rule in RULES.items()
    ]
    return _table(("operator", "n", "m", "fvcore", "graphflops FLOPs"), rows, texts=3)


LITERATURE = [
    ("ResNet-50", "torchvision, `ResNet50_Weights` (4.089 in its source)", "4.09 GFLOPS"),
    ("ViT-B/16", "torchvision, `ViT_B_16_Weights` (17.564 in its source)", "17.56 GFLOPS"),
    ("ViT-B/16", "timm, card of `vit_base_patch16_224.augreg2_in21k_ft_in1k`", "16.9 GMACs"),
    ("BERT-base", "cli99/flops-profiler, README, 128 tokens", "11.17 GMACs, 22.36 G flops"),
    ("BERT-base", "calflops, README, a BERT-base of 128 tokens", "11.17 GMACs, 22.36 GFLOPS"),
]


def literature_table(comparisons: dict[str, Comparison]) -> str:
    """What others state of the same models."""
    rows = [
        (name, source, says, comparisons[name].report.macs, comparisons[name].fvcore_total)
        for name, source, says in LITERATURE
    ]
    return _table(("model", "source", "says", "graphflops MACs", "fvcore"), rows, texts=3)


def page(comparisons: dict[str, Comparison]) -> str:
    """The whole comparison as Markdown."""
    operators = "\n\n".join(
        f"### {name}\n\n{operators_table(comparison)}" for name, comparison in comparisons.items()
    )
    original = _resnet("ResNetForImageClassification", downsample_in_bottleneck=True)
    return TEMPLATE.format(
        versions=", ".join(
            f"{name} {version(name)}" for name in ("fvcore", "torch", "transformers")
        ),
        bridge=bridge_table(comparisons),
        operators=operators,
        rules=rules_table(),
        literature=literature_table(comparisons),
        resnet=comparisons["ResNet-50"].report.macs,
        resnet_v1=gf.count(original, (IMAGE,)).macs,
        vit=comparisons["ViT-B/16"].report.macs,
        bert=comparisons["BERT-base"].report.macs,
        bert_flops=comparisons["BERT-base"].report.flops,
    )


TEMPLATE = """\
# graphflops and fvcore, operator by operator

<!-- Written by `python -m benchmarks.vs_fvcore --write`; edit the script, not this page. -->

Both counted the same models with real parameters on the CPU: ResNet-50 (224 x 224), ViT-B/16
(224 x 224, with its classifier) and BERT-base (128 tokens, with its pooler), batch 1.
{versions}.

**fvcore calls a multiply-accumulate one flop.** What it counts for a contraction is graphflops'
MACs; graphflops' FLOPs are two for each. With that said, the two agree on every convolution,
linear layer and matrix product to the last digit. Their totals differ by two things:

- fvcore adds to its multiply-accumulates some operations that are none: 2 for each element of an
  evaluated batch norm, 5 for each of a layer norm, 1 for each that average pooling reads.
- fvcore has no handler for `scaled_dot_product_attention`, so the two matrix products of fused
  attention are missing. It names the operator in `unsupported_ops()`; its total is without it.
  With eager attention the same products are `matmul` calls, and fvcore counts what graphflops
  counts in either form.

{bridge}

## Every operator with a price

Calls that neither counter gives a price (views, copies, embeddings, integer arithmetic) are left
out. `unsupported` is what fvcore reports as such, `ignored` what is on its list of operators to
ignore; n and m are sizes that the rules below refer to.

{operators}

## What is counted beside multiply-accumulates

For each operator, with n and m as in the tables above; a contraction adds 2 FLOPs for each MAC
(1 in fvcore). The script that writes this page stops if a figure does not follow from its rule.

{rules}

- Fused attention is a softmax of 6 n - 2 m and the scaling of Q and K, 64 elements a row each:
  6 n - 2 m + 2 * 64 m. Eager attention scales the scores instead (`mul`) and spends 5 n - 2 m on
  its softmax, which does not look for rows that are wholly masked. No mask is added: transformers
  skips one that hides nothing.

## By hand, and in the literature

The MACs, written out from the architectures:

```text
ResNet-50  112*112*64*3*7*7                                                           stem
           +     56*56*(64*256 + 64*64 + 9*64*64 + 64*256)                            stage 1
           + 2 * 56*56*(256*64 + 9*64*64 + 64*256)
           +     28*28*(256*512 + 9*128*128 + 128*512) + 56*56*256*128                stage 2
           + 3 * 28*28*(512*128 + 9*128*128 + 128*512)
           +     14*14*(512*1024 + 9*256*256 + 256*1024) + 28*28*512*256              stage 3
           + 5 * 14*14*(1024*256 + 9*256*256 + 256*1024)
           +     7*7*(1024*2048 + 9*512*512 + 512*2048) + 14*14*1024*512              stage 4
           + 2 * 7*7*(2048*512 + 9*512*512 + 512*2048)
           + 2048*1000                                                                classifier
           = {resnet:,}

ViT-B/16   196*768*3*16*16                                                            patches
           + 12 * 197*(4*768*768 + 2*768*3072)                                        linear
           + 12 * 2*197*197*768                                                       attention
           + 768*1000                                                                 classifier
           = {vit:,}

BERT-base  12 * 128*(4*768*768 + 2*768*3072)                                          linear
           + 12 * 2*128*128*768                                                       attention
           + 768*768                                                                  pooler
           = {bert:,}
```

{literature}

- torchvision's GFLOPS are multiply-accumulates: both figures are graphflops' MACs.
- fvcore's total for ViT-B/16, which is without attention, rounds to timm's 16.9.
- Twice BERT's MACs and 5 for each element of its 25 layer norms are 22,360,719,360, the profilers'
  22.36 G. graphflops comes to {bert_flops:,} FLOPs by the rules above.
- The ResNet-50 of the paper (He et al., 2015, table 1: 3.8e9 multiply-adds) has the strides of its
  stages in the first 1 x 1 convolution, torchvision's and this one in the 3 x 3. With
  `ResNetConfig(downsample_in_bottleneck=True)` the MACs are {resnet_v1:,}.

The figures are asserted by `tests/test_fvcore.py`.
"""


def main() -> None:
    """Print the comparison, and write the page where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"also write {PAGE.name}")
    arguments = parser.parse_args()
    comparisons = {name: compare(build(), inputs) for name, (build, inputs) in CASES.items()}
    text = page(comparisons)
    print(text)
    if arguments.write:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
