"""Reports as a page for a browser: one file that works offline.

In: reports, through the protocols of ``render.protocols`` and of this package. Out: HTML. May
import ``plots`` for its files, ``render``, ``analysis``, ``core`` and what is below them. ``page/``
has the page's own scripts and styles, ``vendor/`` the libraries that draw, as ``make vendor``
bundles them.
"""
