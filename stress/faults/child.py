"""One scenario, again and again, with one call failing each time; in a process of its own.

The parent preloads `libfaults.so`, puts the extension's folder in front of the import path, and
gives the scenario's name and the servers' ports as JSON.  Each finding is one line of output, in
JSON; the last line lists the calls that can fail.  On standard error, the last line tells the fault
that is being tried, which matters after a crash.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import json
import re
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from support.waiting import open_descriptors, thread_count

PATIENCE = 5.0  # seconds for threads to end
HANG = 30.0  # seconds after which a run has hung
ROUNDS = 6  # runs of a fault, at most, until one has cost nothing


class Fault(NamedTuple):
    """The call that fails: its site, and how often that is passed until then."""

    site: str
    number: int

    def __str__(self) -> str:
        return f"{self.site} #{self.number}"


class Books:
    """What the preloaded library counts."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.faults_blocks.restype = ctypes.c_size_t

    def locate(self) -> bool:
        """Have it find the extension and libremctl, once they are loaded."""
        return bool(self._library.faults_locate())

    def start(self, fault: Fault | None) -> None:
        """Count anew, and let that call fail."""
        site, number = fault or ("", 0)
        self._library.faults_start(site.encode(), number)

    def pause(self, paused: bool) -> None:
        """Count nothing for a while, or go on."""
        self._library.faults_pause(paused)

    def stop(self) -> bool:
        """Count no more; whether the call was made, and failed."""
        return bool(self._library.faults_stop())

    def passed(self) -> list[Fault]:
        """List all calls that were counted."""
        name = ctypes.create_string_buffer(128)
        faults: list[Fault] = []
        index = 0
        while count := self._library.faults_site(ctypes.c_size_t(index), name, len(name)):
            faults += [Fault(name.value.decode(), number + 1) for number in range(count)]
            index += 1
        return faults

    def blocks(self) -> int:
        """How many blocks of C memory the bindings and libremctl hold."""
        return int(self._library.faults_blocks())


class Held(NamedTuple):
    """What the process holds, and must not hold more of."""

    descriptors: int
    threads: int
    blocks: int  # of C memory
    objects: int  # blocks of Python's memory
    references: int  # to what nobody owns: too few would be as bad


class Run(NamedTuple):
    """A scenario that was run: what came out, and what it held on to."""

    outcome: str  # the name of an exception, or "same"
    text: str
    fired: bool
    wrong: tuple[str, ...]


class Experiment:
    """A scenario, and what comes out of it when no call fails."""

    def __init__(self, name: str, ports: dict[str, int]) -> None:
        from .scenarios import SCENARIOS, Lab

        self.name = name
        self.scenario = SCENARIOS[name]
        self.lab = Lab
        self.ports = ports
        self.books = Books()
        self.unraisable: list[str] = []
        self.threads = thread_count()  # The main one, and the one that watches for a hang.
        sys.unraisablehook = lambda hook: self.unraisable.append(f"{hook.exc_value!r}")
        if not self.books.locate():
            raise SystemExit("the extension or libremctl is not where it was expected")
        for _ in range(3):  # What is made at the first time only: imports, caches.
            self.normal = self.attempt(None)[0]
        gc.collect()
        gc.freeze()

    def attempt(self, fault: Fault | None) -> tuple[object, BaseException | None, bool]:
        """Run the scenario; return its result, its exception, and whether the fault occurred."""
        lab = self.lab(self.ports, self.books.pause)
        result, error = None, None
        self.await_threads()
        self.books.start(fault)
        try:
            result = self.scenario(lab)
        except BaseException as caught:
            error = caught.with_traceback(None)
            error.__context__ = error.__cause__ = None
        fired = self.books.stop()
        if fault is None and error is not None:
            raise error
        lab.check()
        lab.tidy()
        return result, error, fired

    def run(self, fault: Fault | None) -> Run:
        """Run the scenario with a fault, and look at what is wrong then."""
        self.unraisable.clear()
        result, error, fired = self.attempt(fault)
        wrong = list(self.unraisable)
        outcome, text = "same", ""
        if error is not None:
            outcome, text = type(error).__name__, str(error)
        elif result != self.normal:
            outcome, text = "other", repr(result)
        return Run(outcome, text, fired, tuple(wrong))

    def await_threads(self) -> None:
        """Wait for the bindings' threads: they make calls, and hold memory."""
        end = time.monotonic() + PATIENCE
        while thread_count() > self.threads and time.monotonic() < end:
            time.sleep(0.0002)

    def held(self) -> Held:
        """Look at what the process holds now."""
        self.await_threads()
        gc.collect()
        sys._clear_type_cache()  # It keeps the names of attributes that were asked for.
        return Held(
            open_descriptors(),
            thread_count(),
            self.books.blocks(),
            sys.getallocatedblocks(),
            sum(map(sys.getrefcount, (None, True, False, (), b"", 0))),
        )

    def faults(self) -> list[Fault]:
        """List what can be made to fail."""
        from .scenarios import ONLY

        self.attempt(None)
        only = re.compile(ONLY.get(self.name, ""))
        return [fault for fault in self.books.passed() if only.match(fault.site)]

    def leak(self, fault: Fault | None) -> str:
        """Run until a run leaves things as they were; say what grows if none does."""
        growing = set(Held._fields)
        before = self.held()
        for _ in range(ROUNDS):
            self.run(fault)
            after = self.held()
            growing = {name for name in growing if getattr(after, name) > getattr(before, name)}
            if not growing:
                return ""
            before = after
        return f"more at each run: {', '.join(sorted(growing))}"

    def findings(self, fault: Fault) -> Iterator[str]:
        """Try one fault, and say what is not as it must be."""
        run = self.run(fault)
        if not run.fired:
            run = self.run(fault)  # Another thread may have been quicker this time.
        if not run.fired:
            return
        yield from run.wrong
        if not allowed(fault, run):
            yield f"came out as {run.outcome}: {run.text}"
        if leak := self.leak(fault):
            yield leak


def allowed(fault: Fault, run: Run) -> bool:
    """Whether that may come of the fault."""
    from .calls import FALLIBLE, FROM_LIBREMCTL

    function, place = fault.site.split(" ", 1)
    outcomes = FROM_LIBREMCTL if place.startswith("libremctl") else FALLIBLE[function].outcomes
    if run.outcome in outcomes:
        return True
    return run.outcome != "same" and any(re.search(outcome, run.text) for outcome in outcomes)


def progress(index: int, what: object) -> None:
    """Note what comes next, for the parent to know if it is the last thing."""
    faulthandler.dump_traceback_later(HANG, exit=True)
    print(f"-- {index} {what}", file=sys.stderr, flush=True)


def load_for_the_first_time() -> list[str]:
    """Fail at what is done but once in a process; return where."""
    fault = Fault("pthread_atfork ", 1)
    progress(-1, fault)
    books = Books()
    books.start(fault)
    try:
        import _remctl  # noqa: F401

        outcome = "same"
    except Exception as error:
        outcome = type(error).__name__
    fired = books.stop()
    sites = [passed.site for passed in books.passed() if passed.site.startswith(fault.site)]
    if not fired or outcome != "MemoryError":
        tell(fault, f"came out as {outcome}")
    return sites


def tell(fault: object, finding: str) -> None:
    """Write down a finding, at once: the next fault may end this process."""
    print(json.dumps([str(fault), finding]), flush=True)


def main(name: str, ports: dict[str, int], first: int | None) -> None:
    """Try every fault from the `first` on, if any, and write down what was found."""
    faulthandler.enable()
    sites = load_for_the_first_time()
    progress(-1, "no fault")
    experiment = Experiment(name, ports)
    if leak := experiment.leak(None):
        tell("no fault", leak)
    faults = experiment.faults()
    for index, fault in enumerate(faults):
        sites.append(fault.site)
        if first is None or index < first:
            continue
        progress(index, fault)
        for finding in experiment.findings(fault):
            tell(fault, finding)
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps(sites))


if __name__ == "__main__":
    arguments: list[Any] = json.loads(sys.argv[1])
    main(*arguments)
