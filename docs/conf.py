"""Sphinx configuration of these pages; `./run docs` builds them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for commands.py

import remctl

project = "python-remctl"
author = "The python-remctl authors"
copyright = author
release = remctl.__version__

extensions = [
    "myst_parser",  # the pages are Markdown, which reads well without a build, too
    "sphinx.ext.autodoc",  # the reference comes from the docstrings
    "sphinx.ext.napoleon",  # which are in Google's style
    "commands",  # the options of commands, and man pages
]
exclude_patterns = ["_build"]

# Each heading can be linked to, as it can in a plain viewer of Markdown.
myst_heading_anchors = 3

suppress_warnings = [
    "myst.xref_missing",  # links to files outside the documentation, for readers of the checkout
    "ref.python",  # two classes of one name in two modules, as Connection
]

default_role = "code"
# Two dashes begin an option.
smartquotes = False
highlight_language = "text"
# What annotations name and no page describes: types of the standard library, and our private ones.
nitpick_ignore_regex = [("py:.*", r".*")]

# -- The reference --------------------------------------------------------------------------------

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_type_aliases = {"_Octets": "bytes", "_Writable": "BinaryIO", "_Target": "tuple"}
napoleon_use_ivar = True
# A parameter a line where they do not fit into one; in the contents, methods without their class.
maximum_signature_line_length = 78
toc_object_entries_show_parents = "hide"

# -- Web pages ------------------------------------------------------------------------------------

html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
pygments_dark_style = "github-dark"

# -- Man pages ------------------------------------------------------------------------------------

man_pages = [
    ("remctl-fleet", "remctl-fleet", "run a remctl command on many hosts", "", 1),
    ("remctl-rsh", "remctl-rsh", "run a command on a host as ssh does, over remctl", "", 1),
    ("remctl-sandbox", "remctl-sandbox", "a shell with a remctl server to try things on", "", 1),
]
man_make_section_directory = False
man_leaves_out = ["Installing", "The same in Python", "Completion and man page"]

# `sphinx-build -t commands -b man docs man` makes the man pages alone: that takes neither the theme
# nor the packages that the reference imports.
if tags.has("commands"):  # noqa: F821 # Sphinx puts it here
    root_doc = "remctl-fleet"
    include_patterns = ["remctl-*.md"]
    suppress_warnings.append("toc.not_included")


def drop_object(_app, _domain, _kind, content):
    """Leave out that the base of a class is object."""
    for node in list(content):
        if node.astext() == "Bases: object":
            content.remove(node)


def setup(app):
    app.connect("object-description-transform", drop_object)
