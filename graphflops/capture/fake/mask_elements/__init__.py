"""Tensors whose elements follow from their position, and masks of attention made of them.

The mask of a long prompt is too large to be computed, and one of symbolic size has no values
to compute. ``elements`` keeps what each of its elements is, as an expression of its indices;
``rules`` say how operators change that; ``counting`` and ``refinement`` count what a mask hides.
"""

from graphflops.capture.fake.mask_elements.elements import Elements

__all__ = ["Elements"]
