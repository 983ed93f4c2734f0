"""The far side of tunnels: connects and listens for the near side, which talks to us through our
standard input and output.  mux.py is sent with it, to be there under its name.
"""

import _signal  # The C part alone: signal itself takes as long to import as Python to start.
import _socket
import os
import select
import time

from remctl_toolkit.machine.tunnel.both_mux import (
    ADDRESS,
    FAR,
    UNIX,
    Broken,
    Listener,
    Mux,
    Stream,
    addresses,
    bind,
    error_name,
)

FULL = 1 << 19  # octets that wait for the near side when sockets are left alone
PIECE = 1 << 20


class Lookup:
    """A name that is looked up in a process of its own: that may take long."""

    def __init__(self, mux, arguments, then):
        self.mux = mux
        self.then = then
        self.answer = b""
        self.fd, writer = os.pipe()
        if os.fork() == 0:
            self.run(arguments, writer)
        os.close(writer)
        os.read(self.fd, 1)  # When it has let go: a port is free when its tunnel was closed.
        os.set_blocking(self.fd, False)
        mux.watch(self.fd, select.POLLIN, self)

    def run(self, arguments, writer):
        try:
            _signal.set_wakeup_fd(-1)
            _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
            os.dup2(writer, 0)
            os.closerange(1, self.mux.highest() + 8)  # A connection ends when nobody has it.
            os.write(0, b"+")
            try:
                answer = ascii(addresses(*arguments))
            except OSError as error:
                answer = error_name(error).decode()
            os.write(0, answer.encode())
        finally:
            os._exit(0)

    def ready(self, events):
        try:
            piece = os.read(self.fd, PIECE)
        except BlockingIOError:
            return  # What poll() told was about a descriptor that had this number before.
        self.answer += piece
        if piece:
            return
        self.mux.watch(self.fd, None, self)
        os.close(self.fd)
        if self.answer.startswith(b"["):
            self.then(eval(self.answer, {}), None)  # our own words
        else:
            self.then([], self.answer or b"EAI_NONAME")


class Output:
    """Standard output, as poll() tells of it."""

    def __init__(self, mux):
        self.mux = mux
        self.events = None
        self.watch(0)

    def watch(self, events):
        if events != self.events:
            self.mux.watch(1, events, self)
            self.events = events

    def ready(self, events):
        if events & ~select.POLLOUT:
            self.mux.over = True  # Nobody reads it.


class Ending:
    """The signal that ends us, as poll() tells of it: just before it, one would be missed."""

    def __init__(self, mux):
        self.mux = mux
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        _signal.set_wakeup_fd(writer)
        _signal.signal(_signal.SIGTERM, lambda *_: None)
        mux.watch(reader, select.POLLIN, self)

    def ready(self, events):
        self.mux.over = True


class FarMux(Mux):
    """Has standard input and output as the way to the near side."""

    def __init__(self):
        super().__init__()
        self.handlers = {b"C": self.connect, b"L": self.listen, b"U": self.unlisten}
        self.numbers = {}  # listener's number -> Listener, or None while its name is looked up
        self.last = FAR - 1
        self.block = memoryview(b"")  # what standard output has not taken yet
        self.over = False
        self.narrow = select.poll()  # for when too much waits
        self.watch(0, select.POLLIN, self)
        self.narrow.register(0, select.POLLIN)
        self.narrow.register(1, select.POLLOUT)
        self.output = Output(self)
        os.set_blocking(0, False)
        os.set_blocking(1, False)

    # What the near side asks for.

    def find(self, data, then):
        """Call then(addresses, error's name), now or later."""
        family, port, _ = ADDRESS.unpack_from(data)
        host = data[ADDRESS.size :]
        if family == UNIX:
            then([(_socket.AF_UNIX, host)], None)
            return
        host = host.decode("ascii")
        try:
            then(addresses(family, host, port, _socket.AI_NUMERICHOST), None)
        except _socket.gaierror:
            try:
                Lookup(self, (family, host, port), then)
            except OSError as error:
                then([], error_name(error))

    def connect(self, number, data):
        if number in self.streams:
            raise Broken("a number is used twice")
        stream = Stream(self, number)
        patience = ADDRESS.unpack_from(data)[2]
        stream.deadline = time.monotonic() + patience / 1000
        self.waiting.add(stream)

        def then(pairs, name):
            if self.streams.get(number) is not stream:
                return  # It was given up.
            if name:
                stream.break_off(name)
            else:
                stream.connect(pairs, stream.deadline)

        self.find(data, then)

    def opened(self, stream):
        if stream.number < FAR:
            self.send(b"O", stream.number)

    def listen(self, number, data):
        self.numbers[number] = None

        def then(pairs, name):
            if number not in self.numbers:
                return  # It is not wanted any more.
            try:
                listener = None if name else Listener(self, bind(pairs), self.accepted)
            except OSError as error:
                name = error_name(error)
            if name:
                del self.numbers[number]
                self.send(b"U", number, name)
                return
            listener.number = number
            self.numbers[number] = listener
            self.send(b"P", number, (listener.port or 0).to_bytes(2, "big"))

        self.find(data, then)

    def unlisten(self, number, data):
        listener = self.numbers.pop(number, None)
        if listener is not None:
            listener.close()
        self.send(b"U", number)

    def accepted(self, listener, sock):
        while True:
            self.last = self.last + 1 if self.last + 1 < 2 * FAR else FAR
            if self.last not in self.streams:
                break
        self.send(b"I", self.last, listener.number.to_bytes(4, "big"))
        Stream(self, self.last, sock)

    # The way to the near side.

    def ready(self, events):
        try:
            octets = os.read(0, PIECE)
        except BlockingIOError:
            return
        self.over = self.over or not octets
        self.receive(octets)

    def flush(self):
        try:
            while self.block or self.outgoing:
                if not self.block:
                    self.block = memoryview(self.take_outgoing())
                self.block = self.block[os.write(1, self.block) :]
        except BlockingIOError:
            pass

    def highest(self):
        """Return the highest number of a descriptor of ours."""
        sockets = [stream.sock for stream in self.streams.values() if stream is not None]
        return max([sock.fileno() for sock in sockets if sock is not None] + list(self.watched))

    def run(self):
        while not self.over:
            left = len(self.block) + self.outgoing_size
            if left > FULL:
                ready = self.narrow.poll(self.patience())
            else:
                self.output.watch(select.POLLOUT if left else 0)
                ready = self.poller.poll(self.patience())
            self.serve(ready)
            self.tick()
            self.flush()


def main():
    """Serve until the near side ends, or our keeper wants us to."""
    _signal.signal(_signal.SIGCHLD, _signal.SIG_IGN)
    mux = FarMux()
    Ending(mux)
    try:
        mux.run()
    except BrokenPipeError:
        pass  # Nobody is there to tell.
    finally:
        mux.close()
