"""The connection to a VMM: hello, requests and their answers."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
import time
from typing import NoReturn

from google.protobuf.message import DecodeError

from trapgate import errors, strict
from trapgate.debug.v1 import errors_pb2, messages_pb2
from trapgate.frames import Closed, Frame, Frames, TooLong
from trapgate.pending import Pending, Requests
from trapgate.refusals import refused

#: The version of the messages that this package speaks.
VERSION = 1
PROTOCOL = "trapgate debug"

#: The maximum number of bytes of one read or write of memory.
MAX_TRANSFER = 16 << 20
_MAX_HELLO = 256
_MAX_FRAME = MAX_TRANSFER + (64 << 10)

# How often a lock is looked at that somebody seems to have left locked.
_PATIENCE = 50

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
    """Requests and answers over one socket. It has no thread: answers are read while the program waits for one.

    An exception of a signal's handler, such as `KeyboardInterrupt`, may come at any instruction. The next call goes on from there.
    """

    def __init__(self, path: str, limit: float) -> None:
        self.path = path
        #: The time limit of each request, in seconds.
        self.limit = limit
        #: The VMM's last word: the guest has ended for good.
        self.end_of_guest: errors_pb2.DebugError | None = None
        self._numbers = itertools.count(1)
        self._requests = Requests()
        self._ended: str | None = None
        # Whoever has it sends or receives.
        self._in_use = threading.Lock()
        # Whether whoever has the lock is behind the taking.
        self._held = False
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
        self._frames.put(hello.SerializeToString(), None)
        self._flush(what, deadline)
        try:
            frame = self._frames.receive(deadline, self)
        except TooLong as error:
            raise errors.OtherProtocol from error
        except (Closed, OSError) as error:
            self._gone(what, error)
        if frame is None:
            raise errors.NoAnswer(what, self.limit)
        try:
            # A version that is too large for its field would be read as another one.
            strict.check(messages_pb2.Hello.DESCRIPTOR, frame.data, unknown=True)
            theirs = messages_pb2.Hello.FromString(bytes(frame.data))
        except (strict.Unusable, DecodeError) as error:
            raise errors.OtherProtocol from error
        if theirs.protocol != PROTOCOL:
            raise errors.OtherProtocol
        if not theirs.oldest <= VERSION <= theirs.newest:
            raise errors.OtherVersion(theirs.oldest, theirs.newest, VERSION)
        self._frames.consume()
        self._frames.limit = _MAX_FRAME

    # Where memory is received. A long answer, if it is as much memory as the place of its request has, is received there.

    def place(self, head: memoryview, length: int) -> tuple[int, memoryview, int] | None:
        """Whether a long frame is memory with a place: the number, then the bytes, in the shortest encoding."""
        answer = _number_of(head)
        request = self._requests.wanted(answer)
        if request is None or request.place is None:
            return None
        before = messages_pb2.Answer(id=answer).SerializeToString() + _MEMORY_TAG + _varint(len(request.place))
        if length == len(before) + len(request.place) and head[: len(before)] == before:
            return len(before), request.place, answer
        return None

    def is_wanted(self, owner: int) -> bool:
        """Whether the memory of an answer is still wanted at its place."""
        return self._requests.wanted(owner) is not None

    # Requests.

    def request(self, what: str) -> Pending:
        """A request with a number of its own, which is not sent yet. `what` is the request as a verb phrase."""
        return Pending(next(self._numbers), what)

    def send(self, pending: Pending, request: messages_pb2.Request) -> None:
        """Sends a request. Requests arrive in the order in which they are sent. After an exception the rest of a message is sent before the next one."""
        request.id = pending.number
        message = request.SerializeToString()
        if len(message) > _MAX_FRAME:
            raise ValueError(
                f"{pending.what}: a message of {len(message)} bytes, and {_MAX_FRAME} are permitted; send less at once"
            )
        self._check_free(pending.what)
        with self._in_use:
            self._held = True
            try:
                deadline = time.monotonic() + self.limit
                if not self._flush(pending.what, deadline):
                    raise errors.NoAnswer(pending.what, self.limit)
                self._requests.add(pending)
                self._frames.put(message, pending)
                if not self._flush(pending.what, deadline):
                    raise errors.NoAnswer(pending.what, self.limit)
            finally:
                self._held = False

    def is_begun(self, pending: Pending) -> bool:
        """Whether the VMM gets the request, now or when the rest of the message is sent."""
        return self._frames.is_begun(pending)

    def _check_free(self, what: str) -> None:
        """Refuses a second user."""
        for _ in range(_PATIENCE):
            if not self._in_use.locked():
                return
            if self._held:
                raise errors.InUse(what)
            # Another thread takes the lock just now, or an exception came between the taking and the block of `with`, as Python 3.14 permits.
            time.sleep(0.01)
        with contextlib.suppress(RuntimeError):
            self._in_use.release()

    def _flush(self, what: str, deadline: float | None) -> bool:
        """Sends the rest of a message, and returns whether it was sent by the deadline."""
        if self._ended is not None:
            raise errors.Gone(what, self._ended)
        try:
            self._frames.flush(deadline)
        except TimeoutError:
            return False
        except OSError as error:
            self._gone(what, error)
        return True

    def answer(self, pending: Pending, deadline: float | None) -> messages_pb2.Answer | None:
        """The answer to a request. `None` if it has not come by the deadline. It can be asked for again. A refusal is an exception."""
        what = pending.what
        self._check_free(what)
        with self._in_use:
            self._held = True
            try:
                answer = self._receive_until(pending, deadline)
            finally:
                self._held = False
        if answer is None:
            return None
        if answer.HasField("error"):
            if answer.error.HasField("ended"):
                self.end_of_guest = answer.error
            raise refused(what, answer.error)
        if answer.WhichOneof("kind") is None:
            raise errors.Gone(what, "the VMM has dropped the request: the guest is gone")
        return answer

    def _receive_until(self, pending: Pending, deadline: float | None) -> messages_pb2.Answer | None:
        what = pending.what
        while pending.answer is None:
            if not self._flush(what, deadline):
                return None
            try:
                frame = self._frames.receive(deadline, self)
            except TooLong as error:
                self.unusable(what, str(error))
            except (Closed, OSError) as error:
                self._gone(what, error)
            if frame is None:
                return None
            self._received(what, frame)
        return pending.answer

    def _received(self, what: str, frame: Frame) -> None:
        """Stores an answer. The frame is consumed after that, so the same frame may come again after an exception."""
        if frame.owner is not None:
            answer = messages_pb2.Answer(id=abs(frame.owner), memory=b"")
        else:
            try:
                strict.check(messages_pb2.Answer.DESCRIPTOR, frame.data)
                answer = messages_pb2.Answer.FromString(bytes(frame.data))
            except (strict.Unusable, DecodeError) as error:
                self.unusable(what, str(error))
        if answer.id not in self._requests:
            if answer.HasField("error"):
                self.unusable(what, str(refused("a request that the VMM could not read", answer.error)))
            self.unusable(what, f"it has the number {answer.id}, which no request has")
        pending = self._requests.wanted(answer.id)
        if pending is not None:
            if pending.answer is not None and pending.at != frame.number:
                self.unusable(what, f"it is a second answer to the request {answer.id}")
            if frame.owner is not None:
                pending.place = None
            pending.at = frame.number
            pending.answer = answer
        self._frames.consume()
        self._requests.remove(answer.id)

    def call(self, what: str, request: messages_pb2.Request, kind: str) -> messages_pb2.Answer:
        """Sends a request and waits for its answer, which has to be of this kind."""
        pending = self.request(what)
        self.send(pending, request)
        return self.result(pending, kind, time.monotonic() + self.limit)

    def result(self, pending: Pending, kind: str, deadline: float | None) -> messages_pb2.Answer:
        """The answer to a request, which has to come by the deadline and to be of this kind."""
        answer = self.answer(pending, deadline)
        if answer is None:
            self.abandon(pending)
            raise errors.NoAnswer(pending.what, self.limit)
        return self.of_kind(pending.what, answer, kind)

    def of_kind(self, what: str, answer: messages_pb2.Answer, kind: str) -> messages_pb2.Answer:
        """Refuses an answer of another kind."""
        if answer.WhichOneof("kind") != kind:
            self.unusable(what, f"it is `{answer.WhichOneof('kind')}` instead of `{kind}`")
        return answer

    def abandon(self, pending: Pending) -> None:
        """Nobody waits for this answer any more, and nothing comes to its place."""
        pending.wanted = False
        pending.place = None
        self._frames.leave(pending.number)

    def unusable(self, what: str, why: str) -> NoReturn:
        """Ends the connection: no answer can be trusted any more."""
        self.close("the VMM sent an answer that cannot be used")
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


def _number_of(head: memoryview) -> int:
    """The number of an answer, which is its first field. 0 if it has none."""
    if head[0] != messages_pb2.Answer.ID_FIELD_NUMBER << 3:
        return 0
    number = 0
    for index in range(1, 11):
        number |= (head[index] & 0x7F) << 7 * (index - 1)
        if head[index] < 0x80:
            return number
    return 0
