"""The remote side of tunnels: connects and listens for the client, which is at the other end of
standard input and output.
"""

import asyncio
import concurrent.futures
import contextlib
import errno
import os
import signal
import socket
import sys
import threading

from remctl_toolkit.machine.tunnel.both_mux import ADDRESS, FIRST_FAR_ID, LIMIT, Mux, Stream
from remctl_toolkit.machine.tunnel.both_sockets import UNIX, Listener, addresses, error_name
from remctl_toolkit.machine.wire.both_frames import Frames

FULL = 1 << 19  # octets that may wait for the client until sockets are not read any more


async def find(data):
    """Return the addresses that a frame asks for."""
    family, port, _ = ADDRESS.unpack_from(data)
    host = data[ADDRESS.size :]
    if family == UNIX:
        return [(socket.AF_UNIX, host)]
    host = host.decode("ascii")
    with contextlib.suppress(socket.gaierror):
        return addresses(family, host, port, socket.AI_NUMERICHOST)
    future: concurrent.futures.Future[object] = concurrent.futures.Future()
    future.set_running_or_notify_cancel()

    def look_up():
        try:
            future.set_result(addresses(family, host, port))
        except OSError as error:
            future.set_exception(error)

    try:
        threading.Thread(target=look_up, daemon=True).start()  # It may take long.
    except RuntimeError:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
    return await asyncio.wrap_future(future)


class FarMux(Mux, asyncio.Protocol):
    """The protocol of standard input, which has frames, and of standard output."""

    def __init__(self, loop):
        super().__init__(loop, FIRST_FAR_ID)
        self.openers = {b"C": self.connect, b"L": self.listen}
        self.frames = Frames(self.on_frame, b"CLDWEX", LIMIT)
        self.output = None

    def data_received(self, octets):
        self.frames.write(octets)

    def pause_writing(self):
        self.full = True

    def resume_writing(self):
        self.full = False
        held, self.held = self.held, set()
        for stream in held:
            stream.read_on()

    def connection_lost(self, error):
        self.quit()

    def write(self, octets):
        self.output.write(octets)

    def connect(self, number, data):
        stream = Stream(self, number, letter=b"O")
        stream.begin(lambda: find(data), ADDRESS.unpack_from(data)[2] / 1000)

    def listen(self, number, data):
        self.takers[number] = FarListener(self, number, data)


class FarListener:
    """What the client asked us to listen on."""

    def __init__(self, mux, number, data):
        self.mux = mux
        self.number = number
        self.listener = None
        self.task = mux.loop.create_task(self.begin(data))

    async def begin(self, data):
        try:
            self.listener = Listener(await find(data))
        except OSError as error:
            self.mux.send_last(self.number, error_name(error), False)
            return
        self.mux.send(b"O", self.number, self.listener.port.to_bytes(2, "big"))
        self.listener.start(self.accepted)

    def accepted(self, sock):
        owner = self.number.to_bytes(4, "big")
        Stream(self.mux, self.mux.new_number(), self, b"I", owner).adopt(sock)

    def on_close(self, data):
        self.task.cancel()
        if self.listener is not None:
            self.listener.close()
        self.mux.break_off(self)  # The client must not hear of new connections after this.
        self.mux.send_last(self.number, b"", True)


async def serve():
    """Serve until the client ends, or the channel asks us to end."""
    loop = asyncio.get_running_loop()
    mux = FarMux(loop)
    loop.add_signal_handler(signal.SIGTERM, mux.quit)
    mux.output, _ = await loop.connect_write_pipe(lambda: mux, sys.stdout)
    mux.output.set_write_buffer_limits(FULL, FULL // 2)
    await loop.connect_read_pipe(lambda: mux, sys.stdin)
    try:
        await mux.ended
    finally:
        mux.break_off()
        for taker in list(mux.takers.values()):
            if isinstance(taker, FarListener):
                taker.on_close(b"")
