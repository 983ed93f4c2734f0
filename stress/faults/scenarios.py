"""Scenarios that use the bindings while their calls fail: every function, every kind of ending.

A scenario is a function of a `Lab`.  It returns the bindings' results, and lets exceptions pass.
If the low-level interface returns False, `Lab.need` raises Refused with the reason.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import select
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import _remctl

import remctl

PRINCIPAL = "host/localhost"
COMMAND = [b"both", b"argument"]
MUCH = bytes(200_000)  # more than fits into one token, and than the caller sends itself
TIMEOUT = 30.0
SILENCE = 0.08  # seconds: longer than the main thread waits before it looks for signals
DEAF, REFUSING = "127.0.0.2", "127.0.0.4"  # see `servers.py` for connect() to these


class Refused(Exception):
    """A function of the low-level interface returned False; the reason is the text."""


@dataclass
class Lab:
    """Ports of the servers, and the connections that a scenario opened.

    `ports` tells where the servers are that `servers.py` describes; `pause` is called with True
    where nothing is to fail for a while, and with False where it is to go on.
    """

    ports: dict[str, int]
    pause: Callable[[bool], None]
    handles: list[_remctl.Handle] = field(default_factory=list)
    sessions: list[remctl.Remctl] = field(default_factory=list)

    def handle(self) -> _remctl.Handle:
        """Make a handle, to be examined afterwards."""
        handle = _remctl.remctl_new()
        self.handles.append(handle)
        return handle

    def opened(self, server: str = "3") -> _remctl.Handle:
        """Return a new, connected handle, made without a fault."""
        self.pause(True)
        handle = self.handle()
        self.need(handle, _remctl.remctl_open(handle, "localhost", self.ports[server]))
        self.pause(False)
        return handle

    def opened_session(self, server: str = "3") -> remctl.Remctl:
        """Return a new, connected session, made without a fault."""
        self.pause(True)
        session = remctl.Remctl(timeout=TIMEOUT)
        self.sessions.append(session)
        session.open("localhost", self.ports[server])
        self.pause(False)
        return session

    def need(self, handle: _remctl.Handle, success: bool) -> None:
        """Raise the reason of a failure."""
        if not success:
            raise Refused(_remctl.remctl_error(handle))

    def through(self, handle: _remctl.Handle, answer: Any, steps: int = 0) -> Any:
        """Wait until a started operation has ended; with `steps`, cancel after STEPS waits."""
        while answer is None:
            descriptor, seconds = handle.wants
            poller = select.poll()
            poller.register(descriptor, select.POLLIN)
            ready = poller.poll(None if seconds is None else seconds * 1000)
            answer = _remctl.remctl_poll(handle, bool(ready))
            steps -= 1
            if steps == 0 and answer is None:
                _remctl.remctl_cancel(handle)
                return "given up"
        return answer

    def send(self, handle: _remctl.Handle, *command: bytes) -> None:
        """Send a command."""
        self.need(handle, _remctl.remctl_commandv(handle, command))

    def tokens(self, handle: _remctl.Handle) -> list[Any]:
        """Read the output of a command, to its end and one token further."""
        tokens: list[Any] = []
        while not tokens or tokens[-1][0] != "done":
            token = _remctl.remctl_output(handle)
            self.need(handle, bool(token))
            tokens.append(token)
        return tokens

    def check(self) -> None:
        """Check that everything the scenario opened can be opened again, used and closed."""
        for handle in self.handles:
            repr(handle)
            with contextlib.suppress(ValueError):  # No operation was started.
                _remctl.remctl_cancel(handle)
            handle.blocking = True
            if not handle.closed:
                _remctl.remctl_set_timeout(handle, TIMEOUT)
                _remctl.remctl_set_ccache(handle, os.environ["KRB5CCNAME"])
                self.need(handle, _remctl.remctl_open(handle, "localhost", self.ports["3"]))
                self.send(handle, b"status", b"3")
                assert self.tokens(handle)[0][3] == 3
                _remctl.remctl_close(handle)
            assert (handle.closed, handle.fd) == (True, -1)
        for session in self.sessions:
            session.set_timeout(TIMEOUT)
            session.open("localhost", self.ports["3"])
            assert session.run(["status", 4]).status == 4
            session.close()

    def tidy(self) -> None:
        """Close everything that is open."""
        for handle in self.handles:
            _remctl.remctl_close(handle)
        for session in self.sessions:
            session.close()


Scenario = Callable[[Lab], object]


def load_the_module(lab: Lab) -> object:
    spec = importlib.util.spec_from_file_location("_remctl", _remctl.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.VERSION, repr(module.remctl_new())


def open_and_close(lab: Lab) -> object:
    handle = lab.handle()
    _remctl.remctl_set_timeout(handle, TIMEOUT)
    lab.need(handle, _remctl.remctl_open(handle, "localhost", lab.ports["3"], PRINCIPAL))
    answer = handle.protocol, _remctl.remctl_error(handle)
    _remctl.remctl_close(handle)
    return answer, repr(handle)


def open_again(lab: Lab) -> object:
    handle = lab.opened()
    lab.need(handle, _remctl.remctl_open(handle, "localhost", lab.ports["1"]))
    return handle.protocol


def run_a_command(lab: Lab) -> object:
    handle = lab.opened()
    lab.send(handle, *COMMAND)
    assert _remctl.remctl_missing(handle) >= 0
    return lab.tokens(handle)


def run_strictly(lab: Lab) -> object:
    handle = lab.opened()
    lab.need(handle, _remctl.remctl_command(handle, [b"refuse", b"it"]))
    return lab.tokens(handle)


def send_a_noop(lab: Lab) -> object:
    handle = lab.opened()
    lab.need(handle, _remctl.remctl_noop(handle))
    return repr(handle.protocol)


def send_a_noop_that_is_not_known(lab: Lab) -> object:
    old, older = lab.opened("2"), lab.opened("1")
    answers = []
    for handle in (old, older):
        assert not _remctl.remctl_noop(handle)
        answers.append((handle.errno, _remctl.remctl_error(handle)))
    return answers


def open_with_protocol_1(lab: Lab) -> object:
    handle = lab.handle()
    lab.need(handle, _remctl.remctl_open(handle, "localhost", lab.ports["1"]))
    return handle.protocol, handle.fd


def run_with_protocol_1(lab: Lab) -> object:
    handle = lab.opened("1")
    lab.send(handle, *COMMAND)
    answers = lab.tokens(handle)
    lab.send(handle, b"status", b"3")
    return answers, lab.tokens(handle)


def run_with_protocol_1_and_all_settings(lab: Lab) -> object:
    handle = lab.handle()
    _remctl.remctl_set_timeout(handle, TIMEOUT)
    lab.need(handle, _remctl.remctl_set_source_ip(handle, "127.0.0.1"))
    lab.need(handle, _remctl.remctl_set_ccache(handle, os.environ["KRB5CCNAME"]))
    lab.need(handle, _remctl.remctl_open(handle, "localhost", lab.ports["1"], PRINCIPAL))
    lab.send(handle, *COMMAND)
    return handle.protocol, lab.tokens(handle)


def open_without_blocking(lab: Lab) -> object:
    handle = lab.handle()
    handle.blocking = False
    _remctl.remctl_set_timeout(handle, TIMEOUT)
    answer = _remctl.remctl_open(handle, "localhost", lab.ports["3"], PRINCIPAL)
    lab.need(handle, lab.through(handle, answer))
    return handle.protocol


def run_without_blocking(lab: Lab) -> object:
    handle = lab.opened()
    handle.blocking = False
    tokens: list[Any] = []
    lab.need(handle, lab.through(handle, _remctl.remctl_commandv(handle, COMMAND)))
    while not tokens or tokens[-1][0] != "done":
        token = lab.through(handle, _remctl.remctl_output(handle))
        lab.need(handle, bool(token))
        tokens.append(token)
    lab.need(handle, lab.through(handle, _remctl.remctl_noop(handle)))
    return tokens


def send_much_without_blocking(lab: Lab) -> object:
    handle = lab.opened()
    handle.blocking = False
    _remctl.remctl_set_timeout(handle, TIMEOUT)
    lab.need(handle, lab.through(handle, _remctl.remctl_commandv(handle, [b"count", MUCH])))
    token = lab.through(handle, _remctl.remctl_output(handle))
    lab.need(handle, bool(token))
    return token


def run_without_blocking_with_protocol_1(lab: Lab) -> object:
    handle = lab.opened("1")
    handle.blocking = False
    lab.need(handle, lab.through(handle, _remctl.remctl_commandv(handle, COMMAND)))
    token = lab.through(handle, _remctl.remctl_output(handle))
    lab.need(handle, bool(token))
    return token


def give_up_an_open(lab: Lab) -> object:
    handle = lab.handle()
    handle.blocking = False
    _remctl.remctl_set_timeout(handle, TIMEOUT)
    answer = _remctl.remctl_open(handle, "localhost", lab.ports["silent"], PRINCIPAL)
    return give_up(lab, handle, lab.through(handle, answer, 3))


def give_up_a_noop(lab: Lab) -> object:
    handle = lab.opened("mute")
    handle.blocking = False
    return give_up(lab, handle, _remctl.remctl_noop(handle))


def give_up_a_token(lab: Lab) -> object:
    handle = lab.opened("mute")
    lab.send(handle, b"status", b"1")
    handle.blocking = False
    return give_up(lab, handle, _remctl.remctl_output(handle))


def give_up(lab: Lab, handle: _remctl.Handle, answer: Any) -> object:
    """Cancel an operation that has given an answer, or None if it waits."""
    if answer is None:
        _remctl.remctl_cancel(handle)
    elif answer != "given up":
        lab.need(handle, bool(answer))
    return handle.connected, handle.expecting, handle.fd


def close_what_waits(lab: Lab) -> object:
    """Close a handle while its token is awaited; the waiter notices at its next step."""
    handle = lab.opened("mute")
    lab.send(handle, b"status", b"1")
    handle.blocking = False
    assert _remctl.remctl_output(handle) is None
    _remctl.remctl_close(handle)
    return lab.through(handle, None), handle.failure, handle.fd


def close_what_opens(lab: Lab) -> object:
    """Close a handle that is being opened."""
    handle = lab.handle()
    handle.blocking = False
    _remctl.remctl_set_timeout(handle, TIMEOUT)
    answer = _remctl.remctl_open(handle, "localhost", lab.ports["silent"], PRINCIPAL)
    if answer is not None:
        lab.need(handle, answer)
    _remctl.remctl_close(handle)
    return lab.through(handle, None), handle.failure, handle.fd


def drop_what_waits(lab: Lab) -> object:
    """Forget a handle in the middle of an operation."""
    handle = lab.opened("mute")
    lab.send(handle, b"status", b"1")
    handle.blocking = False
    lab.handles.remove(handle)
    return _remctl.remctl_output(handle)


def send_much(lab: Lab) -> object:
    handle = lab.opened()
    lab.send(handle, b"count", MUCH)
    return lab.tokens(handle)


def receive_what_a_small_buffer_does_not_hold(lab: Lab) -> object:
    handle = lab.opened()
    with socket.socket(fileno=os.dup(handle.fd)) as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    lab.send(handle, b"size", b"40000")
    return [(token[0], len(token[1] or b"")) for token in lab.tokens(handle)]


def be_refused(lab: Lab) -> object:
    handle = lab.handle()
    lab.need(handle, _remctl.remctl_set_source_ip(handle, "127.0.0.1"))
    assert not _remctl.remctl_open(handle, "127.0.0.1", lab.ports["refused"])
    return handle.errno, _remctl.remctl_error(handle)


def be_refused_on_both_ports(lab: Lab) -> object:
    handle = lab.handle()
    assert not _remctl.remctl_open(handle, "somewhere", 0, None, REFUSING)
    return handle.errno, _remctl.remctl_error(handle)


def ask_for_an_unknown_host(lab: Lab) -> object:
    handle = lab.handle()
    assert not _remctl.remctl_open(handle, "unknown.test", 4373)
    return handle.failure, handle.errno, _remctl.remctl_error(handle)


def time_out_connecting(lab: Lab) -> object:
    handle = lab.handle()
    _remctl.remctl_set_timeout(handle, SILENCE)
    assert not _remctl.remctl_open(handle, "somewhere", lab.ports["3"], None, DEAF)
    return handle.failure, handle.errno, _remctl.remctl_error(handle)


def try_all_addresses(lab: Lab) -> object:
    """Connect to a host whose first address refuses and whose second is the server's."""
    handle = lab.handle()
    port = lab.ports["3"]
    _remctl.remctl_set_timeout(handle, TIMEOUT)
    lab.need(handle, _remctl.remctl_open(handle, "refusing.test", port, PRINCIPAL))
    return handle.protocol


def choose_a_source_address(lab: Lab) -> object:
    """Connect from an address that fits only one of the host's addresses."""
    handle = lab.handle()
    handle.keepalive = 60
    lab.need(handle, _remctl.remctl_set_source_ip(handle, "127.0.0.1"))
    lab.need(handle, _remctl.remctl_open(handle, "both.test", lab.ports["3"], PRINCIPAL))
    with socket.socket(fileno=os.dup(handle.fd)) as ours:
        source = ours.getsockname()[0]
    assert not _remctl.remctl_set_source_ip(handle, "localhost")
    return source, _remctl.remctl_error(handle)


def fail_to_authenticate(lab: Lab) -> object:
    handle = lab.handle()
    assert not _remctl.remctl_open(handle, "localhost", lab.ports["3"], "host/unknown")
    return handle.errno, _remctl.remctl_error(handle)


def choose_a_ccache(lab: Lab) -> object:
    handle = lab.handle()
    lab.need(handle, _remctl.remctl_set_ccache(handle, "FILE:/nonexistent"))
    assert not _remctl.remctl_open(handle, "localhost", lab.ports["3"])
    reason = _remctl.remctl_error(handle)
    lab.need(handle, _remctl.remctl_set_ccache(handle, os.environ["KRB5CCNAME"]))
    lab.need(handle, _remctl.remctl_open(handle, "localhost", lab.ports["3"]))
    return reason


def call_wrongly(lab: Lab) -> object:
    """Make every kind of wrong call."""
    handle = lab.handle()
    answers: list[object] = [repr(handle), handle.fd, handle.expecting]
    wrong: list[Callable[[], object]] = [
        lambda: _remctl.remctl_output(1),  # type: ignore[arg-type]
        lambda: _remctl.remctl_command(handle, [b"a\0b"]),
        lambda: _remctl.remctl_commandv(handle, [b"text", "text"]),  # type: ignore[list-item]
        lambda: _remctl.remctl_open(handle, "localhost", 65536),
        lambda: _remctl.remctl_poll(handle, True),
        lambda: _remctl.remctl_cancel(handle),
    ]
    for call in wrong:
        try:
            answers += [call(), _remctl.remctl_error(handle)]
        except (TypeError, ValueError) as error:
            answers.append(str(error))
    answers.append(_remctl.remctl_set_timeout(handle, -1.0))
    answers.append(_remctl.remctl_error(handle))
    answers.append(_remctl.remctl_commandv(handle, []))
    answers.append(_remctl.remctl_commandv(handle, [b"early"]))
    answers.append(_remctl.remctl_error(handle))
    answers.append(_remctl.remctl_output(handle))
    answers.append(_remctl.remctl_error(handle))
    _remctl.remctl_close(handle)
    with contextlib.suppress(ValueError):
        _remctl.remctl_noop(handle)
    return answers


def share_a_handle(lab: Lab) -> object:
    handle = lab.opened("mute")
    lab.send(handle, b"status", b"1")
    waiting = threading.Thread(target=lambda: _remctl.remctl_output(handle))
    waiting.start()
    try:
        while waiting.is_alive():  # It comes in before long, and stays.
            _remctl.remctl_error(handle)
    except ValueError as error:
        return str(error)
    finally:
        _remctl.remctl_close(handle)
        waiting.join()
    raise AssertionError("two threads were let in")


def call_the_simple_function(lab: Lab) -> object:
    port = lab.ports["3"]
    return (
        _remctl.remctl("localhost", port, None, COMMAND),
        _remctl.remctl("localhost", port, None, [b"refuse", b"it"]),
        _remctl.remctl("localhost", port, PRINCIPAL, [b"status", b"2"]),
        _remctl.remctl("127.0.0.1", lab.ports["refused"], None, COMMAND),
    )


def work_with_a_session(lab: Lab) -> object:
    session = lab.opened_session()
    answers: list[object] = [session.noop()]
    result = session.run(["both", "argument"])
    answers += [result.stdout, result.stderr, result.status]
    answers += [tuple(token) for token in session.stream(["both", "argument"])]
    try:
        session.run(["refuse", "it"])
    except remctl.RemctlServerError as error:
        answers.append(str(error))
    session.close()
    return answers


def lose_the_connection(lab: Lab) -> object:
    session = lab.opened_session()
    try:
        session.run(["vanish"])
    except remctl.RemctlDisconnectedError as error:
        answer = str(error)
    return answer, session.run(["status", 5]).status


def reopen_what_has_ended(lab: Lab) -> object:
    session = lab.opened_session("brief")
    session.run(["status", 1])
    with socket.socket(fileno=os.dup(session.fileno())) as ours:
        ours.settimeout(TIMEOUT)
        ours.recv(1, socket.MSG_PEEK)  # The server has gone, and this side knows it.
    return session.run(["status", 6]).status


def call_once(lab: Lab) -> object:
    result = remctl.remctl("localhost", lab.ports["3"], command=["both", "argument"])
    return result.stdout, result.stderr, result.status


def wait_for_a_token(lab: Lab) -> object:
    session = lab.opened_session("mute")
    session.set_timeout(SILENCE)
    return timed_out(lambda: session.run(["status", 1]))


def wait_for_an_answer(lab: Lab) -> object:
    session = remctl.Remctl(timeout=SILENCE)
    lab.sessions.append(session)
    return timed_out(lambda: session.open("localhost", lab.ports["silent"]))


def timed_out(call: Callable[[], object]) -> bool:
    """Make a call that is not answered; the place of the timeout depends on the machine's load."""
    try:
        call()
    except remctl.RemctlTimeoutError:
        return True
    raise AssertionError("the call was answered")


SCENARIOS: dict[str, Scenario] = {
    scenario.__name__: scenario
    for scenario in (
        load_the_module,
        open_and_close,
        open_again,
        run_a_command,
        run_strictly,
        send_a_noop,
        send_a_noop_that_is_not_known,
        open_with_protocol_1,
        run_with_protocol_1,
        run_with_protocol_1_and_all_settings,
        open_without_blocking,
        run_without_blocking,
        send_much_without_blocking,
        run_without_blocking_with_protocol_1,
        give_up_an_open,
        give_up_a_noop,
        give_up_a_token,
        close_what_waits,
        close_what_opens,
        drop_what_waits,
        send_much,
        receive_what_a_small_buffer_does_not_hold,
        be_refused,
        be_refused_on_both_ports,
        ask_for_an_unknown_host,
        time_out_connecting,
        try_all_addresses,
        choose_a_source_address,
        fail_to_authenticate,
        choose_a_ccache,
        call_wrongly,
        share_a_handle,
        call_the_simple_function,
        work_with_a_session,
        lose_the_connection,
        reopen_what_has_ended,
        call_once,
        wait_for_a_token,
        wait_for_an_answer,
    )
}

# These are slow, or make different calls each time: in them, only calls that other scenarios do not
# reach are made to fail.
ONLY = {
    "share_a_handle": "PyErr_SetString ",
    # Without a thread, a call waits in the calling thread, until its timeout.
    "give_up_an_open": r"(?!pthread_(attr_init|create) )",
    "give_up_a_noop": r"(?!pthread_(attr_init|create) )",
    "close_what_opens": r"(?!pthread_(attr_init|create) )",
    # Failures at the second port do not count.
    "be_refused_on_both_ports": r"(?!calloc |getaddrinfo )",
    "time_out_connecting": r"\w+ connect\.c",
    "wait_for_a_token": "PyErr_CheckSignals ",
    "wait_for_an_answer": "PyErr_CheckSignals ",
}
