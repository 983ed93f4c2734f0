"""Repeat one scenario, with one failing call each time, in a separate process.

The parent preloads `libfaults.so`, puts the extension's folder first on the import path, and
passes the scenario's name and the servers' ports as JSON.  Each finding is a line of JSON; the last
line lists the calls that can fail.  The last line on standard error names the current
fault, to find it after a crash.
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
ROUNDS = 6  # maximum number of runs of a fault until one leaks nothing


class Fault(NamedTuple):
    """A failing call: its site, and its number there."""

    site: str
    number: int

    def __str__(self) -> str:
        return f"{self.site} #{self.number}"


class Counters:
    """Counters of the preloaded library."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.faults_blocks.restype = ctypes.c_size_t

    def locate(self) -> bool:
        """Let the library find the extension and libremctl, once they are loaded."""
        return bool(self._library.faults_locate())

    def start(self, fault: Fault | None) -> None:
        """Reset the counters, and let a call fail."""
        site, number = fault or ("", 0)
        self._library.faults_start(site.encode(), number)

    def pause(self, paused: bool) -> None:
        """Stop counting, or resume."""
        self._library.faults_pause(paused)

    def stop(self) -> bool:
        """End counting; return whether the call was made, and failed."""
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
        """Return the number of C memory blocks of the bindings and libremctl."""
        return int(self._library.faults_blocks())


class Held(NamedTuple):
    """Resources of the process, which must not grow."""

    descriptors: int
    threads: int
    blocks: int  # of C memory
    objects: int  # blocks of Python's memory
    references: int  # to None and the like; fewer would be as wrong


class Run(NamedTuple):
    """Result of one run of a scenario."""

    outcome: str  # the name of an exception, or "same"
    text: str
    fired: bool
    wrong: tuple[str, ...]


class Experiment:
    """A scenario, with its outcome when no call fails."""

    def __init__(self, name: str, ports: dict[str, int]) -> None:
        from .scenarios import SCENARIOS, Lab

        self.name = name
        self.scenario = SCENARIOS[name]
        self.lab = Lab
        self.ports = ports
        self.counters = Counters()
        self.unraisable: list[str] = []
        self.threads = thread_count()  # The main thread, and the watchdog.
        sys.unraisablehook = lambda hook: self.unraisable.append(f"{hook.exc_value!r}")
        if not self.counters.locate():
            raise SystemExit("cannot find the loaded extension or libremctl")
        for _ in range(3):  # Imports and caches happen only once.
            self.normal = self.attempt(None)[0]
        gc.collect()
        gc.freeze()

    def attempt(self, fault: Fault | None) -> tuple[object, BaseException | None, bool]:
        """Run the scenario; return its result, its exception, and whether the fault occurred."""
        lab = self.lab(self.ports, self.counters.pause)
        result, error = None, None
        self.await_threads()
        self.counters.start(fault)
        try:
            result = self.scenario(lab)
        except BaseException as caught:
            error = caught.with_traceback(None)
            error.__context__ = error.__cause__ = None
        fired = self.counters.stop()
        if fault is None and error is not None:
            raise error
        lab.check()
        lab.tidy()
        return result, error, fired

    def run(self, fault: Fault | None) -> Run:
        """Run the scenario with a fault, and collect problems."""
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
        """Wait for the bindings' threads, which make calls and hold memory."""
        end = time.monotonic() + PATIENCE
        while thread_count() > self.threads and time.monotonic() < end:
            time.sleep(0.0002)

    def held(self) -> Held:
        """Measure the resources of the process."""
        self.await_threads()
        gc.collect()
        sys._clear_type_cache()  # It has references to names of attributes.
        return Held(
            open_descriptors(),
            thread_count(),
            self.counters.blocks(),
            sys.getallocatedblocks(),
            sum(map(sys.getrefcount, (None, True, False, (), b"", 0))),
        )

    def faults(self) -> list[Fault]:
        """List the calls that can be made to fail."""
        from .scenarios import ONLY

        self.attempt(None)
        only = re.compile(ONLY.get(self.name, ""))
        return [fault for fault in self.counters.passed() if only.match(fault.site)]

    def leak(self, fault: Fault | None) -> str:
        """Run until a run leaks nothing; if none does, return what grows."""
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
        """Try one fault, and yield problems."""
        run = self.run(fault)
        if not run.fired:
            run = self.run(fault)  # Another thread may make the call this time.
        if not run.fired:
            return
        yield from run.wrong
        if not allowed(fault, run):
            yield f"came out as {run.outcome}: {run.text}"
        if leak := self.leak(fault):
            yield leak


def allowed(fault: Fault, run: Run) -> bool:
    """Return whether the outcome of a run is allowed for a fault."""
    from .calls import FALLIBLE, FROM_LIBREMCTL

    function, place = fault.site.split(" ", 1)
    outcomes = FROM_LIBREMCTL if place.startswith("libremctl") else FALLIBLE[function].outcomes
    if run.outcome in outcomes:
        return True
    return run.outcome != "same" and any(re.search(outcome, run.text) for outcome in outcomes)


def progress(index: int, what: object) -> None:
    """Print the next step, so that the parent knows the last one."""
    faulthandler.dump_traceback_later(HANG, exit=True)
    print(f"-- {index} {what}", file=sys.stderr, flush=True)


def load_for_the_first_time() -> list[str]:
    """Try faults of calls that are made once in a process; return them."""
    fault = Fault("pthread_atfork ", 1)
    progress(-1, fault)
    counters = Counters()
    counters.start(fault)
    try:
        import _remctl  # noqa: F401

        outcome = "same"
    except Exception as error:
        outcome = type(error).__name__
    fired = counters.stop()
    sites = [passed.site for passed in counters.passed() if passed.site.startswith(fault.site)]
    if not fired or outcome != "MemoryError":
        tell(fault, f"came out as {outcome}")
    return sites


def tell(fault: object, finding: str) -> None:
    """Print a finding at once, because the next fault may end this process."""
    print(json.dumps([str(fault), finding]), flush=True)


def main(name: str, ports: dict[str, int], first: int | None) -> None:
    """Try every fault from the `first` on, if any, and print the findings."""
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
