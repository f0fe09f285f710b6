"""What breakpoints have printed."""

from __future__ import annotations

import time

from trapgate import errors
from trapgate.debug.v1 import messages_pb2, nothing_pb2
from trapgate.pending import Pending
from trapgate.run import Run
from trapgate.session import Session


class Output:
    """The text of breakpoints that the program has not fetched. A text stays in the answer to its request until it is returned: an exception of a signal's handler, such as
    `KeyboardInterrupt`, may come at any instruction."""

    def __init__(self, session: Session, run: Run) -> None:
        self._session = session
        self._run = run
        # The requests in their order. All but the last have their answer.
        self._requests: tuple[Pending, ...] = ()

    def fetch(self, timeout: float | None) -> str:
        """Text, as soon as there is some, or the guest has stopped."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._next(deadline):
            pass
        answered = tuple(request for request in self._requests if request.answer is not None)
        text = b"".join(_text(request) for request in answered)
        self._requests = self._requests[len(answered) :]
        return text.decode(errors="replace")

    def _next(self, deadline: float | None) -> bool:
        """Waits for the answer to one more request. Returns whether another one may have text at once."""
        connection = self._session.connection
        # Without a stop to come, the answer does not wait for text.
        is_running = self._run.is_running
        if not is_running:
            deadline = time.monotonic() + connection.limit
        last = self._requests[-1] if self._requests else None
        if last is None or last.answer is not None or not connection.is_begun(last):
            last = connection.request("fetch what breakpoints have printed")
            answered = tuple(request for request in self._requests if request.answer is not None)
            self._requests = (*answered, last)
            self._session.send(last, messages_pb2.Request(command_output=nothing_pb2.Nothing()))
        try:
            answer = connection.answer(last, deadline)
        except errors.InUse:
            raise
        except errors.Error:
            # The request has its answer, or will never have one.
            self._requests = self._requests[:-1]
            raise
        if answer is None:
            if not is_running:
                raise errors.NoAnswer(last.what, connection.limit)
            return False
        connection.of_kind(last.what, answer, "command_output")
        # The request of a guest that has stopped since may have been answered before the stop.
        return not is_running and _text(last) != b""


def _text(request: Pending) -> bytes:
    return b"" if request.answer is None else request.answer.command_output
