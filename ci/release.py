"""Check that a release can be made, build it, and tag it: ./run release.

Nothing is pushed or uploaded: the last lines list the remaining steps.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import re
import sys
import tomllib
from pathlib import Path

from .shell import Failed, run, say, tool

ROOT = Path(__file__).resolve().parent.parent

# .ci/run writes the commit that passed everything to this file.
GREEN = ".venv/green"


def version_of(root: Path) -> str:
    """Return `__version__` of remctl.py, the only place that has it, without importing."""
    tree = ast.parse((root / "remctl.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return str(ast.literal_eval(node.value))
    raise Failed("remctl.py does not set __version__")


def git(root: Path, *arguments: str) -> str:
    """Run git, and return its output."""
    return run("git", "-C", root, *arguments).strip()


def problems_of_version(root: Path, today: datetime.date) -> list[str]:
    """Return problems of the version and its section in the changelog."""
    version = version_of(root)
    problems = []
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", version):
        problems.append(f"{version} is not a version to release: set __version__ in remctl.py")
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]
    titles = [section.partition("\n")[0].strip() for section in sections]
    dated = [re.fullmatch(rf"{re.escape(version)} \((\d{{4}}-\d\d-\d\d)\)", t) for t in titles]
    found = [match for match in dated if match]
    if len(found) != 1:
        problems.append(f"CHANGELOG.md needs a section `## {version} ({today})`")
    elif found[0][1] != str(today):
        problems.append(f"CHANGELOG.md dates {version} {found[0][1]}, and today is {today}")
    for title, section in zip(titles, sections, strict=True):
        if title == "Unreleased" and "\n- " in section:
            problems.append("CHANGELOG.md has changes under Unreleased: they belong to the version")
    return problems


def problems_of_address(root: Path) -> list[str]:
    """Return problems of the repository's address in pyproject.toml."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    address = tomllib.loads(text)["project"].get("urls", {}).get("Repository")
    if address is None:
        cure = 'Repository = "https://github.com/OWNER/NAME"'
        return [f"pyproject.toml has no {cure} in [project.urls]: links on PyPI start with it"]
    if not re.fullmatch(r"https://[^/\s]+(/[^/\s]+)+", address):
        return [f"[project.urls]: {address} must be an https address without a final slash"]
    return []


def problems_of_checkout(root: Path) -> list[str]:
    """Return problems of the checkout to tag."""
    problems = []
    if (branch := git(root, "branch", "--show-current")) != "main":
        problems.append(f"releases are made from main: this is {branch or 'no branch'}")
    if git(root, "status", "--porcelain"):
        problems.append("there are uncommitted changes: commit them")
    if git(root, "tag", "--list", tag := f"v{version_of(root)}"):
        problems.append(f"the tag {tag} already exists")
    green = root / GREEN
    if not green.exists() or green.read_text().strip() != git(root, "rev-parse", "HEAD"):
        problems.append("this commit has not passed lint and tests: run .ci/run")
    return problems


def problems_of_tag(root: Path, tag: str) -> list[str]:
    """Return problems of a pushed tag; the date may be in the past."""
    version = version_of(root)
    if tag != f"v{version}":
        return [f"the tag {tag} does not match the version {version}"]
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    dates = re.findall(rf"^## {re.escape(version)} \((\d{{4}}-\d\d-\d\d)\)$", text, re.MULTILINE)
    if not dates:
        return [f"CHANGELOG.md has no section for {version}"]
    return problems_of_version(root, datetime.date.fromisoformat(dates[0]))


def build(folder: Path) -> list[Path]:
    """Build the sdist and, from it, a wheel; check whether PyPI would accept them."""
    from .building import build_sdist, unpack_sdist

    say("building the sdist, and a wheel from it")
    sdist = build_sdist(folder / "sdist")
    tree = unpack_sdist(sdist, folder / "tree")
    wheels = folder / "wheel"
    for old in wheels.glob("*.whl"):
        old.unlink()
    run(
        *(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"),
        *("--wheel-dir", wheels, tree),
    )
    made = [sdist, *wheels.glob("*.whl")]
    run(tool("twine"), "check", "--strict", *made)
    return made


LEFT_TO_DO = """\
Left to do:
  ./run wheel --chroot trixie   unless done for this commit
  git push origin main {tag}
      then the workflow `release` builds all wheels and waits for your approval
  https://pypi.org/project/python-remctl/   check it, and: pip install python-remctl=={version}
  remctl.py and CHANGELOG.md    set the next version with .dev0, and add an empty Unreleased
"""


def main(arguments: list[str]) -> int:
    """Run the command line, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="./run release",
        description="Check the version, the changelog and the checkout, build, and tag."
        " Nothing is pushed.",
    )
    parser.add_argument("--dry-run", action="store_true", help="do everything except tagging")
    parser.add_argument("--tag", help="only check this tag; for the workflow")
    options = parser.parse_args(arguments)
    try:
        if options.tag:
            problems = problems_of_tag(ROOT, options.tag)
        else:
            problems = problems_of_version(ROOT, datetime.date.today())
            problems += problems_of_checkout(ROOT)
        problems += problems_of_address(ROOT)
        version = version_of(ROOT)
        # A dry run reports all problems, including those of building.
        if not options.tag and (options.dry_run or not problems):
            for path in build(ROOT / ".venv" / "release"):
                say(f"  {path.name}")
        if not options.tag and not options.dry_run and not problems:
            git(ROOT, "tag", "--annotate", f"v{version}", "--message", f"python-remctl {version}")
            say(f"tagged v{version}")
    except Failed as error:
        problems = [str(error)]
    for problem in problems:
        say(f"NOT READY  {problem}")
    if not problems and not options.tag:
        say(LEFT_TO_DO.format(tag=f"v{version}", version=version))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
