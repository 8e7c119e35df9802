"""Operators that do no floating-point arithmetic, each with the reason.

What is not listed here and has no handler is *unknown*, never silently free.
"""

from __future__ import annotations

from graphflops.pricing.memory_traffic import (
    copy_unless_view,
    gather_elements,
    no_traffic,
    overwrite_target,
    read_all_write_all,
    write_only,
)
from graphflops.pricing.registry import free

free(
    *("aten::view", "aten::_unsafe_view", "aten::view_as", "aten::expand", "aten::expand_as"),
    *("aten::broadcast_to", "aten::broadcast_tensors", "aten::transpose", "aten::permute"),
    *("aten::t", "aten::numpy_T", "aten::mT", "aten::movedim", "aten::swapaxes", "aten::adjoint"),
    *("aten::unsqueeze", "aten::squeeze", "aten::unflatten", "aten::slice", "aten::select"),
    *("aten::narrow", "aten::split", "aten::split_with_sizes", "aten::chunk", "aten::unbind"),
    *("aten::tensor_split", "aten::diagonal", "aten::unfold", "aten::as_strided", "aten::alias"),
    *("aten::detach", "aten::lift_fresh", "aten::view_as_complex", "aten::view_as_real"),
    *("aten::real", "aten::imag", "aten::conj", "aten::meshgrid", "aten::hsplit", "aten::vsplit"),
    *("aten::unsafe_split", "aten::unsafe_split_with_sizes", "aten::unsafe_chunk"),
    *("aten::_reshape_alias", "aten::_conj", "aten::_neg_view", "aten::lift"),
    *("aten::atleast_1d", "aten::atleast_2d", "aten::atleast_3d", "aten::moveaxis"),
    reason="view: the same memory under other sizes and strides",
    traffic=no_traffic,
)

free(
    *("aten::reshape", "aten::reshape_as", "aten::flatten", "aten::ravel", "aten::contiguous"),
    *("aten::to", "aten::_to_copy", "aten::type_as", "aten::resolve_conj", "aten::resolve_neg"),
    reason="layout or dtype: a view where possible, else a copy or conversion",
    traffic=copy_unless_view,
)

free(
    *("aten::clone", "aten::lift_fresh_copy", "aten::cat", "aten::concat", "aten::concatenate"),
    *("aten::stack", "aten::hstack", "aten::vstack", "aten::repeat", "aten::repeat_interleave"),
    *("aten::tile", "aten::roll", "aten::flip", "aten::fliplr", "aten::flipud", "aten::rot90"),
    *("aten::pad", "aten::constant_pad_nd", "aten::reflection_pad1d", "aten::reflection_pad2d"),
    *("aten::reflection_pad3d", "aten::replication_pad1d", "aten::replication_pad2d"),
    *("aten::replication_pad3d", "aten::pixel_shuffle", "aten::native_channel_shuffle"),
    *("aten::pixel_unshuffle", "aten::channel_shuffle", "aten::im2col", "aten::combinations"),
    "aten::_conj_physical",
    reason="copy: elements are moved, none is computed",
    traffic=read_all_write_all,
)

free(
    *(
        f"aten::{view}_copy"
        for view in (
            *("alias", "detach", "view", "expand", "permute", "transpose", "t", "squeeze"),
            *("unsqueeze", "split", "split_with_sizes", "unbind", "view_as_complex"),
            *("view_as_real", "_reshape_alias", "_reshape", "_conj", "_neg_view"),
        )
    ),
    reason="copy of a view: elements are moved, none is computed",
    traffic=read_all_write_all,
)

free(
    *("aten::slice_copy", "aten::select_copy", "aten::narrow_copy", "aten::diagonal_copy"),
    *("aten::unfold_copy", "aten::as_strided_copy"),
    reason="copy of a part: only what is copied is read",
    traffic=gather_elements,
)

free(
    *("aten::where", "aten::masked_fill", "aten::masked_select", "aten::tril", "aten::triu"),
    *("aten::nonzero", "aten::nonzero_static"),
    reason="selection: elements are chosen by a mask, a position or an order",
    traffic=read_all_write_all,
)

free(
    *("aten::__and__", "aten::__or__", "aten::__xor__", "aten::bitwise_and", "aten::bitwise_or"),
    *("aten::bitwise_xor", "aten::bitwise_not", "aten::bitwise_left_shift", "aten::__lshift__"),
    *("aten::bitwise_right_shift", "aten::__rshift__", "aten::any", "aten::signbit"),
    *("aten::one_hot", "aten::bincount", "aten::_is_all_true", "aten::hash_tensor"),
    reason="logic: integers, booleans or bit patterns, no floating-point arithmetic",
    traffic=read_all_write_all,
)

free(
    *("aten::empty", "aten::empty_like", "aten::empty_strided", "aten::empty_permuted"),
    *("aten::new_empty", "aten::new_empty_strided", "aten::resize", "aten::resize_as"),
    "aten::_efficientzerotensor",
    reason="allocation: memory is reserved, nothing is written",
    traffic=no_traffic,
)

free(
    *("aten::zeros", "aten::zeros_like", "aten::new_zeros", "aten::ones", "aten::ones_like"),
    *("aten::new_ones", "aten::full", "aten::full_like", "aten::new_full", "aten::scalar_tensor"),
    *("aten::eye", "aten::tril_indices", "aten::triu_indices", "aten::fill", "aten::zero"),
    reason="fill: constants are written",
    traffic=write_only,
)

free(
    "aten::copy",
    reason="copy into an existing tensor",
    traffic=overwrite_target,
)

free(
    *("aten::_assert_tensor_metadata", "aten::_assert_async", "aten::_assert_scalar"),
    *("aten::sym_size", "aten::sym_numel", "aten::sym_stride", "aten::sym_storage_offset"),
    *("aten::sym_constrain_range", "aten::sym_constrain_range_for_size", "aten::item"),
    *("aten::_local_scalar_dense", "aten::size", "aten::requires_grad_", "prim::device"),
    *("aten::_print", "higher_order::print"),
    reason="metadata, check or message: sizes and conditions, no tensor arithmetic",
    traffic=no_traffic,
)
