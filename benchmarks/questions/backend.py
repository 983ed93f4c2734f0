"""Time of a small backend: one command through remctld, which starts a process for it.

Python runs from a virtual environment with a normal installation, because a checkout's editable
installation starts more slowly.
"""

from __future__ import annotations

import shutil
import subprocess
import time
import venv
from pathlib import Path

import remctl
import remctl_toolkit
from remctl_toolkit.testing import Command, RemctldServer

from ..figures import Sample, Spread, Target
from ..place import ROOT, Place
from ..race import Race, count_for, run
from ..report import Answer, Bar, Row

_OURS = "remctl_toolkit.backend"
_PERL = "Net::Remctl::Backend"
_BARE = "Python that prints"
_SHELL = "sh that echoes"
_WHAT = "a command of a small backend, ms"
_ANSWER = b"alice: 10 GB\n"
_PEERS = ROOT / "benchmarks" / "peers"


class _Caller:
    """Caller of one backend, over an open session."""

    def __init__(self, session: remctl.Remctl, command: str) -> None:
        self._session = session
        self._command = (command, "show", "alice")

    def go(self, count: int) -> Sample:
        start = time.perf_counter()
        for _ in range(count):
            if self._session.run(self._command).stdout != _ANSWER:
                raise RuntimeError(f"wrong output of {self._command[0]}")
        return Sample(time.perf_counter() - start, 0.0)


def ask(place: Place) -> Answer:
    """Measure."""
    perl = _perl_version()
    scripts = _scripts(place, with_perl=perl is not None)
    commands = [Command(f"c{number}", script=text) for number, text in enumerate(scripts.values())]
    with (
        RemctldServer(place.realm, commands) as server,
        place.realm.environ(),
        remctl.Remctl(server.host, server.port, server.principal) as session,
    ):
        callers = {key: _Caller(session, f"c{number}") for number, key in enumerate(scripts)}
        counts = {key: count_for(c, place.effort.seconds) for key, c in callers.items()}
        found = run(callers, counts, place.effort.rounds, place.progress)
    facts = [f"Backends: {_PERL} {perl}."] if perl else []
    bars = [Bar(key, _milliseconds(found, key), key == _OURS) for key in scripts]
    axis = "milliseconds for a command, through remctld (less is better)"
    return Answer(_rows(found), bars, axis, facts)


def _milliseconds(found: Race, key: str) -> Spread:
    return Spread.of([1000 * seconds for seconds in found.times(key)])


def _rows(found: Race) -> list[Row]:
    ours = _milliseconds(found, _OURS)
    rows = [Row(_WHAT, "the limit", ours, compared=ours, unit="ms", target=Target(40, False))]
    target = Target(1, at_least=False)
    if _PERL in found.samples:
        # Rates are the inverse of times.
        ratio = found.ratio(_PERL, _OURS)
        rows.append(Row(_WHAT, _PERL, ours, _milliseconds(found, _PERL), ratio, target=target))
    else:
        note = "libnet-remctl-perl is not installed"
        rows.append(Row(_WHAT, _PERL, ours, target=target, note=note))
    for key in (_BARE, _SHELL):
        pairs = zip(found.times(_OURS), found.times(key), strict=True)
        more = Spread.of([1000 * (mine - theirs) for mine, theirs in pairs])
        rows.append(Row(_WHAT, key, ours, _milliseconds(found, key), more, unit="ms more"))
    return rows


def _scripts(place: Place, *, with_perl: bool) -> dict[str, str]:
    """Return the programs, by contestant."""
    python = _python_of_a_user(place)
    scripts = {
        _OURS: f"#!{python} -I\n{(_PEERS / 'backend_ours.py').read_text()}",
        _BARE: f"#!{python} -I\nprint('alice: 10 GB')\n",
        _SHELL: "#!/bin/sh\necho 'alice: 10 GB'\n",
    }
    if with_perl:
        scripts[_PERL] = f"#!/usr/bin/perl\n{(_PEERS / 'backend_perl.pl').read_text()}"
    return scripts


def _python_of_a_user(place: Place) -> Path:
    """Return an interpreter that has the package installed."""
    place.progress("making a virtual environment")
    folder = place.realm.tmpdir / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    ours = Path(remctl_toolkit.__file__).parent
    (packages / "remctl_toolkit").mkdir()
    shutil.copy(ours / "__init__.py", packages / "remctl_toolkit")
    shutil.copytree(
        ours / "backend",
        packages / "remctl_toolkit" / "backend",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return folder / "bin" / "python"


def _perl_version() -> str | None:
    """Return the versions of Net::Remctl::Backend and Perl; None if not installed."""
    code = 'print "$Net::Remctl::Backend::VERSION, Perl $^V"'
    try:
        found = subprocess.run(
            ["/usr/bin/perl", "-MNet::Remctl::Backend", "-e", code], capture_output=True, text=True
        )
    except OSError:
        return None
    return found.stdout if found.returncode == 0 else None
