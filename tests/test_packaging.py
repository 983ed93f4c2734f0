"""The building of distributions, and the files for GitHub; ./run wheel does the heavy part."""

from __future__ import annotations

import datetime
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT))  # ci is not installed

from ci import building, checking, release, trying  # noqa: E402
from ci.shell import Failed  # noqa: E402

pytestmark = pytest.mark.once

TODAY = datetime.date(2027, 1, 31)
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

needs_git = pytest.mark.skipif(not shutil.which("git"), reason="git is not installed")


# --- A release ---


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout that could be released."""
    (tmp_path / "remctl.py").write_text('"""A module."""\n\n__version__ = "4.1.0"\n')
    changelog = "# Changelog\n\n## Unreleased\n\n## 4.1.0 (2027-01-31)\n\n### Added\n\n- A thing.\n"
    (tmp_path / "CHANGELOG.md").write_text(changelog)
    (tmp_path / ".gitignore").write_text(".venv/\n")
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message=all")
    (tmp_path / ".venv").mkdir()
    (tmp_path / release.GREEN).write_text(release.git(tmp_path, "rev-parse", "HEAD") + "\n")
    return tmp_path


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@needs_git
def test_release_that_is_ready(checkout: Path):
    assert release.problems_of_version(checkout, TODAY) == []
    assert release.problems_of_checkout(checkout) == []
    assert release.problems_of_tag(checkout, "v4.1.0") == []


@needs_git
@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("remctl.py", "4.1.0", "4.1.0.dev0", "not a version to release"),
        ("remctl.py", "4.1.0", "4.2.0", r"needs a section `## 4\.2\.0 \(2027-01-31\)`"),
        ("CHANGELOG.md", "2027-01-31", "2027-01-30", "dates 4.1.0 2027-01-30"),
        ("CHANGELOG.md", "Unreleased\n", "Unreleased\n\n- Another.\n", "under Unreleased"),
    ],
)
def test_release_whose_version_is_not_ready(
    checkout: Path, file: str, old: str, new: str, problem: str
):
    change(checkout / file, old, new)
    problems = release.problems_of_version(checkout, TODAY)
    assert [line for line in problems if re.search(problem, line)]


@needs_git
def test_release_of_a_checkout_that_is_not_ready(checkout: Path):
    (checkout / release.GREEN).unlink()
    git(checkout, "tag", "v4.1.0")
    git(checkout, "switch", "--quiet", "--create", "other")
    (checkout / "new.py").touch()
    problems = "\n".join(release.problems_of_checkout(checkout))
    for problem in ("this is other", "uncommitted", "tag v4.1.0 already exists", "not passed"):
        assert problem in problems


@needs_git
def test_commit_after_the_one_that_passed_has_not_passed(checkout: Path):
    git(checkout, "commit", "--quiet", "--allow-empty", "--message=more")
    assert release.problems_of_checkout(checkout) == [
        "this commit has not passed lint and tests: run .ci/run"
    ]


@needs_git
def test_tag_of_another_version_is_not_published(checkout: Path):
    assert release.problems_of_tag(checkout, "v4.1.1") == [
        "the tag v4.1.1 does not match the version 4.1.0"
    ]


def test_version_that_a_release_would_have():
    import remctl

    assert release.version_of(ROOT) == remctl.__version__


# --- Wheels ---


def test_what_readelf_says():
    section = (
        " 0x01 (NEEDED)             Shared library: [libgssapi_krb5.so.2]\n"
        " 0x01 (NEEDED)             Shared library: [libc.so.6]\n"
        " 0x1d (RUNPATH)            Library runpath: [/opt/python/lib]\n"
    )
    assert checking.needed(section) == ["libgssapi_krb5.so.2", "libc.so.6"]
    assert checking.run_paths(section) == ["/opt/python/lib"]


def test_what_nm_says():
    symbols = "  U fcntl64@GLIBC_2.28\n  U free@GLIBC_2.2.5\n  U krb5_cc_close@krb5_3_MIT\n"
    assert checking.glibc_versions(symbols) == {(2, 28), (2, 2)}


SBOM = "p-1.dist-info/sboms/libremctl.cdx.json"
LICENCES = ["p-1.dist-info/licenses/LICENSE", "p-1.dist-info/licenses/LICENSE.libremctl", SBOM]


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ([*LICENCES, "_remctl.abi3.so", "p.libs/libremctl-1234.so.1"], "no library"),
        ([*LICENCES, "_remctl.cpython-311-x86_64-linux-gnu.so"], "not for every Python"),
        ([LICENCES[0], "_remctl.abi3.so"], "LICENSE.libremctl is not in the wheel"),
        ([*LICENCES[:2], "_remctl.abi3.so"], "the SBOM of what is linked in is not in the wheel"),
    ],
)
def test_wheel_that_is_not_as_it_must_be(names: list[str], problem: str):
    checking.check_names([*LICENCES, "_remctl.abi3.so"], abi3=True)
    with pytest.raises(Failed, match=problem):
        checking.check_names(names, abi3=True)


def test_extension_that_needs_libremctl_is_found_out():
    """That of this checkout is linked with the system's libremctl."""
    import _remctl

    if "libremctl" not in subprocess.run(
        ["readelf", "-d", _remctl.__file__], capture_output=True, text=True, check=True
    ).stdout.replace("libremctl.so.1", "libremctl"):
        pytest.skip("libremctl is linked statically")
    with pytest.raises(Failed, match=r"libremctl\.so\.1|does not use|has a RUNPATH"):
        checking.check_extension(Path(_remctl.__file__))


def test_trial_runs_tests_that_are_there():
    assert [name for name in trying.TESTS if not (ROOT / name).exists()] == []


def test_libremctl_is_built_from_its_release_only(tmp_path: Path):
    """Nothing that has another checksum is unpacked."""
    other = tmp_path / "remctl-3.18.tar.xz"
    other.write_bytes(b"something else")
    done = subprocess.run(
        ["sh", str(ROOT / "ci" / "build-libremctl.sh"), str(tmp_path / "built")],
        env={**os.environ, "REMCTL_TARBALL": str(other)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 69
    assert "SHA-256 should be 69980a00" in done.stderr
    assert not (tmp_path / "built" / "lib").exists()


def test_build_with_an_old_libremctl_says_so(tmp_path: Path):
    (tmp_path / "remctl.h").write_text("struct remctl *remctl_new(void);\n")
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", f"-t{tmp_path}", f"-b{tmp_path}"],
        cwd=ROOT,
        env={**os.environ, "REMCTL_CFLAGS": f"-I{shlex.quote(str(tmp_path))}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "remctl_open_fd" in done.stderr
    assert "3.13 or later is needed" in done.stderr


def test_cibuildwheel_leaves_kerberos_out_as_run_wheel_does():
    command = PROJECT["tool"]["cibuildwheel"]["linux"]["repair-wheel-command"]
    words = shlex.split(command)
    excluded = [words[n + 1] for n, word in enumerate(words) if word == "--exclude"]
    assert tuple(excluded) == building.KERBEROS


def test_policies_name_the_libremctl_of_wheels():
    script = (ROOT / "ci" / "build-libremctl.sh").read_text()
    version = re.search(r"^version=(\S+)$", script, re.MULTILINE)
    assert version
    policies = (ROOT / "docs" / "policies.md").read_text()
    assert f"Wheels contain libremctl {version[1]}," in policies


# --- What GitHub reads ---


def uses() -> list[tuple[str, str]]:
    """Return (workflow, what it uses), for all actions that are not our own."""
    found = []
    for workflow in WORKFLOWS:
        for line in re.findall(r"uses: (.*)", workflow.read_text()):
            if not line.startswith("./"):
                found.append((workflow.name, line))
    return found


def test_actions_are_pinned_by_commit():
    """A tag can be moved to other code; the version next to it is for people and Dependabot."""
    loose = [u for u in uses() if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", u[1])]
    assert uses()
    assert loose == []
    by_name = {line.partition("@")[0]: line for _, line in uses()}
    assert {line for _, line in uses()} == set(by_name.values())


def test_workflows_start_without_permissions():
    assert WORKFLOWS
    for workflow in WORKFLOWS:
        assert "\npermissions: {}\n" in workflow.read_text(), workflow.name


def test_workflows_call_commands_that_there_are():
    commands = set(re.findall(r"^cmd_(\w+)\(\)", (ROOT / "run").read_text(), re.MULTILINE))
    for workflow in WORKFLOWS:
        called = set(re.findall(r"\./run (\w+)", workflow.read_text()))
        assert called <= commands, workflow.name


def test_every_python_that_is_promised_is_tested():
    workflow = (ROOT / ".github" / "workflows" / "nightly.yml").read_text()
    matrix = re.search(r"python: \[(.*)\]", workflow)
    assert matrix
    tested = set(re.findall(r'"([\d.]+t?)"', matrix[1]))
    classifiers = PROJECT["project"]["classifiers"]
    promised = {line.split()[-1] for line in classifiers if re.search(r":: 3\.\d+$", line)}
    supported = re.search(r'^supported="(.*)"$', (ROOT / "run").read_text(), re.MULTILINE)
    assert supported
    assert promised == set(supported[1].split())
    assert promised <= tested
