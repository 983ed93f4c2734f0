"""The project itself: its version, distributions, exported symbols, files and ./run."""

import ast
import fnmatch
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import _remctl
import pytest

import remctl

ROOT = Path(__file__).resolve().parent.parent
LIMITED_API = not sysconfig.get_config_var("Py_GIL_DISABLED")


def made_not_written(name: str) -> bool:
    """Tell whether .gitignore lists a file or folder of this name."""
    lines = (ROOT / ".gitignore").read_text().splitlines()
    patterns = [line.rstrip("/") for line in lines if line and not line.startswith("#")]
    return name == ".git" or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def project_files() -> list[Path]:
    """Return every file of the project, whether or not this is a git checkout."""
    files = []
    for folder, subfolders, names in os.walk(ROOT):
        subfolders[:] = sorted(name for name in subfolders if not made_not_written(name))
        files += [Path(folder, name) for name in sorted(names) if not made_not_written(name)]
    return files


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# --- The version ---


def test_one_version():
    """remctl.__version__ is what the installed distribution and the extension say."""
    assert importlib.metadata.version("python-remctl") == remctl.__version__
    assert remctl.__version__ == _remctl.VERSION


@pytest.mark.once
def test_version_is_written_once():
    """Only the recipes of distributions repeat it, and changelogs, which tell of versions."""
    users = [
        relative(path)
        for path in project_files()
        if path.suffix != ".md" and f'"{remctl.__version__}"' in path.read_text(errors="replace")
    ]
    assert [name for name in users if not name.startswith("packaging/")] == ["remctl.py"]


@pytest.mark.once
@pytest.mark.skipif(not (ROOT / "debian").exists(), reason="not in an sdist")
def test_packages_have_this_version():
    tilde = re.sub(r"\.?((a|b|rc|dev)\d+)$", r"~\1", remctl.__version__)
    changelog = (ROOT / "debian" / "changelog").read_text()
    spec = (ROOT / "packaging" / "fedora" / "python-remctl.spec").read_text()
    recipe = (ROOT / "packaging" / "conda-forge" / "meta.yaml").read_text()
    assert changelog.startswith(f"python-remctl ({tilde}-")
    assert re.search(rf"^Version: +{re.escape(tilde)}$", spec, re.MULTILINE)
    assert spec.count(remctl.__version__) == 2
    assert f'{{% set version = "{remctl.__version__}" %}}' in recipe


# --- The extension ---


def test_extension_exports_its_init_function_only():
    """Any other symbol could clash with one of another library in the process."""
    nm = shutil.which("nm")
    assert nm, "nm comes with the compiler"
    symbols = subprocess.run(
        [nm, "-D", "--defined-only", _remctl.__file__], capture_output=True, text=True, check=True
    ).stdout
    assert [line.split()[-1] for line in symbols.splitlines()] == ["PyInit__remctl"]


# --- The distributions ---


def test_bindings_depend_on_nothing():
    """Whatever is required is required by an extra."""
    requirements = importlib.metadata.requires("python-remctl") or []
    assert [line for line in requirements if "extra ==" not in line] == []


def test_entry_points_lead_somewhere():
    for entry_point in importlib.metadata.distribution("python-remctl").entry_points:
        assert entry_point.load()


def build(kind: str, source: Path, target: Path) -> Path:
    """Build the sdist or wheel of a source tree, without the network, and return its path."""
    code = f"import sys, setuptools.build_meta as b; print(b.build_{kind}(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(target)],
        cwd=source,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return target / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, built from a copy: a build leaves folders behind."""
    source = tmp_path_factory.mktemp("source") / "tree"
    shutil.copytree(
        ROOT, source, ignore=lambda _, names: [name for name in names if made_not_written(name)]
    )
    return build("sdist", source, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist and from nothing else."""
    source = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        if hasattr(tarfile, "data_filter"):  # not so in 3.11.0 to 3.11.3; asked for by 3.12
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(source)
    (tree,) = source.iterdir()
    return build("wheel", tree, tmp_path_factory.mktemp("wheel"))


@pytest.mark.once
def test_sdist_holds_the_whole_project(sdist: Path):
    """The sdist is enough to test it, change it and build the next one."""
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    missing = {relative(path) for path in project_files()} - names
    uses_them = {"benchmarks", "faults", "fuzz_corpus", "readme", "sanitize", "soak"}
    missing -= {f"tests/test_{name}.py" for name in uses_them}
    assert {name.partition("/")[0] for name in missing} <= {
        *("benchmarks", "debian", "packaging", "stress")
    }


def test_wheel_serves_every_later_python(wheel: Path):
    """One binary by the limited API; a free-threaded Python has none, and its own wheel."""
    assert ("-cp311-abi3-" in wheel.name) == LIMITED_API


@pytest.mark.once
def test_wheel_holds_modules_types_and_nothing_else(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    top_level = {name.partition("/")[0] for name in names}
    (extension,) = (name for name in top_level if name.startswith("_remctl."))
    (dist_info,) = (name for name in top_level if name.endswith(".dist-info"))
    data = f"{dist_info.removesuffix('.dist-info')}.data"
    parts = {path.name for path in ROOT.glob("_remctl_*.py")}
    modules = {"remctl.py", extension, "remctl_toolkit", "ansible_collections", *parts}
    assert top_level == modules | {"remctl-stubs", "_remctl-stubs", dist_info, data}
    shared = {relative(path) for path in project_files() if relative(path).startswith("share/")}
    assert {name for name in names if name.startswith(data)} == {
        f"{data}/data/{path}" for path in shared
    }

    installed = ("remctl_toolkit", "remctl-stubs", "_remctl-stubs", "ansible_collections")
    expected = {relative(p) for p in project_files() if relative(p).startswith(installed)}
    assert expected <= names
    assert {
        "remctl-stubs/__init__.pyi",
        "_remctl-stubs/__init__.pyi",
        "remctl_toolkit/py.typed",
        f"{dist_info}/licenses/LICENSE",
    } <= names


def test_wheel_works_on_its_own(wheel: Path, tmp_path: Path):
    """Unpacked, away from the checkout, it imports: nothing is missing from it."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import remctl, _remctl, remctl_toolkit;"
        "print(remctl.__file__, _remctl.__file__, remctl_toolkit.__file__, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(line.startswith(f"{tmp_path}/") for line in done.stdout.splitlines())


@pytest.mark.once
def test_ansible_finds_the_collection_of_the_wheel(wheel: Path, tmp_path: Path):
    """It looks for collections wherever Python looks for packages."""
    try:
        importlib.metadata.version("ansible-core")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("ansible-core is not installed: it has no version for this Python")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    for kind in ("connection", "module"):
        done = subprocess.run(
            [sys.executable, "-m", "ansible", "doc", "-t", kind, "remctl.toolkit.remctl"],
            cwd=tmp_path,
            env={**os.environ, "ANSIBLE_HOME": str(tmp_path), "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert f"({tmp_path}/ansible_collections/remctl/toolkit/plugins/" in done.stdout


def test_build_without_the_limited_api_works_and_needs_no_shared_gil(tmp_path: Path):
    """The second build, which free-threaded Pythons get, is one for any Python.

    An interpreter with a GIL of its own takes only extensions that declare support for this.
    """
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", f"-t{tmp_path}", f"-b{tmp_path}"],
        cwd=ROOT,
        env={**os.environ, "REMCTL_FULL_API": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.glob("*.so")] == [
        "_remctl" + sysconfig.get_config_var("EXT_SUFFIX")
    ]
    load = (
        "import sys; sys.path.insert(0, sys.argv[1]); import _remctl;"
        "assert _remctl.__file__.startswith(sys.argv[1]); _remctl.remctl_new()"
    )
    apart = (
        "import sys, _interpreters as each; one = each.create('isolated');"
        f"error = each.exec(one, f'import sys; sys.argv = {{sys.argv!r}}; ' + {load!r});"
        "assert error is None, error; each.destroy(one)"
    )
    for code in (load, apart) if sys.version_info >= (3, 13) else (load,):
        subprocess.run([sys.executable, "-I", "-c", code, str(tmp_path)], check=True)


@pytest.mark.skipif(LIMITED_API, reason="only a free-threaded Python runs without the GIL")
def test_free_threaded_python_keeps_the_gil_off():
    code = "import sys, _remctl, remctl; sys.exit(sys._is_gil_enabled())"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_extension_built_with_later_headers_serves_python_3_11():
    """No Py_RETURN_NONE, which takes no reference in 3.12; no "#" formats, not the same in 3.13."""
    sources = [ROOT / "_remctl.c", *(ROOT / "src").glob("*.c")]
    code = [re.sub(r"/\*.*?\*/", "", source.read_text(), flags=re.DOTALL) for source in sources]
    assert [text for text in code if re.search(r"\bPy_RETURN_NONE\b", text)] == []
    assert [text for text in code if re.search(r'"[^"]*[a-z]#[^"]*"', text)] == []
    before = sys.getrefcount(None)
    for _ in range(1000):
        _remctl.remctl_close(_remctl.remctl_new())
    assert sys.getrefcount(None) > before - 500


@pytest.mark.once
def test_build_without_libremctl_says_what_to_install(tmp_path: Path):
    """A missing header ends in one message, not in what the compiler thinks of it."""
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'fatal error: remctl.h: No such file' >&2\nexit 1\n")
    compiler.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", f"-t{tmp_path}", f"-b{tmp_path}"],
        cwd=ROOT,
        env={**os.environ, "CC": str(compiler)},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "fatal error" not in done.stderr
    for package in ("libremctl-dev", "remctl-devel", "brew install remctl"):
        assert package in done.stderr


def test_build_without_a_compiler_says_what_to_install(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", f"-t{tmp_path}", f"-b{tmp_path}"],
        cwd=ROOT,
        env={**os.environ, "CC": str(tmp_path / "no-such-compiler")},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "no-such-compiler" in done.stderr
    for package in ("apt-get install gcc", "dnf install gcc", "xcode-select --install"):
        assert package in done.stderr


def test_an_older_python_is_refused_in_one_line(tmp_path: Path):
    """pip runs setup.py before it compares versions."""
    program = "import sys; sys.version_info = (3, 10, 1); exec(open('setup.py').read())"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "Python 3.11 or later is required, this is 3.10\n"


# --- The files ---

# How a file begins that says what it is for, by suffix. In others, # opens a comment.
OPENINGS = {
    ".1": r"\.",
    ".c": r"/\*[\s*]*\w",
    ".css": r"/\*[\s*]*\w",
    ".h": r"/\*[\s*]*\w",
    ".md": r"# \S",
    ".rst": r"\S",
    ".svg": r"<",
    ".txt": r"\S",
}
HASH_COMMENT = r"(#(!|compdef).*\n)?# \S"
WITHOUT_OPENING = {"LICENSE", "py.typed"}


def says_what_it_is_for(path: Path) -> bool:
    if path.name in WITHOUT_OPENING:
        return True
    text = path.read_text(encoding="utf-8")
    if path.suffix in (".py", ".pyi"):
        return bool(ast.get_docstring(ast.parse(text)))
    return bool(re.match(OPENINGS.get(path.suffix, HASH_COMMENT), text))


@pytest.mark.once
def test_files_open_with_what_they_are_for():
    """A module by its docstring, any other file by a comment or heading at the top."""
    silent = [relative(path) for path in project_files() if not says_what_it_is_for(path)]
    # Their names and forms are Debian's.
    assert [name for name in silent if not name.startswith("debian/")] == []


# --- ./run ---


@pytest.mark.once
def test_run_help_lists_every_command():
    script = (ROOT / "run").read_text()
    commands = set(re.findall(r"^cmd_(\w+)\(\)", script, re.MULTILINE))
    assert {"help", "demo", "test", "lint"} <= commands
    page = subprocess.run([ROOT / "run", "help"], capture_output=True, text=True, check=True).stdout
    listed = set(re.findall(r"^  ([a-z]+)\b", page, re.MULTILINE))
    assert listed == commands


@pytest.mark.once
def test_run_refuses_an_unknown_command():
    done = subprocess.run([ROOT / "run", "tset"], capture_output=True, text=True)
    assert done.returncode == os.EX_USAGE
    assert "no command tset" in done.stderr
