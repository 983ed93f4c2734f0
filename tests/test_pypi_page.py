"""The page that PyPI shows: README.md, whose links lead somewhere there, too; and its badges."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import remctl  # noqa: E402
from ci import release  # noqa: E402

pytestmark = [pytest.mark.once, pytest.mark.nightly]

REPOSITORY = "https://git.example.org/our/python-remctl"
LINK = re.compile(r"\]\(([^)\s]+)\)")


def page(folder: Path, address: str | None) -> str:
    """Have setup.py make the page in a folder of its own, with this address of the repository."""
    for name in ("README.md", "pyproject.toml", "remctl.py", "setup.py"):
        shutil.copy(ROOT / name, folder)
    project = folder / "pyproject.toml"
    text = re.sub(r"\n\[project\.urls\]\n([^\[\n].*\n)*", "\n", project.read_text())
    if address is not None:
        text += f'\n[project.urls]\nRepository = "{address}"\n'
    project.write_text(text)
    command = [sys.executable, "setup.py", "--quiet", "--long-description"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def test_links_on_pypi_lead_to_the_tag_in_the_repository(tmp_path: Path):
    readme = (ROOT / "README.md").read_text()
    made = page(tmp_path, REPOSITORY)
    assert LINK.sub("]()", made).strip() == LINK.sub("]()", readme).strip()
    tag = f"v{remctl.__version__}"
    kinds = set()
    for before, after in zip(LINK.findall(readme), LINK.findall(made), strict=True):
        if before.startswith(("#", "https://")):
            assert after == before
        elif before.startswith("../../"):
            assert after == f"{REPOSITORY}/{before.removeprefix('../../')}"
        else:
            kind = after.removeprefix(f"{REPOSITORY}/").partition("/")[0]
            assert after == f"{REPOSITORY}/{kind}/{tag}/{before}"
            assert (kind == "raw") == before.endswith(".svg")
            kinds.add(kind)
    assert kinds == {"blob", "raw"}


def test_page_is_the_readme_where_no_address_is_known(tmp_path: Path):
    assert page(tmp_path, None).strip() == (ROOT / "README.md").read_text().strip()


@pytest.mark.parametrize(
    ("urls", "problem"),
    [
        ("", "has no Repository = "),
        ('\n[project.urls]\nIssues = "https://git.example.org/our/it"\n', "has no Repository = "),
        (
            '\n[project.urls]\nRepository = "https://git.example.org/our/it/"\n',
            "without a final slash",
        ),
        ('\n[project.urls]\nRepository = "git@git.example.org:our/it"\n', "an https address"),
        (f'\n[project.urls]\nRepository = "{REPOSITORY}"\n', None),
    ],
)
def test_no_release_without_the_address_that_links_start_with(
    tmp_path: Path, urls: str, problem: str | None
):
    (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "x"\n{urls}')
    problems = release.problems_of_address(tmp_path)
    assert len(problems) == (problem is not None)
    assert problem is None or problem in problems[0]


def test_badges_are_of_workflows_and_say_which():
    badge = r"^\[!\[(\w+)\]\((\S+)/badge\.svg\)\]\((\S+)\)$"
    badges = re.findall(badge, (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(badges) == 5
    for text, shown, linked in badges:
        assert shown == linked == f"../../actions/workflows/{text}.yml"
        workflow = (ROOT / ".github" / "workflows" / f"{text}.yml").read_text()
        assert f"\nname: {text}\n" in workflow
