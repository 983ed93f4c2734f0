"""Directives that generate pages from a command's parser, and turn them into man pages.

    ```{usage} remctl-fleet
    ```
    ```{options} remctl-fleet
    ```
    ```{ssh-options}
    ```

`--help`, completion, the page and the man page share one description of each option.
"""

from __future__ import annotations

import argparse
import pkgutil
import re
from collections.abc import Iterator, Sequence
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

PARSERS = {
    "remctl-fleet": "remctl_toolkit.cli.fleet.options:parser",
    "remctl-rsh": "remctl_toolkit.cli.rsh.pages:parser",
    "remctl-sandbox": "remctl_toolkit.cli.sandbox:parser",
}


def parser_of(command: str) -> argparse.ArgumentParser:
    make: Any = pkgutil.resolve_name(PARSERS[command])
    parser: argparse.ArgumentParser = make()
    return parser


# -- Directives -----------------------------------------------------------------------------------


class Usage(SphinxDirective):
    """Show the usage lines of a command."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        text = parser_of(self.arguments[0]).format_usage().removeprefix("usage:")
        lines = "\n".join(line.strip() for line in text.strip().splitlines())
        return [nodes.literal_block(lines, lines, language="text", classes=["usage"])]


class Options(SphinxDirective):
    """List the options in the parser's groups; each has an anchor #COMMAND-OPTION."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        parser = parser_of(self.arguments[0])
        shown = [
            (group.title, actions)
            for group in parser._action_groups  # argparse has no other way to them
            if (actions := [action for action in group._group_actions if is_shown(action)])
        ]
        found: list[nodes.Node] = []
        for title, actions in shown:
            if len(shown) > 1:
                heading = (title or "").capitalize()
                found.append(nodes.rubric(heading, heading))
            items = [describe(parser, action) for action in actions]
            found.append(nodes.definition_list("", *items, classes=["options"]))
        return found


class SshOptions(SphinxDirective):
    """List the options of ssh that remctl-rsh ignores or refuses, by reason."""

    def run(self) -> list[nodes.Node]:
        rows: Any = pkgutil.resolve_name("remctl_toolkit.cli.rsh.pages:ssh_options")()
        items = []
        for names, text in rows:
            words = [nodes.literal(name, name) for name in names]
            spaced = [part for word in words for part in (nodes.Text(" "), word)][1:]
            body = nodes.definition("", nodes.paragraph("", "", *spaced))
            items.append(nodes.definition_list_item("", nodes.term(text, text), body))
        return [nodes.definition_list("", *items)]


def is_shown(action: argparse.Action) -> bool:
    return bool(action.option_strings) and action.help is not argparse.SUPPRESS


def describe(parser: argparse.ArgumentParser, action: argparse.Action) -> nodes.Node:
    term = nodes.term("", "", *names(action))
    term["ids"] = [nodes.make_id(f"{parser.prog} {name}") for name in action.option_strings]
    text = parser._get_formatter()._expand_help(action)
    parts = re.split(r"(?<!\S)(--?[a-z][\w-]*)", text)
    said = [nodes.literal(part, part) if part[:1] == "-" else nodes.Text(part) for part in parts]
    return nodes.definition_list_item(
        "", term, nodes.definition("", nodes.paragraph("", "", *said))
    )


def names(action: argparse.Action) -> Iterator[nodes.Node]:
    value = action.metavar
    if value is None and action.choices:
        value = "|".join(map(str, action.choices))
    for number, name in enumerate(action.option_strings):
        if number:
            yield nodes.Text(", ")
        yield nodes.literal(name, name)
        if action.nargs != 0 and value is not None:
            yield nodes.Text(" ")
            yield nodes.emphasis(str(value), str(value))


# -- Man pages ------------------------------------------------------------------------------------


class ManPage(SphinxPostTransform):
    """Give a page the sections of man pages, and remove what is only for the web."""

    default_priority = 100
    builders = ("man",)

    def run(self, **kwargs: Any) -> None:
        page = next(self.document.findall(nodes.section))
        for section in list(page.findall(nodes.section)):
            if section.next_node(nodes.title).astext() in self.config.man_leaves_out:
                section.parent.remove(section)
        for image in [*page.findall(nodes.image), *page.findall(nodes.figure)]:
            image.parent.remove(image)
        for table in list(page.findall(nodes.table)):
            table.replace_self(as_definitions(table))
        move_options_up(page)
        open_with_synopsis(page)


def move_options_up(page: nodes.section) -> None:
    """Move the options to the top."""
    sections = [node for node in page.children if isinstance(node, nodes.section)]
    options = next(section for section in sections if section["names"] == ["options"])
    first = page.index(sections[0])
    page.remove(options)
    page.insert(first, options)


def open_with_synopsis(page: nodes.section) -> None:
    """Put the text before the first section into the sections Synopsis and Description."""
    lead = [node for node in page.children[1:] if not isinstance(node, nodes.section)]
    usage = [node for node in lead if "usage" in node.get("classes", ())]
    description = [node for node in lead if node not in usage]
    for node in lead:
        page.remove(node)
    for title, content in (("Description", description), ("Synopsis", usage)):
        if content:
            page.insert(1, nodes.section("", nodes.title(title, title), *content))


def as_definitions(table: nodes.table) -> nodes.Node:
    """Return a definition list with the first column of a table as terms."""
    items = []
    for row in table.next_node(nodes.tbody).findall(nodes.row):
        first, *others = row.findall(nodes.entry)
        term = nodes.term("", "", *[part for node in first for part in inline(node)])
        body = [node for other in others for node in other.children]
        items.append(nodes.definition_list_item("", term, nodes.definition("", *body)))
    return nodes.definition_list("", *items)


def inline(node: nodes.Node) -> Sequence[nodes.Node]:
    return node.children if isinstance(node, nodes.paragraph) else [node]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("usage", Usage)
    app.add_directive("options", Options)
    app.add_directive("ssh-options", SshOptions)
    app.add_post_transform(ManPage)
    # Titles of sections to omit from man pages.
    app.add_config_value("man_leaves_out", [], "env", list)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
