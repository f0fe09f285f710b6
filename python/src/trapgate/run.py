"""Whether the guest runs, and where it stopped last."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from trapgate import errors
from trapgate.debug.v1 import messages_pb2, nothing_pb2, run_pb2
from trapgate.pending import Pending
from trapgate.refusals import refused
from trapgate.session import Session
from trapgate.stop import Stop, StopKind


class _State(NamedTuple):
    last: Stop
    # The VP of the last stop that concerned one VP.
    current: int
    # The request whose answer is the next stop.
    running: Pending | None


class Run:
    """The guest's run. Its state is one value, which one assignment replaces, and a stop stays in its request until it is in the state: an exception of a signal's handler, such as
    `KeyboardInterrupt`, may come at any instruction."""

    def __init__(self, session: Session, stop: run_pb2.StopEvent) -> None:
        self._session = session
        last = self._stop("attach", stop)
        self._state = _State(last, _current(last, None), None)

    @property
    def last(self) -> Stop:
        """The last stop."""
        return self._state.last

    @property
    def current(self) -> int:
        """See `Debugger.current`."""
        return self._state.current

    @property
    def is_running(self) -> bool:
        """Whether a stop can be waited for."""
        return self._running() is not None

    def _running(self) -> Pending | None:
        running = self._state.running
        # An exception may have come before the request was sent.
        return running if running is not None and self._session.connection.is_begun(running) else None

    def resume(self) -> None:
        """Lets all VPs run."""
        self._begin(run_pb2.ResumeRequest(others=run_pb2.VpAction(run=nothing_pb2.Nothing())))

    def step(self, vp: int, count: int) -> Stop:
        """A VP executes `count` instructions, and the other VPs stay where they are."""
        if count == 1:
            # An older VMM knows this one.
            action, wanted = run_pb2.VpAction(step=nothing_pb2.Nothing()), "the end of a step"
        else:
            action, wanted = run_pb2.VpAction(step_n=run_pb2.VpAction.StepN(count=count)), "the end of the steps"
        stay = run_pb2.VpAction(stay=nothing_pb2.Nothing())
        self._begin(run_pb2.ResumeRequest(others=stay, actions=[run_pb2.OneVpAction(vp=vp, action=action)]))
        return self.wait(wanted, self._session.connection.limit, lambda stop: stop.kind is StopKind.STEP)

    def _begin(self, request: run_pb2.ResumeRequest) -> None:
        if self._running() is not None:
            raise errors.Running
        running = self._session.connection.request("run the guest")
        self._state = self._state._replace(running=running)
        self._session.send(running, messages_pb2.Request(resume=request))

    def interrupt(self) -> Stop:
        """Stops the guest, if it runs, and returns the last stop."""
        if self._running() is None:
            return self._state.last
        what = "interrupt the guest"
        self._session.call(what, messages_pb2.Request(break_=nothing_pb2.Nothing()), "done")
        # The stop is answered before the interruption.
        limit = self._session.connection.limit
        stop = self._stop_within(limit)
        if stop is None:
            raise errors.NoAnswer(what, limit)
        return stop

    def wait(self, wanted: str, timeout: float | None, is_wanted: Callable[[Stop], bool]) -> Stop:
        """Waits for a stop of the running guest. Every other one is an exception."""
        stop = self._stop_within(timeout)
        if stop is None:
            # What was waited for may come just before the interruption.
            stop = self.interrupt()
            if stop.kind is StopKind.INTERRUPT or not is_wanted(stop):
                raise errors.TimedOut(wanted, timeout or 0, stop)
        if not is_wanted(stop):
            raise errors.OtherStop(wanted, stop)
        return stop

    def _stop_within(self, timeout: float | None) -> Stop | None:
        """The stop of the running guest, if it comes in time."""
        if not self._session.attached:
            raise errors.SessionEnded("wait for a stop")
        connection = self._session.connection
        running = self._running()
        if running is None:
            if connection.end_of_guest is not None:
                raise refused("wait for a stop", connection.end_of_guest)
            raise errors.NotRunning
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            answer = connection.answer(running, deadline)
        except errors.InUse:
            raise
        except errors.Error:
            # The request has its answer, or will never have one.
            self._state = self._state._replace(running=None)
            raise
        if answer is None:
            return None
        stop = self._stop(running.what, connection.of_kind(running.what, answer, "stop").stop)
        self._state = _State(stop, _current(stop, self._state.current), None)
        return stop

    def _stop(self, what: str, event: run_pb2.StopEvent) -> Stop:
        try:
            return Stop.of(event)
        except ValueError as error:
            self._session.connection.unusable(what, str(error))


def _current(stop: Stop, before: int | None) -> int:
    """The VP of the stop. If the stop concerned the whole guest: the VP of the stop before, while the guest has this VP, or else the first VP."""
    if stop.vp is not None:
        return stop.vp
    return before if before is not None and before in stop.vps else next(iter(stop.vps), 0)
