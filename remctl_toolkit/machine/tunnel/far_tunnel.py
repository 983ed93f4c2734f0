"""The remote side of tunnels: connect and listen for the client."""

import asyncio
import signal
import sys

from remctl_toolkit.machine.tunnel.both_mux import (
    FIRST_FAR_ID,
    LIMIT,
    Listener,
    Mux,
    Stream,
    error_name,
)
from remctl_toolkit.machine.wire.both_frames import Frames

FULL = 1 << 19  # unsent octets above which sockets are not read


class FarMux(Mux, asyncio.Protocol):
    """Relay frames over standard input and output."""

    next_address_delay = 0.25

    def __init__(self):
        super().__init__(FIRST_FAR_ID)
        self.openers = {b"C": self.connect, b"L": self.listen}
        self.frames = Frames(self.on_frame, b"CLDWEX", LIMIT)
        self.output = None

    def data_received(self, octets):
        self.frames.write(octets)

    def pause_writing(self):
        self.full = True

    def resume_writing(self):
        self.full = False
        for taker in list(self.takers.values()):
            if isinstance(taker, Stream):
                taker.read_on()

    def connection_lost(self, error):
        self.quit()

    def write(self, octets):
        self.output.write(octets)

    def connect(self, number, address):
        self.loop.create_task(Stream(self, number, (b"O", b"")).connect(address))

    def listen(self, number, address):
        self.takers[number] = FarListener(self, number, address)


class FarListener(Listener):
    """A listener for the client."""

    def __init__(self, mux, number, address):
        super().__init__(mux, (b"I", number.to_bytes(4, "big")))
        self.number = number
        self.answer = mux.loop.create_future()
        self.task = mux.loop.create_task(self.open(address))

    async def open(self, address):
        try:
            port = await self.begin(address)
        except Exception as error:
            self.over(error_name(error))
        else:
            self.mux.send(b"O", self.number, port.to_bytes(2, "big"))

    def on_frame(self, letter, data):
        self.task.cancel()
        self.over(b"")  # after the last frame of its connections

    def over(self, name):
        self.close()
        del self.mux.takers[self.number]
        self.mux.send(b"X", self.number, name)


async def serve(mux):
    """Serve until the client or the channel ends."""
    mux.loop.add_signal_handler(signal.SIGTERM, mux.quit)
    mux.output, _ = await mux.loop.connect_write_pipe(lambda: mux, sys.stdout)
    mux.output.set_write_buffer_limits(FULL, FULL // 2)
    await mux.loop.connect_read_pipe(lambda: mux, sys.stdin)
    try:
        await mux.ended
    finally:
        mux.break_off()
