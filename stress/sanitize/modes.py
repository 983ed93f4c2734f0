"""Compiler flags, environment and tests of each mode."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .place import Broken, Place, runtime_library

HERE = Path(__file__).resolve().parent

# Tests are several times slower, so they need longer timeouts.
PATIENCE = ["-o", "timeout=600", "-p", "stress.sanitize.patience"]

# Tests that fail under a sanitizer for other reasons, by reason.
NOT_MEANT_FOR = {
    "memory": [
        # Measure memory: a sanitizer keeps freed memory, to detect its use.
        "tests/test_leaks.py::test_opening_again_and_again_leaks_nothing",
        "tests/test_leaks.py::test_connections_that_are_refused_leak_nothing",
        "tests/test_leaks.py::test_opens_that_time_out_leak_nothing",
        "tests/test_leaks.py::test_commands_of_one_session_leak_nothing",
        "tests/test_leaks.py::test_looking_at_tickets_that_have_ended_leaks_nothing",
        "tests/test_simple.py::test_output_to_a_file_takes_no_memory",
        "tests/support/test_waiting.py::test_resident_kib",
    ],
    "threads": [
        # Count threads: ThreadSanitizer has its own.
        "tests/test_leaks.py::test_one_thread_serves_all_calls_that_may_block_and_ends",
        "tests/test_leaks.py::test_opens_left_behind_end_with_their_kdc",
        "tests/test_threads.py::test_threads_that_fight_over_a_connection_get_remctl_errors_only",
        "tests/test_waits.py::test_signal_ends_every_wait",
        "tests/aio/test_threads_bounded.py",
        "tests/test_look_ups.py::test_look_ups_that_were_ended_leave_nothing_behind",
        # Start shells and other programs, which do not bear the library that is preloaded, and the
        # commands by a fork in a process with threads; tests/fleet covers their threads as well.
        "tests/cli",
        "tests/test_docs.py::test_the_demo_ends_when_nobody_reads_it",
        # Start programs by way of a shell, which crashes with the library.
        "tests/fleet/test_hosts.py::test_groups_stand_for_their_members_and_may_overlap",
        "tests/fleet/test_hosts.py::test_groups_that_are_not_known_are_refused",
        "tests/test_backend_running.py",
        "tests/test_docs.py::test_test_files_of_the_page_pass",
        "tests/test_packaging.py::test_libremctl_is_built_from_its_release_only",
        # Start a shell on the server.
        "tests/machine",
        # Measure how soon other threads run.
        "tests/test_threads.py::test_other_threads_run_while_a_command_does",
        "tests/test_threads.py::test_other_threads_run_while_the_simple_call_of_the_extension_does",
        "tests/test_threads.py::test_other_threads_run_while_a_server_says_nothing",
        # Preload libraries of their own, or count threads.
        "tests/test_faults.py",
        "tests/hostile/test_promises.py::test_context_without_a_flag_is_refused",
        "tests/hostile/test_promises.py::test_flags_are_not_looked_at_with_protocol_1",
    ],
    "leaks": [
        # A child that inherited a session leaves libremctl's memory alone: see close_inherited().
        "tests/test_fork.py::test_session_survives_a_child_that_inherited_it",
        # Look for leaks themselves; their library stands between the sanitizer and who allocated.
        "tests/test_faults.py",
        # Processes that end while threads of theirs wait, for a resolver say: where such a thread
        # wakes up while Python is ending, Python ends it on the spot, and what it had is lost.
        "tests/fleet/test_sessions.py::test_ctrl_c_ends_the_wait_and_all_that_is_at_work",
        "tests/fleet/test_sessions.py::test_a_process_ends_while_hosts_are_at_work",
        "tests/testing/test_keeper.py",
        "tests/aio/test_stalls.py::test_a_command_beside_stalled_calls_is_not_delayed",
        "tests/aio/test_stalls.py::test_the_interpreter_exits_at_once",
        "tests/pool/test_interruptions.py::test_blocks_and_iterations_of_the_parent",
        "tests/surroundings/test_exit.py::test_daemon_threads_that_wait_do_not_hold_up_the_exit",
        # The same; there the sanitizer itself crashed once, as it looked at such a thread.
        "tests/test_soak.py::test_storm_leaves_everything_flat_and_loses_no_reply[timeouts]",
        # Python and eventlet leave some objects behind, and so do programs without remctl.
        "tests/surroundings/test_greenlets.py",
        "tests/surroundings/test_interpreters.py",
        # Ask for credentials to accept with, of a principal that the keytab lacks: MIT's library
        # loses a copy of the principal, and its stack has no name of its own to be known by.
        "tests/credentials/test_tickets.py::test_bad_input_is_told_at_once",
        "tests/credentials/test_renewal.py::test_what_was_spoilt_is_told",
        "tests/support/test_fakeserver.py::test_missing_keytab_fails_at_once",
        # Programs that never load the extension; Python itself leaves something behind in these.
        "tests/test_backend_config.py",
        # Examples that end with objects of python-gssapi in their globals.
        "tests/test_docs.py",
        # Run programs of all kinds on the server, and kill them.
        "tests/machine",
        "tests/cli/test_rsh.py",
        "tests/cli/test_rsh_tools.py",
    ],
    "programs": [
        # Frees with delete what came from malloc(): groff itself.
        "tests/test_man_pages.py::test_groff_finds_nothing_to_say",
        # Asks aligned_alloc() for a size that is no multiple of the alignment: dd itself.
        "tests/machine/test_plumbum_commands.py::test_octets_in_pipes[sh-far-near]",
        "tests/machine/test_plumbum_commands.py::test_octets_in_pipes[python-far-near]",
    ],
    "preload": [
        # Load the extension below remctld, whose environment names no library to preload.
        "tests/test_docs.py::test_test_files_of_the_page_pass[docs/backends.md]",
        "tests/test_backend_fixture.py::test_a_backend_without_acls_is_for_the_realms_user",
    ],
    "forks": [
        # Fork while a thread allocates: the child may inherit the sanitizer's lock, which nobody
        # releases.
        "tests/test_fork.py::test_child_of_a_fork_beside_a_call_does_not_hang",
        "tests/credentials/test_forks.py::test_a_child_has_the_tickets_and_renews_them_itself",
    ],
    "slow": [
        # Dask complains to its user as soon as its own processes are slow to answer each other.
        "tests/fleet/test_executors.py::test_dask_does_the_work",
    ],
    "build": [
        # Which symbols the extension exports, and what a build has to look like.
        "tests/test_project.py",
        # Run a sanitizer themselves.
        "tests/test_sanitize.py",
    ],
}

Command = list[str]


class Mode(NamedTuple):
    """One way to run the tests."""

    name: str
    title: str
    run: Callable[[Place, Command], int]


def deselect(*reasons: str) -> Command:
    """Return options that deselect tests by reason."""
    return [f"--deselect={test}" for reason in reasons for test in NOT_MEANT_FOR[reason]]


def options(place: Place, name: str, **settings: object) -> str:
    """Return a sanitizer's options; every process writes its findings to its own file."""
    settings["log_path"] = place.reports / name
    return ":".join(f"{key}={value}" for key, value in settings.items())


def run_address(place: Place, arguments: Command) -> int:
    """Run with AddressSanitizer, UndefinedBehaviorSanitizer and LeakSanitizer."""
    environment = build_for_addresses(place, leaks=True)
    skipped = deselect("memory", "build", "programs", "preload", "forks", "slow", "leaks")
    return place.run([*pytest(), *skipped, *(arguments or workers())], environment)


def run_address_only(place: Place, arguments: Command) -> int:
    """Run without LeakSanitizer, by default the tests that run_address() skips."""
    environment = build_for_addresses(place, leaks=False)
    skipped = deselect("memory", "build", "programs", "preload", "forks", "slow")
    chosen = arguments or [*workers(), *NOT_MEANT_FOR["leaks"]]
    return place.run([*pytest(), *skipped, *chosen], environment)


def build_for_addresses(place: Place, *, leaks: bool) -> dict[str, str]:
    """Build the extension with both sanitizers; return the variables to run it with."""
    # greenlet throws exceptions of C++: their library has to be there when the sanitizer starts.
    library = f"{runtime_library('libasan.so')}:{runtime_library('libstdc++.so.6')}"
    # Python compiles with -fwrapv, with which an overflow is not undefined.
    compiler = place.build("-fsanitize=address,undefined -fno-wrapv")
    address: dict[str, object] = {
        "halt_on_error": 1,
        "verify_asan_link_order": 0,  # test_faults.py preloads a library of its own, before it
        "detect_leaks": 0,  # ignore compilers, shells and the remctl client
    }
    if leaks:
        address["include_if_exists"] = leak_options(place)
    return {
        **compiler,
        "LD_PRELOAD": library,
        "PYTHONMALLOC": "malloc",
        "LSAN_OPTIONS": f"suppressions={leak_suppressions(place)}:print_suppressions=0",
        "UBSAN_OPTIONS": options(place, "undefined", print_stacktrace=1, halt_on_error=1),
        "ASAN_OPTIONS": options(place, "address", **address),
    }


def leak_options(place: Place) -> str:
    """Enable leak detection for this interpreter, by an options file with its name."""
    folder = place.checkout / "asan"
    folder.mkdir(exist_ok=True)
    program = Path(sys.executable)
    for name in {program.name, program.resolve().name}:  # Either may be used.
        (folder / name).write_text("detect_leaks=1\n")
    return f"{folder}/%b"


def leak_suppressions(place: Place) -> Path:
    """Write the suppressions, including the system's Python, unless this is it."""
    lines = (HERE / "leaks.txt").read_text()
    if sys.base_prefix != "/usr":
        lines += "# Runs the existing binding, in some tests.\nleak:/usr/bin/python3\n"
    if sys.version_info >= (3, 12):
        lines += "# Interned strings live for ever.\nleak:PyUnicode_New\nleak:resize_compact\n"
    written = place.checkout / "asan" / "leaks.txt"
    written.parent.mkdir(exist_ok=True)
    written.write_text(lines)
    return written


def run_threads(place: Place, arguments: Command) -> int:
    """Run with ThreadSanitizer on this Python, to check the extension's own threads."""
    library = runtime_library("libtsan.so")
    place.build("-fsanitize=thread")
    environment = {"LD_PRELOAD": library, "TSAN_OPTIONS": thread_options(place)}
    skipped = deselect("memory", "threads", "build", "preload", "forks", "slow")
    return place.run([*pytest(), *skipped, *(arguments or workers())], environment)


def thread_options(place: Place) -> str:
    """Return ThreadSanitizer's options."""
    return options(
        place,
        "thread",
        suppressions=HERE / "threads.txt",
        ignore_noninstrumented_modules=1,  # the interpreter and Kerberos
        die_after_fork=0,  # the tests fork while other threads run
        exitcode=66,
    )


def run_free_threaded(place: Place, arguments: Command) -> int:
    """Run on a Python without the GIL, with ThreadSanitizer if that was built with it."""
    python = free_threaded_python()
    environment = {}
    if sanitized(python):
        place.build("-fsanitize=thread", python)
        environment = {"TSAN_OPTIONS": thread_options(place)}
    else:
        place.build("", python)
    skipped = deselect("memory", "threads", "build", "preload", "forks", "slow")
    return place.run([*pytest(python), *skipped, *(arguments or workers())], environment)


def free_threaded_python() -> str:
    """Find the interpreter: REMCTL_FREE_THREADED, or python3.13t or later on PATH."""
    named = os.environ.get("REMCTL_FREE_THREADED")
    for name in [named] if named else ["python3.14t", "python3.13t"]:
        path = shutil.which(name)
        if path and ask(path, "Py_GIL_DISABLED") == "1":
            return path
    raise Broken(
        "no free-threaded Python: build one (see docs/sanitizers.md), and set its path in"
        " REMCTL_FREE_THREADED"
    )


def sanitized(python: str) -> bool:
    """Return whether an interpreter itself was built with ThreadSanitizer."""
    return "--with-thread-sanitizer" in ask(python, "CONFIG_ARGS")


def ask(python: str, variable: str) -> str:
    """Return a configuration variable of an interpreter."""
    code = f"import sysconfig; print(sysconfig.get_config_var({variable!r}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def run_valgrind(place: Place, arguments: Command) -> int:
    """Run some tests under valgrind's memcheck, which also checks Kerberos and libremctl."""
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        raise Broken("valgrind is not installed")
    place.build("-O0")
    command = [
        valgrind,
        "--quiet",
        "--error-exitcode=9",
        "--leak-check=full",
        "--show-leak-kinds=definite",
        "--errors-for-leak-kinds=definite",
        "--undef-value-errors=no",  # The interpreter has some of its own.
        "--trace-children=yes",
        "--trace-children-skip=*/krb5kdc,*/kadmin.local,*/kdb5_util,*/kinit,*/remctld,/bin/*",
        f"--suppressions={HERE / 'valgrind.txt'}",
        f"--log-file={place.reports / 'valgrind.%p'}",
    ]
    chosen = arguments or ["tests/test_low_level.py", "tests/test_protocols.py"]
    status = place.run([*command, *pytest(), "-p", "no:xdist", *chosen], {"PYTHONMALLOC": "malloc"})
    for report in place.reports.iterdir():  # valgrind makes one for each process.
        if not report.read_text().strip():
            report.unlink()
    return status


def pytest(python: str = sys.executable) -> Command:
    """Return the pytest command for all sanitizers."""
    return [python, "-m", "pytest", *PATIENCE]


def workers() -> Command:
    """Return the default arguments of pytest: all tests, several at a time."""
    return ["-n", str(os.cpu_count() or 1), "--everything"]


MODES = {
    mode.name: mode
    for mode in (
        Mode("address", "AddressSanitizer, UBSan and LeakSanitizer; most tests", run_address),
        Mode("address-only", "AddressSanitizer and UBSan; the rest of the tests", run_address_only),
        Mode("threads", "ThreadSanitizer on this Python; most tests", run_threads),
        Mode("free-threaded", "a Python without the GIL; most tests", run_free_threaded),
        Mode("valgrind", "valgrind's memcheck; some tests", run_valgrind),
    )
}
