"""Sphinx's settings: ``make docs`` builds the pages into ``docs/_build``."""

from importlib.metadata import version as installed
from typing import Any

from sphinx.ext import napoleon

from graphflops.models.optional_dependencies import repair_torchvision

repair_torchvision()  # transformers is imported for a callback's base class

project = "graphflops"
author = "the graphflops authors"
copyright = "the graphflops authors"  # noqa: A001 - Sphinx's own name
release = version = installed("graphflops")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}

html_theme = "pydata_sphinx_theme"
html_title = "graphflops"
html_show_copyright = False
html_show_sourcelink = False
html_sidebars = {"get_started": [], "how_it_is_built": []}  # pages without pages below them
html_theme_options = {
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "header_links_before_dropdown": 7,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": [],
    "footer_end": [],
}

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# Links to files of the checkout are downloads on the site and files on a repository's page.
myst_links_external_new_tab = False

napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 90

autodoc_mock_imports = ["lightning", "pytorch_lightning"]  # an extra

nitpicky = True
nitpick_ignore_regex = [
    # Types of other packages, whose documentation is not asked for over the network.
    (
        "py:.*",
        r"(torch|sympy|os|collections|pathlib|typing|types|enum|dataclasses|transformers|lightning)(\..*)?",
    ),
    ("py:.*", r"(nn|fx|nx|pd)\..*"),  # names by which modules import torch's, networkx and pandas
    # Parts of types that Sphinx takes apart at their commas, type variables, and aliases.
    ("py:class", r"(tuple|dict)\[.*|.*\.[A-Z]|Parameter|Trainer|Path|Implementation"),
]

_process_docstring = napoleon._process_docstring


def _process_property(app: Any, what: str, *rest: Any) -> None:
    """Take the docstring of a property as a method's: what stands before a colon is no type."""
    _process_docstring(app, "method" if what == "property" else what, *rest)


napoleon._process_docstring = _process_property
