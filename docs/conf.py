"""Sphinx configuration of these pages; `./run docs` builds them."""

import sys
from pathlib import Path

from sphinx import addnodes

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
    "sphinx_copybutton",  # blocks of code can be copied
]
exclude_patterns = ["_build"]

# Each heading can be linked to, as it can in a plain viewer of Markdown.
myst_heading_anchors = 3

suppress_warnings = [
    "ref.python",  # two classes of one name in two modules, as Connection
]

# Pages in place of files outside of docs/, which pages link to for readers of the checkout.
PAGES_OF_FILES = {
    "README.md": "index",
    "README.md#install": "install",
    "SECURITY.md": "security",
    "CHANGELOG.md": "changelog",
    "CONTRIBUTING.md": "contributing",
}

# Prompts are not copied, nor is what a command prints.
copybutton_prompt_text = "$ "
copybutton_exclude = ".linenos, .gp, .go"

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

# `sphinx-build -t commands -b man docs man` builds only the man pages: this needs neither the
# theme nor the packages that the reference imports.
if tags.has("commands"):  # noqa: F821 # Sphinx puts it here
    root_doc = "remctl-fleet"
    include_patterns = ["remctl-*.md"]
    suppress_warnings += ["toc.not_included", "myst.xref_missing"]
    extensions.remove("sphinx_copybutton")


def drop_object(_app, _domain, _kind, content):
    """Omit object as the base of a class."""
    for node in list(content):
        if node.astext() == "Bases: object":
            content.remove(node)


def lead_to_pages(app, doctree):
    """Change links to files of the checkout into links to pages."""
    docs = Path(app.srcdir)
    for link in doctree.findall(addnodes.pending_xref):
        if link.get("refdomain") != "doc":
            continue
        file = (docs / f"{link['reftarget']}.md").resolve()
        if file.is_relative_to(docs):
            continue
        name, anchor = file.relative_to(docs.parent).as_posix(), link.get("reftargetid")
        page = PAGES_OF_FILES.get(f"{name}#{anchor}")
        link["reftarget"] = page or PAGES_OF_FILES[name]
        link["reftargetid"] = None if page else anchor


def setup(app):
    app.connect("object-description-transform", drop_object)
    app.connect("doctree-read", lead_to_pages)
