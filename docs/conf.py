"""How Sphinx builds these pages: ./run docs."""

import remctl

project = "python-remctl"
author = "The python-remctl authors"
copyright = author
release = remctl.__version__

extensions = [
    "myst_parser",  # the pages are Markdown, which reads well without a build, too
    "sphinx.ext.autodoc",  # the reference comes from the docstrings
    "sphinx.ext.napoleon",  # which are in Google's style
]
napoleon_use_ivar = True
html_theme = "furo"
html_title = f"{project} {release}"
exclude_patterns = ["_build"]

# Each heading can be linked to, as it can in a plain viewer of Markdown.
myst_heading_anchors = 3

# Links to files outside the documentation are for readers of the checkout.
suppress_warnings = ["myst.xref_missing"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_type_aliases = {"_Octets": "bytes", "_Writable": "BinaryIO", "_Target": "tuple"}
default_role = "code"
highlight_language = "text"
# What annotations name and no page describes: types of the standard library, and our private ones.
nitpick_ignore_regex = [("py:.*", r".*")]
