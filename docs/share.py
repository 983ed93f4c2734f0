"""Write share/, which packages install: the man pages that Sphinx made, and completion for shells.

./run docs runs it.  The files are in the repository, so that a build needs neither Sphinx nor the
commands.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

from remctl_toolkit.cli.completion import script

ROOT = Path(__file__).resolve().parent.parent
SHELLS = {
    "bash": "bash-completion/completions/{}",
    "zsh": "zsh/site-functions/_{}",
    "fish": "fish/vendor_completions.d/{}.fish",
}


def files(man: Path) -> dict[str, str]:
    """Return the texts by their paths below share/.

    Args:
        man: the folder with the man pages.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = {}
    for command in project["scripts"]:
        page = (man / f"{command}.1").read_text()
        # Neither the day nor the version of Docutils makes a page another one.
        page = re.sub(r'\A(\.\\" .*\n)+', "", page)
        page = re.sub(r'^(\.TH "[^"]*" "1") "[^"]*"', r'\1 ""', page, flags=re.MULTILINE)
        found[f"man/man1/{command}.1"] = page
        if command != "remctl-sandbox":
            for shell, path in SHELLS.items():
                found[path.format(command)] = script(command, shell)
    return found


def main() -> None:
    """Write the files; the argument is the folder with the man pages."""
    for path, text in files(Path(sys.argv[1])).items():
        target = ROOT / "share" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


if __name__ == "__main__":
    main()
