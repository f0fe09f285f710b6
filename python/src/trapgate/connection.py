"""The connection to a VMM: hello, requests and their answers."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import NoReturn

from google.protobuf.message import DecodeError

from trapgate import errors, strict
from trapgate.debug.v1 import messages_pb2
from trapgate.frames import Closed, Frames, TooLong
from trapgate.refusals import refused

#: The version of the messages that this package speaks.
VERSION = 1
PROTOCOL = "trapgate debug"

#: The maximum number of bytes of one read or write of memory.
MAX_TRANSFER = 16 << 20
_MAX_HELLO = 256
_MAX_FRAME = MAX_TRANSFER + (64 << 10)

# The field `memory` of `Answer`, which has a length.
_MEMORY_TAG = bytes([messages_pb2.Answer.MEMORY_FIELD_NUMBER << 3 | 2])


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


class Connection:
    """Requests and answers over one socket. It has no thread: answers are read while the program waits for one."""

    def __init__(self, path: str, limit: float) -> None:
        self.path = path
        #: The time limit of each request, in seconds.
        self.limit = limit
        self._last = 0
        # The requests without an answer, as verb phrases.
        self._pending: dict[int, str] = {}
        self._answers: dict[int, messages_pb2.Answer] = {}
        # The requests whose answers nobody waits for.
        self._abandoned: set[int] = set()
        # The places of memory that was asked for, by requests.
        self._places: dict[int, memoryview] = {}
        # The request whose memory is being received at its place.
        self._placed: int | None = None
        # The requests whose memory is at its place.
        self._filled: set[int] = set()
        self._ended: str | None = None
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            connected.settimeout(limit)
            connected.connect(path)
        except (OSError, ValueError) as source:
            connected.close()
            error = source if isinstance(source, OSError) else OSError(str(source))
            raise errors.ConnectFailed(path, error) from source
        self._frames = Frames(connected, _MAX_HELLO)
        try:
            self._greet()
        except BaseException:
            self.close()
            raise

    @property
    def open(self) -> bool:
        """Whether requests can be sent."""
        return self._ended is None

    def _greet(self) -> None:
        what = "greet the VMM"
        hello = messages_pb2.Hello(protocol=PROTOCOL, oldest=VERSION, newest=VERSION)
        deadline = time.monotonic() + self.limit
        self._send(what, hello.SerializeToString(), deadline)
        try:
            message = self._frames.receive(deadline)
        except TooLong as error:
            raise errors.OtherProtocol from error
        except (Closed, OSError) as error:
            self._gone(what, error)
        if message is None:
            raise errors.NoAnswer(what, self.limit)
        try:
            # A version that is too large for its field would be read as another one.
            strict.check(messages_pb2.Hello.DESCRIPTOR, message, unknown=True)
            theirs = messages_pb2.Hello.FromString(bytes(message))
        except (strict.Unusable, DecodeError) as error:
            raise errors.OtherProtocol from error
        if theirs.protocol != PROTOCOL:
            raise errors.OtherProtocol
        if not theirs.oldest <= VERSION <= theirs.newest:
            raise errors.OtherVersion(theirs.oldest, theirs.newest, VERSION)
        self._frames.limit = _MAX_FRAME
        self._frames.place = self._place

    def receive_into(self, number: int, place: memoryview) -> None:
        """A long answer to this request, if it is as much memory as the place has, is received there. The answer's own `memory` is empty then."""
        self._places[number] = place

    def is_filled(self, number: int) -> bool:
        """Whether the answer to this request was received at its place. Asked once, after the answer."""
        self._places.pop(number, None)
        filled = number in self._filled
        self._filled.discard(number)
        return filled

    def _place(self, head: memoryview, length: int) -> tuple[int, memoryview] | None:
        """Whether a long frame is memory with a place: the number, then the bytes, in the shortest encoding."""
        for number, place in self._places.items():
            before = messages_pb2.Answer(id=number).SerializeToString() + _MEMORY_TAG + _varint(len(place))
            if length == len(before) + len(place) and head[: len(before)] == before:
                self._placed = number
                return len(before), place
        return None

    def send(self, what: str, request: messages_pb2.Request) -> int:
        """Sends a request and returns its number. Requests arrive in the order in which they are sent. `what` is the request as a verb phrase."""
        self._last += 1
        request.id = self._last
        message = request.SerializeToString()
        if len(message) > _MAX_FRAME:
            raise ValueError(f"{what}: a message of {len(message)} bytes, and {_MAX_FRAME} are permitted; send less at once")
        self._pending[self._last] = what
        self._send(what, message, time.monotonic() + self.limit)
        return self._last

    def _send(self, what: str, message: bytes, deadline: float) -> None:
        if self._ended is not None:
            raise errors.Gone(what, self._ended)
        complete = False
        try:
            self._frames.send(message, deadline)
            complete = True
        except TimeoutError as error:
            raise errors.NoAnswer(what, self.limit) from error
        except OSError as error:
            self._gone(what, error)
        finally:
            if not complete:
                # A part of a frame may have been sent.
                self.close("a message was not sent completely")

    def answer(self, number: int, deadline: float | None) -> messages_pb2.Answer | None:
        """The answer to a request. `None` if it has not come by the deadline; it can be waited for again. A refusal is an exception."""
        what = self._pending[number]
        while number not in self._answers:
            if self._ended is not None:
                raise errors.Gone(what, self._ended)
            try:
                message = self._frames.receive(deadline)
            except TooLong as error:
                self.unusable(what, str(error))
            except (Closed, OSError) as error:
                self._gone(what, error)
            if message is None:
                return None
            self._received(what, message)
        answer = self._answers.pop(number)
        del self._pending[number]
        if answer.HasField("error"):
            raise refused(what, answer.error)
        if answer.WhichOneof("kind") is None:
            raise errors.Gone(what, "the VMM has dropped the request: the guest is gone")
        return answer

    def _received(self, what: str, message: memoryview) -> None:
        if self._placed is not None:
            number, self._placed = self._placed, None
            if self._places.pop(number, None) is not None:
                self._filled.add(number)
            self._deliver(what, messages_pb2.Answer(id=number, memory=b""))
            return
        try:
            strict.check(messages_pb2.Answer.DESCRIPTOR, message)
            answer = messages_pb2.Answer.FromString(bytes(message))
        except (strict.Unusable, DecodeError) as error:
            self.unusable(what, str(error))
        self._deliver(what, answer)

    def _deliver(self, what: str, answer: messages_pb2.Answer) -> None:
        if answer.id in self._abandoned:
            self._abandoned.remove(answer.id)
        elif answer.id in self._pending and answer.id not in self._answers:
            self._answers[answer.id] = answer
        elif answer.HasField("error"):
            self.unusable(what, str(refused("a request that the VMM could not read", answer.error)))
        else:
            self.unusable(what, f"it has the number {answer.id}, which no request has")

    def call(self, what: str, request: messages_pb2.Request, kind: str) -> messages_pb2.Answer:
        """Sends a request and waits for its answer, which has to be of this kind."""
        number = self.send(what, request)
        return self.result(number, kind, time.monotonic() + self.limit)

    def result(self, number: int, kind: str, deadline: float | None) -> messages_pb2.Answer:
        """The answer to a request, which has to come by the deadline and to be of this kind."""
        what = self._pending[number]
        try:
            answer = self.answer(number, deadline)
        except (KeyboardInterrupt, SystemExit):
            self.abandon(number)
            raise
        if answer is None:
            self.abandon(number)
            raise errors.NoAnswer(what, self.limit)
        return self.of_kind(what, answer, kind)

    def of_kind(self, what: str, answer: messages_pb2.Answer, kind: str) -> messages_pb2.Answer:
        """Refuses an answer of another kind."""
        if answer.WhichOneof("kind") != kind:
            self.unusable(what, f"it is `{answer.WhichOneof('kind')}` instead of `{kind}`")
        return answer

    def abandon(self, number: int) -> None:
        """Nobody waits for this answer any more."""
        if self._answers.pop(number, None) is None and number in self._pending:
            self._abandoned.add(number)
        self._pending.pop(number, None)
        self.is_filled(number)

    def unusable(self, what: str, why: str) -> NoReturn:
        """Ends the connection: no answer can be trusted any more."""
        self.close("it sent an answer that cannot be used")
        raise errors.BadAnswer(what, why)

    def _gone(self, what: str, error: Exception) -> NoReturn:
        why = None
        if isinstance(error, OSError) and not isinstance(error, (BrokenPipeError, ConnectionResetError)):
            why = os.strerror(error.errno) if error.errno else str(error)
        self.close(why or "")
        raise errors.Gone(what, why) from error

    def close(self, why: str = "this program has closed it") -> None:
        """Closes the socket. The VMM ends the session as the program said when it attached."""
        if self._ended is None:
            self._ended = why
        with contextlib.suppress(OSError):
            self._frames.close()
