"""Matrix products and what reduces to them."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from graphflops.core.cost import Dim, OpCost
from graphflops.pricing.registry import register

from ._shapes import contraction, of_stored, reduced, summed

if TYPE_CHECKING:
    from graphflops.core.ir import TensorMeta


@register("aten::mm", "aten::bmm", sparse=1)
def mm(self: TensorMeta, mat2: TensorMeta, *, out: TensorMeta) -> OpCost:
    """Matrix product, (B, M, K) @ (B, K, N), with a batch or without: as ``matmul``."""
    return matmul(self, mat2, out=out)


@register("aten::mv", sparse=1)
def mv(self: TensorMeta, vec: TensorMeta, *, out: TensorMeta) -> OpCost:
    """Product with a vector, (M, K) @ (K): as ``matmul``. ``FlopCounterMode`` counts 0."""
    return matmul(self, vec, out=out)


@register("aten::matmul", sparse=1)
def matmul(self: TensorMeta, other: TensorMeta, *, out: TensorMeta) -> OpCost:
    """Matrix product, (..., M, K) @ (..., K, N), batch axes broadcast.

    Each output element is a dot product over K, the last axis of ``self``:
    MACs = numel(out) * K, FLOPs = 2 * MACs. Of a sparse factor the stored elements take part:
    with Z of them in (M, K), MACs = Z * N.
    """
    return contraction(of_stored(out.numel * self.shape[-1], self, other), out)


@register("aten::dot", "aten::vdot")
def dot(self: TensorMeta, *, out: TensorMeta) -> OpCost:
    """Inner product of K elements: MACs = K, FLOPs = 2 * MACs. ``FlopCounterMode`` counts 0."""
    return contraction(out.numel * self.shape[-1], out)


@register("aten::inner")
def inner(self: TensorMeta, other: TensorMeta, *, out: TensorMeta) -> OpCost:
    """Inner products over the last axis K: MACs = numel(out) * K; a scalar scales, 1 FLOP each."""
    if not self.shape or not other.shape:
        return OpCost(flops=out.numel)
    return contraction(out.numel * self.shape[-1], out)


@register("aten::tensordot")
def tensordot(
    self: TensorMeta,
    other: TensorMeta,
    dims_self: tuple[int, ...],
    dims_other: tuple[int, ...],
    *,
    out: TensorMeta,
) -> OpCost:
    """Product over several axes of both: MACs = numel(out) * their sizes, as of a product.

    An axis that is 1 on one side is summed on the other before (n elements to m: n - m
    additions), as the composite kernel does (``Linear.cpp``).
    """
    depth: Dim = 1
    sums = OpCost()
    sides = [list(self.shape), list(other.shape)]
    for axes in zip(dims_self, dims_other, strict=True):
        pair = (self.shape[axes[0]], other.shape[axes[1]])
        if 1 in pair:
            longer = 1 if pair[0] == 1 else 0
            before = prod(sides[longer])
            sides[longer][axes[longer]] = 1
            sums += OpCost(flops=reduced(before, prod(sides[longer])))
        else:
            depth *= pair[0]
    return contraction(out.numel * depth, out) + sums


@register("aten::linear", sparse=1)
def linear(
    input: TensorMeta, weight: TensorMeta, bias: TensorMeta | None, *, out: TensorMeta
) -> OpCost:
    """Linear layer, (..., K) @ (N, K)^T + bias.

    MACs = numel(out) * K, of a sparse factor as in ``matmul``; FLOPs = 2 * MACs, plus one
    addition per output for a bias.
    """
    product = contraction(of_stored(out.numel * input.shape[-1], input, weight), out)
    return product if bias is None else product + OpCost(flops=out.numel)


@register("aten::linear_backward", "aten::mkldnn_linear_backward")
def linear_backward(
    self: TensorMeta, grad_output: TensorMeta, output_mask: tuple[bool, bool, bool]
) -> OpCost:
    """Gradients of input, weight and bias, each where ``output_mask`` asks for it.

    (..., N) @ (N, K) and (N, ...) @ (..., K): MACs = numel(grad_output) * K each, as the
    forward; the bias's sums numel(grad_output) elements to N.
    """
    of_input, of_weight, of_bias = output_mask
    macs = grad_output.numel * self.shape[-1]
    cost = contraction((of_input + of_weight) * macs, grad_output)
    return cost + summed(grad_output, grad_output.shape[-1]) if of_bias else cost


@register("aten::mkldnn_linear_backward_input")
def linear_backward_input(grad_output: TensorMeta, weight: TensorMeta) -> OpCost:
    """(..., N) @ (N, K): MACs = numel(grad_output) * K."""
    return contraction(grad_output.numel * weight.shape[-1], grad_output)


@register("aten::mkldnn_linear_backward_weights")
def linear_backward_weights(
    grad_output: TensorMeta, input: TensorMeta, bias_defined: bool
) -> OpCost:
    """(N, ...) @ (..., K): MACs = numel(grad_output) * K, and the bias's sum to N elements."""
    cost = contraction(grad_output.numel * input.shape[-1], grad_output)
    return cost + summed(grad_output, grad_output.shape[-1]) if bias_defined else cost


@register("aten::matmul_backward")
def matmul_backward(grad: TensorMeta, self: TensorMeta, mask: tuple[bool, bool]) -> OpCost:
    """Gradients of both factors, where ``mask`` asks: MACs = numel(grad) * K each."""
    return contraction(sum(mask) * grad.numel * self.shape[-1], grad)


@register("aten::addmm", "aten::_sparse_addmm", sparse=1)
def addmm(
    self: TensorMeta,
    mat1: TensorMeta,
    mat2: TensorMeta,
    beta: object,
    alpha: object,
    *,
    out: TensorMeta,
) -> OpCost:
    """beta * self + alpha * (mat1 @ mat2), (M, K) @ (K, N).

    MACs = M * K * N, of a sparse factor as in ``matmul``; FLOPs = 2 * MACs, one addition per
    output, and one multiplication per output (alpha) or per element of ``self`` (beta) where the
    scalar is not 1. The reference decomposition multiplies by 1 too; kernels do not.
    """
    macs = of_stored(out.numel * mat1.shape[-1], mat1, mat2)
    return contraction(macs, out) + _scaled_sum(self, beta, alpha, out)


@register("aten::baddbmm")
def baddbmm(
    self: TensorMeta, batch1: TensorMeta, beta: object, alpha: object, *, out: TensorMeta
) -> OpCost:
    """beta * self + alpha * (batch1 @ batch2), (B, M, K) @ (B, K, N): as ``addmm``, B times."""
    product = contraction(out.numel * batch1.shape[-1], out)
    return product + _scaled_sum(self, beta, alpha, out)


@register("aten::addbmm")
def addbmm(
    self: TensorMeta, batch1: TensorMeta, beta: object, alpha: object, *, out: TensorMeta
) -> OpCost:
    """beta * self + alpha * sum of batch1 @ batch2, (B, M, K) @ (B, K, N) -> (M, N).

    Each output is a dot product over batch and K: MACs = B * M * K * N; the rest as ``addmm``.
    """
    depth = batch1.shape[0] * batch1.shape[-1]
    return contraction(out.numel * depth, out) + _scaled_sum(self, beta, alpha, out)


@register("aten::addmv", sparse=1)
def addmv(
    self: TensorMeta, mat: TensorMeta, beta: object, alpha: object, *, out: TensorMeta
) -> OpCost:
    """beta * self + alpha * (mat @ vec), (M, K) @ (K,): as ``addmm`` with N = 1."""
    product = contraction(of_stored(out.numel * mat.shape[-1], mat), out)
    return product + _scaled_sum(self, beta, alpha, out)


def _scaled_sum(added: TensorMeta, beta: object, alpha: object, out: TensorMeta) -> OpCost:
    # beta = 0 ignores the added matrix: nothing is scaled or added.
    flops: Dim = 0 if beta == 0 else out.numel
    flops += 0 if alpha == 1 else out.numel
    flops += 0 if beta in {0, 1} else added.numel
    return OpCost(flops=flops)


@register("transformers::grouped_mm_fallback")
def grouped_mm_fallback(input: TensorMeta, *, out: TensorMeta) -> OpCost:
    """As ``_grouped_mm``: transformers' own operator for where that one cannot run."""
    return contraction(out.numel * input.shape[-1], out)


@register("aten::einsum")
def einsum(
    equation: str, tensors: tuple[TensorMeta, ...], path: object, *, out: TensorMeta
) -> OpCost:
    """Einstein summation, contracted pairwise as ``torch.einsum`` does.

    A pair costs one MAC per combination of the labels it holds: kept, batch and summed ones.
    A label that only one operand has and nobody needs later is summed first (n elements to
    m: n - m additions). A pair without a summed label longer than 1 is a plain product: one
    FLOP per element, no MAC.
    """
    sizes, terms, output = _labels(equation, tensors)
    order = path if isinstance(path, tuple) else None
    cost = OpCost()
    operands = [tuple(term) for term in terms]
    while len(operands) > 1:
        i, j = (int(order[0]), int(order[1])) if order else (0, 1)
        order = order[2:] if order else None
        second, first = operands.pop(max(i, j)), operands.pop(min(i, j))
        needed = set(output).union(*operands)
        result, step = _contract_pair(first, second, needed, sizes, out)
        cost += step
        operands.append(result) if order is not None else operands.insert(0, result)
    leftover = set(operands[0]) - set(output)
    return cost + _sum_out(operands[0], leftover, sizes)


@register("aten::bilinear")
def bilinear(
    input1: TensorMeta,
    input2: TensorMeta,
    weight: TensorMeta,
    bias: TensorMeta | None,
    *,
    out: TensorMeta,
) -> OpCost:
    """x1^T W x2 for each row of (..., I), (..., J) and each of O weights (I, J).

    Contracted as ``einsum`` would, ...i,oij,...j->...o: MACs = numel(out) * J * (I + 1). One
    addition per output for a bias. ``FlopCounterMode`` counts 0.
    """
    product = einsum("...i,oij,...j->...o", (input1, weight, input2), None, out=out)
    return product if bias is None else product + OpCost(flops=out.numel)


@register("aten::_trilinear")
def trilinear(
    i1: TensorMeta,
    i2: TensorMeta,
    i3: TensorMeta,
    expand1: tuple[int, ...],
    expand2: tuple[int, ...],
    expand3: tuple[int, ...],
    sumdim: tuple[int, ...],
    *,
    out: TensorMeta,
) -> OpCost:
    """i1 * i2 * i3, each without the axes it is expanded along, summed over ``sumdim``.

    Contracted pairwise from the left, as ``einsum``.
    """
    rank = len(i1.shape) + len(expand1)
    labels = [chr(ord("a") + axis) for axis in range(rank)]
    terms = [
        "".join(label for axis, label in enumerate(labels) if axis not in expanded)
        for expanded in (expand1, expand2, expand3)
    ]
    kept = "".join(label for axis, label in enumerate(labels) if axis not in sumdim)
    return einsum(f"{','.join(terms)}->{kept}", (i1, i2, i3), None, out=out)


def _contract_pair(
    first: tuple[str, ...],
    second: tuple[str, ...],
    needed: set[str],
    sizes: dict[str, Dim],
    like: TensorMeta,
) -> tuple[tuple[str, ...], OpCost]:
    cost = OpCost()
    pair = []
    for mine, other in ((first, second), (second, first)):
        lonely = set(mine) - set(other) - needed
        cost += _sum_out(mine, lonely, sizes)
        pair.append(tuple(label for label in mine if label not in lonely))
    every = tuple(dict.fromkeys(pair[0] + pair[1]))
    volume = prod(sizes[label] for label in every)
    kept = tuple(label for label in every if label in needed)
    if all(sizes[label] == 1 for label in every if label not in needed):
        return kept, cost + OpCost(flops=volume)
    return kept, cost + contraction(volume, like)


def _sum_out(labels: tuple[str, ...], summed: set[str], sizes: dict[str, Dim]) -> OpCost:
    if not summed:
        return OpCost()
    before = prod(sizes[label] for label in labels)
    after = prod(sizes[label] for label in labels if label not in summed)
    return OpCost(flops=reduced(before, after))


def _labels(
    equation: str, tensors: tuple[TensorMeta, ...]
) -> tuple[dict[str, Dim], list[str], str]:
    """Sizes by label, the labels of each operand and of the output.

    An ellipsis stands for private labels, aligned on the right.
    """
    left, arrow, output = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    widest = max(
        len(t.shape) - len(term.replace("...", "")) if "..." in term else 0
        for t, term in zip(tensors, terms, strict=True)
    )
    private = "".join(chr(0x2460 + i) for i in range(widest))
    expanded = []
    sizes: dict[str, Dim] = {}
    for tensor, term in zip(tensors, terms, strict=True):
        extra = len(tensor.shape) - len(term.replace("...", ""))
        labels = term.replace("...", private[widest - extra :] if extra else "")
        for label, size in zip(labels, tensor.shape, strict=True):
            # A broadcast axis has size 1 in one operand and its true size in another.
            if label not in sizes or sizes[label] == 1:
                sizes[label] = size
        expanded.append(labels)
    if not arrow:
        joined = "".join(expanded)
        output = "..." + "".join(
            sorted(c for c in set(joined) - set(private) if joined.count(c) == 1)
        )
    return sizes, expanded, output.replace("...", private)
