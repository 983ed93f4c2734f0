"""Forks at any moment of other threads' commands must disturb neither parent nor child."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable

import remctl

from ..run import Run

AT_ONCE = 4  # children
CHILD_LIMIT = 30  # timeout of a child, in whole seconds
WRONG = 3  # exit status of a child whose command got a wrong reply, or none


def forks(run: Run) -> None:
    """Fork while two threads run commands; the children do everything that children may do."""
    with run.session() as one, run.session() as other:

        def exit_at_once() -> None:
            pass

        def close_inherited() -> None:
            one.close()
            other.close()

        def use_inherited() -> None:
            for session in (one, other):
                ask_in_child(session)  # It opens its own connection.
                session.close()

        def open_own() -> None:
            with run.session() as session:
                ask_in_child(session)

        def open_inherited() -> None:
            one.open("localhost", run.port)
            ask_in_child(one)
            one.close()

        works = [exit_at_once, close_inherited, use_inherited, open_own, open_inherited]

        def part(count: int) -> None:
            ended = threading.Event()
            threads = [
                threading.Thread(target=ask_until, args=(run, session, ended))
                for session in (one, other)
            ]
            for thread in threads:
                thread.start()
            children: list[int] = []
            for step in range(count):
                children.append(fork(works[step % len(works)]))
                if len(children) == AT_ONCE:
                    reap(run, children.pop(0))
                run.step()
            for child in children:
                reap(run, child)
            ended.set()
            for thread in threads:
                thread.join()

        run.judge(part)


def ask_until(run: Run, session: remctl.Remctl, ended: threading.Event) -> None:
    """Run commands until an event is set."""
    while not ended.is_set():
        try:
            run.ask(session)
        except Exception as error:
            run.lose(f"during a fork: {type(error).__name__}: {error}")


def ask_in_child(session: remctl.Remctl) -> None:
    """Run a command with a number of the child."""
    number = str(os.getpid())
    if session.run(["number", number]).stdout != f"{number}\n".encode():
        os._exit(WRONG)


def fork(work: Callable[[], None]) -> int:
    """Run a function in a child; return its process id."""
    with warnings.catch_warnings():  # Forking with running threads is what this tests.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        return child
    signal.alarm(CHILD_LIMIT)  # This ends a child that hangs.
    try:
        work()
    except BaseException as error:
        os.write(2, f"in a child: {type(error).__name__}: {error}\n".encode())
        os._exit(1)
    os._exit(0)


def reap(run: Run, child: int) -> None:
    """Check how a child ended."""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        run.note("children that ended well")
    elif code == WRONG:
        run.lose("a child's command got a wrong reply, or none")
    else:
        run.fail(f"a child ended with {code}")
