"""Run functions for the client, in threads of one process.

Standard input and output carry frames of a letter, a number (of a call or a question) and octets.
Output of functions goes through pipes, and is sent in frames as well.
"""

import _signal
import os
import sys
from _thread import allocate_lock, get_ident, start_new_thread
from itertools import count

from remctl_toolkit.machine.call.far_imports import SENT, Finder, connect
from remctl_toolkit.machine.call.far_shipping import TEXTS, load, loads
from remctl_toolkit.machine.call.far_values import Unsendable, encode
from remctl_toolkit.machine.wire.both_frames import Frames, frame

try:
    from _queue import Empty, SimpleQueue
except ImportError:
    from queue import Empty, SimpleQueue

HIDDEN = ("<remctl ", "<frozen importlib._bootstrap")  # prefixes of files left out of tracebacks
STOP = _signal.SIGRTMAX  # interrupts system calls of the main thread
GRACE = 1.0  # seconds for calls to end when the connection ends
END = 4.0  # seconds for the whole shutdown
AGAIN = 0.1  # retry interval for interrupting a call
PIECE = 65536
LONGEST = 1 << 31  # octets of a frame
QUESTION_LIMIT = 4000  # octets: a pipe takes this many at once, so no interrupt can split them
ERROR_LIMIT = 262144  # characters of a traceback, or a message


class Cancelled(BaseException):
    """The client does not wait for this call any more."""


class Line:
    """The connection to the client: results, questions and printed output."""

    def __init__(self):
        self.target = os.dup(1)
        self.sending = allocate_lock()
        self.draining = allocate_lock()
        self.pid = os.getpid()
        self.numbers = count(1)
        self.questions = {}
        self.pipes = {}  # from a pipe to the letter of its frames
        for number, name in ((1, "stdout"), (2, "stderr")):
            reading, writing = os.pipe()
            os.dup2(writing, number)
            os.close(writing)
            os.set_blocking(reading, False)
            self.pipes[reading] = b"%d" % number
            file = open(  # noqa: SIM115
                number, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False
            )
            setattr(sys, name, file)
            setattr(sys, f"__{name}__", file)

    def check_fork(self):
        if os.getpid() != self.pid:
            os._exit(1)  # A forked child must not use its parent's connection.

    def send(self, letter, number, octets):
        self.check_fork()
        rest = memoryview(frame(letter, number, octets))
        with self.sending:
            while rest:
                rest = rest[os.write(self.target, rest) :]

    def ask(self, *question):
        answer: SimpleQueue[bytes] = SimpleQueue()
        number = next(self.numbers)
        self.questions[number] = answer
        try:
            self.send(b"?", number, encode(question, QUESTION_LIMIT))
            return loads(answer.get())
        finally:
            del self.questions[number]

    def pump(self):
        import select

        while True:
            select.select(list(self.pipes), [], [])
            self.drain()

    def drain(self):
        """Send all output so far."""
        self.check_fork()  # In a child, the lock may never be released.
        with self.draining:
            for pipe, letter in self.pipes.items():
                size = PIECE
                while size == PIECE:
                    try:
                        octets = os.read(pipe, PIECE)
                    except BlockingIOError:
                        break
                    size = len(octets)
                    self.send(letter, 0, octets)

    def flush(self):
        for file in (sys.stdout, sys.stderr):
            try:
                file.flush()
            except (AttributeError, ValueError):  # It was replaced or closed.
                pass
        self.drain()


class Call:
    """A call, from its arrival until its result is sent."""

    def __init__(self, agent, number, octets):
        self.agent = agent
        self.number = number
        self.octets = octets
        self.lock = allocate_lock()
        self.inside = False  # whether the function's code runs and may be interrupted
        self.stopped = None  # the class of the exception that cancels it
        self.interrupted = False  # whether that was raised
        self.streams = False
        self.thread = 0
        self.grants: SimpleQueue[int] = SimpleQueue()

    def run(self):
        self.thread = get_ident()
        try:
            try:
                letter, octets = self.outcome()
            finally:
                self.leave()
        except BaseException as error:
            if self.stopped is not None and type(error) is self.stopped:
                letter, octets = b"X", b""
            else:
                letter, octets = b"!", self.failure("call", error)
        self.agent.line.flush()
        if self.thread == self.agent.main:
            self.agent.current = None  # The next call may arrive before this thread continues.
        self.agent.line.send(letter, self.number, octets)

    def enter(self):
        """Return whether the function's code may run."""
        with self.lock:
            self.inside = self.stopped is None
            return self.inside

    def leave(self):
        with self.lock:
            self.inside = False
        for _ in range(2):
            pass  # Exceptions that another thread set for this one are raised here at the latest.

    def outcome(self):
        if not self.enter():
            return b"P", self.failure("prepare", Cancelled())
        try:
            message, self.octets = loads(self.octets), None
            function, args, kwargs = load(*message)
        except BaseException as error:
            return b"P", self.failure("prepare", error)
        result = function(*args, **kwargs)
        if hasattr(type(result), "__next__"):
            return self.stream(result)
        return self.encoded(b"V", result)

    def encoded(self, letter, result):
        try:
            return letter, encode(result, self.agent.limit)
        except Unsendable as error:
            return b"!", self.failure("result", error)

    def stream(self, results):
        self.streams = True
        self.agent.line.send(b"G", self.number, b"")
        ahead = 0  # the cost of items that were sent but not granted
        try:
            for item in results:
                self.leave()
                letter, frame = self.encoded(b"I", item)
                if letter != b"I":
                    return letter, frame
                ahead += len(frame) + self.agent.item_cost
                self.agent.line.flush()
                self.agent.line.send(letter, self.number, frame)
                while ahead >= self.agent.window:
                    granted = self.grants.get()
                    if not granted:
                        return b"X", b""
                    ahead -= granted
                if not self.enter():
                    return b"X", b""
        finally:
            close = getattr(results, "close", None)
            if close is not None:
                close()
        return b"E", b""

    def failure(self, stage, error):
        return encode(describe(stage, error), 8 * ERROR_LIMIT)

    def stop(self):
        """Cancel the call, from another thread."""
        with self.lock:
            if self.stopped is not None:
                return
            self.stopped = GeneratorExit if self.streams else Cancelled
            self.grants.put(0)
            if not self.inside:
                return
            if self.thread == self.agent.main:
                start_new_thread(self.insist, ())
                return
            try:
                import ctypes
            except ImportError:
                return  # It cannot be interrupted.
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self.thread), ctypes.py_object(self.stopped)
            )

    def insist(self):
        """Interrupt it repeatedly: a signal just before a system call has no effect."""
        never = allocate_lock()
        never.acquire()
        while self.inside and not self.interrupted:
            _signal.pthread_kill(self.thread, STOP)
            never.acquire(timeout=AGAIN)


def describe(stage, error):
    """Return an exception as plain data."""
    names = []
    for base in type(error).__mro__[:-1]:
        inner = base.__module__ in ("builtins", "__main__")
        names.append(base.__qualname__ if inner else base.__module__ + "." + base.__qualname__)
    try:
        message = str(error)[:ERROR_LIMIT]
    except Exception as another:
        message = f"<no text: str() raised {type(another).__name__}>"
    try:
        values = error.args
        encode(values, ERROR_LIMIT)
    except Exception:  # They are not plain data, and their methods may raise anything.
        values = None
    return (stage, tuple(names), message, traceback_of(error)[-ERROR_LIMIT:], values)


def traceback_of(error):
    import linecache
    import traceback

    texts = {name: text.splitlines(True) for name, text in list(SENT.values())}
    for name, lines in list(TEXTS.items()):
        texts[name] = [lines.get(number, "") + "\n" for number in range(max(lines, default=0) + 1)]
    for name, text in texts.items():
        linecache.cache[name] = (sum(map(len, text)), None, text, name)
    try:
        shown = traceback.TracebackException(type(error), error, error.__traceback__)
        shown.stack[:] = [each for each in shown.stack if not each.filename.startswith(HIDDEN)]
        return "".join(shown.format())
    except Exception as another:  # Methods of the exception may raise anything.
        return f"(no traceback: showing it raised {type(another).__name__})\n"


class Agent:
    def __init__(self, settings):
        self.limit = settings["limit"]
        self.window, self.item_cost = settings["window"]
        self.source = os.dup(0)
        self.line = Line()
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        self.listening = True
        self.main = get_ident()
        self.current: Call | None = None  # the main thread's
        self.calls = {}
        self.waiting: SimpleQueue[Call | None] = SimpleQueue()
        self.ended = allocate_lock()
        self.ended.acquire()
        _signal.signal(STOP, self.interrupt)

    def interrupt(self, number, frame):
        call = self.current
        if call is not None and call.inside and call.stopped and not call.interrupted:
            call.interrupted = True
            raise call.stopped

    def listen(self):
        try:
            frames = Frames(self.take, b"CRMXQ", LONGEST)
            while self.listening and frames.write(os.read(self.source, PIECE << 4)):
                pass
        finally:
            self.end()

    def take(self, letter, number, octets):
        if letter == b"C":
            call = self.calls[number] = Call(self, number, octets)
            if self.current is None:
                self.current = call
                self.waiting.put(call)
            else:
                start_new_thread(self.run, (call,))
        elif letter == b"Q":
            self.listening = False
        elif letter == b"R":
            asked = self.line.questions.get(number)
            if asked is not None:
                asked.put(octets)
        else:
            known = self.calls.get(number)
            if known is None:
                return
            if letter == b"M":
                known.grants.put(int.from_bytes(octets, "big"))
            elif letter == b"X":
                known.stop()

    def run(self, call):
        try:
            call.run()
        finally:
            self.calls.pop(call.number, None)

    def end(self):
        """End all calls and this process, after the connection has ended."""
        for call in list(self.calls.values()):
            call.stop()
        self.waiting.put(None)
        self.ended.acquire(timeout=END)
        os._exit(0)

    def work(self):
        """Serve in the main thread, where functions can wait for signals and be interrupted."""
        version = tuple(sys.version_info[:3])
        self.line.send(b"H", 0, encode((version, os.getpid()), PIECE))
        start_new_thread(self.listen, ())
        start_new_thread(self.line.pump, ())
        while True:
            given = self.waiting.get()
            if given is None:
                break
            self.run(given)
        for _ in range(int(GRACE * 20)):
            if not self.calls:
                break
            try:
                self.waiting.get(timeout=0.05)
            except Empty:
                pass
        import atexit

        atexit._run_exitfuncs()
        self.line.flush()
        self.ended.release()
        self.waiting.get()  # end() exits in another thread.


def start(settings):
    agent = Agent(settings)
    connect(agent.line.ask)
    sys.meta_path.append(Finder(settings["prefer_far"]))
    names = vars(sys.modules["__main__"])
    for name in [name for name in names if not name.startswith("__")]:
        del names[name]  # __main__ is for the names of callers.
    agent.work()
