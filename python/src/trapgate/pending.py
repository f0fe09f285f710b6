"""Requests and their answers."""

from __future__ import annotations

import weakref

from trapgate.debug.v1 import messages_pb2


class Pending:
    """A request of the program, and its answer once it has come. The answer stays here, so an exception between two instructions loses nothing.

    A request whose value the program has dropped is one whose answer nobody waits for.
    """

    __slots__ = ("__weakref__", "answer", "at", "is_sent", "number", "place", "wanted", "what")

    def __init__(self, number: int, what: str) -> None:
        self.number = number
        #: The request as a verb phrase.
        self.what = what
        #: Whether the program waits for the answer, or will.
        self.wanted = True
        #: Whether all of its bytes are sent.
        self.is_sent = False
        #: Where the memory of the answer is wanted. `None` once it is there.
        self.place: memoryview | None = None
        self.answer: messages_pb2.Answer | None = None
        #: The number of the frame with the answer.
        self.at = -1


class Requests:
    """The requests without an answer, by their numbers."""

    def __init__(self) -> None:
        self._known: dict[int, weakref.ref[Pending]] = {}

    def add(self, request: Pending) -> None:
        """A request that is about to be sent."""
        self._known[request.number] = weakref.ref(request)

    def __contains__(self, number: int) -> bool:
        return number in self._known

    def wanted(self, number: int) -> Pending | None:
        """A request whose answer is waited for."""
        known = self._known.get(number)
        request = None if known is None else known()
        return request if request is not None and request.wanted else None

    def remove(self, number: int) -> None:
        """A request that has its answer."""
        self._known.pop(number, None)
