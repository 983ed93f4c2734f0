"""Check that a release can be made, build it, and tag it: ./run release.

Nothing is pushed or uploaded: at the end it says what is left to do.
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

# .ci/run leaves the commit there that passed everything.
GREEN = ".venv/green"


def version_of(root: Path) -> str:
    """Return `__version__` of remctl.py, the one place that holds it, without importing."""
    tree = ast.parse((root / "remctl.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__":
            return str(ast.literal_eval(node.value))
    raise Failed("remctl.py does not set __version__")


def git(root: Path, *arguments: str) -> str:
    """Return what git says."""
    return run("git", "-C", root, *arguments).strip()


def problems_of_version(root: Path, today: datetime.date) -> list[str]:
    """Return what is wrong with the version and its section in the changelog."""
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
    """Return what is wrong with what pyproject.toml says about the repository's address."""
    text = (root / "pyproject.toml").read_text(encoding="utf-8")
    address = tomllib.loads(text)["project"].get("urls", {}).get("Repository")
    if address is None:
        cure = 'Repository = "https://github.com/OWNER/NAME"'
        return [f"pyproject.toml has no {cure} in [project.urls]: links on PyPI start with it"]
    if not re.fullmatch(r"https://[^/\s]+(/[^/\s]+)+", address):
        return [f"{address} is no https address without a slash at its end: [project.urls]"]
    return []


def problems_of_checkout(root: Path) -> list[str]:
    """Return what is wrong with the checkout that the tag would be put on."""
    problems = []
    if (branch := git(root, "branch", "--show-current")) != "main":
        problems.append(f"releases are made from main, and this is {branch or 'no branch'}")
    if git(root, "status", "--porcelain"):
        problems.append("there are changes that are not committed")
    if git(root, "tag", "--list", tag := f"v{version_of(root)}"):
        problems.append(f"the tag {tag} is there")
    green = root / GREEN
    if not green.exists() or green.read_text().strip() != git(root, "rev-parse", "HEAD"):
        problems.append("this commit has not passed lint and tests: .ci/run")
    return problems


def problems_of_tag(root: Path, tag: str) -> list[str]:
    """Return what is wrong with a tag that was pushed; the date may be an earlier one."""
    version = version_of(root)
    if tag != f"v{version}":
        return [f"the tag is {tag}, and the version {version}"]
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    dates = re.findall(rf"^## {re.escape(version)} \((\d{{4}}-\d\d-\d\d)\)$", text, re.MULTILINE)
    if not dates:
        return [f"CHANGELOG.md has no section for {version}"]
    return problems_of_version(root, datetime.date.fromisoformat(dates[0]))


def build(folder: Path) -> list[Path]:
    """Build the sdist and, from it, a wheel; and ask whether PyPI would take them."""
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
  ./run wheel --chroot trixie   if it was not done for this commit
  git push origin main {tag}
      then the workflow `release` builds all wheels and waits for your approval
  https://pypi.org/project/python-remctl/   look at it, and: pip install python-remctl=={version}
  remctl.py and CHANGELOG.md    the next version with .dev0, and an empty section Unreleased
"""


def main(arguments: list[str]) -> int:
    """Do what the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="./run release",
        description="Check the version, the changelog and the checkout, build, and tag."
        " Nothing is pushed.",
    )
    parser.add_argument("--dry-run", action="store_true", help="do all that, but do not tag")
    parser.add_argument("--tag", help="only check that this tag fits; for the workflow")
    options = parser.parse_args(arguments)
    try:
        if options.tag:
            problems = problems_of_tag(ROOT, options.tag)
        else:
            problems = problems_of_version(ROOT, datetime.date.today())
            problems += problems_of_checkout(ROOT)
        problems += problems_of_address(ROOT)
        version = version_of(ROOT)
        # A dry run tells of all problems, those of building too.
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
