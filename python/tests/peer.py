"""The VMM's side of a connection, as a test plays it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

from trapgate.debug.v1 import messages_pb2, nothing_pb2, run_pb2

HELLO = messages_pb2.Hello(protocol="trapgate debug", oldest=1, newest=1).SerializeToString()


def frame(message: bytes) -> bytes:
    return len(message).to_bytes(4, "little") + message


class Peer:
    """The VMM's side of one connection, as a test plays it."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.file = connected.makefile("rb")

    def receive(self) -> bytes:
        length = int.from_bytes(self.file.read(4), "little")
        return self.file.read(length)

    def request(self) -> messages_pb2.Request:
        return messages_pb2.Request.FromString(self.receive())

    def send(self, *messages: bytes) -> None:
        self.socket.sendall(b"".join(map(frame, messages)))

    def answer(self, number: int, **kind: object) -> None:
        self.send(messages_pb2.Answer(id=number, **kind).SerializeToString())  # type: ignore[arg-type]

    def attach(self) -> None:
        """Greets and attaches as a VMM does."""
        self.receive()
        self.send(HELLO)
        self.answer(self.request().id, attached=attached())

    def until_closed(self) -> None:
        with contextlib.suppress(OSError):
            while self.socket.recv(1 << 16):
                pass


def attached() -> messages_pb2.Attached:
    stop = run_pb2.StopEvent(epoch=0, reason=run_pb2.DebugStopReason(break_=nothing_pb2.Nothing()), vps=[0])
    info = run_pb2.AttachInfo(arch=run_pb2.GUEST_ARCH_X86_64, stop=stop)
    return messages_pb2.Attached(session=7, info=info)


Serve = Callable[[Callable[[Peer], None]], str]
