"""Other sides of the socket that are no VMM, or a mad one."""

from __future__ import annotations

import threading

import pytest

import trapgate
from peer import HELLO, Peer, Serve, attached, frame
from trapgate import StopKind
from trapgate.debug.v1 import errors_pb2, memory_pb2, messages_pb2, nothing_pb2, run_pb2
from trapgate.refusals import refused

#: In seconds, for requests that get no answer.
SHORT = 0.3

@pytest.mark.parametrize(
    ("address", "kind", "hint"),
    [
        ("127.0.0.1:1234", trapgate.BadAddress, "unix:PATH"),
        ("unix:", trapgate.BadAddress, "unix:PATH"),
        ("unix:/nonexistent/rpc", trapgate.ConnectFailed, "--rpc unix:/nonexistent/rpc"),
        ("unix:/" + "x" * 200, trapgate.ConnectFailed, "too long"),
    ],
)
def test_an_address_without_a_vmm_says_what_to_do(address: str, kind: type[trapgate.Error], hint: str) -> None:
    with pytest.raises(kind, match=hint):
        trapgate.connect(address)


_FIELD_9 = bytes([9 << 3, 1])


@pytest.mark.parametrize(
    ("bytes_", "kind"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", trapgate.OtherProtocol),
        (frame(b"GET / HTTP/1.1"), trapgate.OtherProtocol),
        (frame(messages_pb2.Hello(protocol="other", oldest=1, newest=1).SerializeToString()), trapgate.OtherProtocol),
        # Version 1 of 2 to the 32 more, as `newest`, and two values of `newest`.
        (frame(HELLO[:-2] + bytes([3 << 3, 0x81, 0x80, 0x80, 0x80, 0x10])), trapgate.OtherProtocol),
        (frame(HELLO + bytes([3 << 3, 1])), trapgate.OtherProtocol),
        (
            frame(messages_pb2.Hello(protocol="trapgate debug", oldest=2, newest=7).SerializeToString() + _FIELD_9),
            trapgate.OtherVersion,
        ),
    ],
)
def test_another_hello(serve: Serve, bytes_: bytes, kind: type[trapgate.Error]) -> None:
    def play(peer: Peer) -> None:
        peer.socket.sendall(bytes_)
        peer.until_closed()

    with pytest.raises(kind) as caught:
        trapgate.connect(serve(play))
    if isinstance(caught.value, trapgate.OtherVersion):
        assert (caught.value.oldest, caught.value.newest) == (2, 7)


def test_a_hello_of_a_later_version_that_speaks_ours(serve: Serve) -> None:
    def play(peer: Peer) -> None:
        assert peer.receive() == HELLO
        later = messages_pb2.Hello(protocol="trapgate debug", oldest=1, newest=7).SerializeToString()
        peer.send(later + _FIELD_9)
        peer.answer(peer.request().id, attached=attached())
        peer.until_closed()

    trapgate.connect(serve(play), request_limit=5)._session.connection.close()


def test_a_vmm_that_closes_or_is_silent(serve: Serve) -> None:
    with pytest.raises(trapgate.Gone, match="8 programs"):
        trapgate.connect(serve(lambda peer: None))


def test_a_vmm_that_is_silent(serve: Serve) -> None:
    with pytest.raises(trapgate.NoAnswer, match="within 0.3 s"):
        trapgate.connect(serve(Peer.until_closed), request_limit=SHORT)


def _memory(number: int, data: bytes) -> bytes:
    return messages_pb2.Answer(id=number, memory=data).SerializeToString()


#: The answers to `Request { id: 2, read_memory of 8 bytes }`.
_BAD_ANSWERS = {
    "a field that this version does not know": _memory(2, b"12345678") + bytes([31 << 3 & 0x7F | 0x80, 1, 1]),
    "a field twice": _memory(2, b"12345678") + bytes([1 << 3, 2]),
    "two kinds": _memory(2, b"12345678") + messages_pb2.Answer(done=nothing_pb2.Nothing()).SerializeToString(),
    "no message": b"\xff" * 12,
    "half a message": _memory(2, b"12345678")[:-1],
    "a number out of range": bytes([1 << 3, 2, 18 << 3 & 0x7F | 0x80, 1, 0x80, 0x80, 0x80, 0x80, 0x10]),
    "a value of an enum": bytes([1 << 3, 2, 15 << 3 | 2, 0]),
    "another kind": messages_pb2.Answer(id=2, done=nothing_pb2.Nothing()).SerializeToString(),
    "more bytes": _memory(2, b"123456789"),
    "another number": _memory(3, b"12345678"),
    "a number of before": _memory(1, b"12345678"),
    "a request that could not be read": messages_pb2.Answer(
        error=errors_pb2.DebugError(bad_message=errors_pb2.BadMessage(bad_id=errors_pb2.BadMessage.BadId(id=2)))
    ).SerializeToString(),
}


@pytest.mark.parametrize("what", _BAD_ANSWERS)
def test_an_answer_that_cannot_be_used_ends_the_connection(serve: Serve, what: str) -> None:
    def play(peer: Peer) -> None:
        peer.attach()
        assert peer.request().id == 2
        peer.send(_BAD_ANSWERS[what])
        peer.until_closed()

    vm = trapgate.connect(serve(play), request_limit=5)
    with pytest.raises(trapgate.BadAnswer, match="read memory: .* use the same release"):
        vm.read(0x1000, 8)
    with pytest.raises(trapgate.Gone):
        vm.read(0x1000, 8)


def test_a_frame_that_is_too_long_is_not_received(serve: Serve) -> None:
    def play(peer: Peer) -> None:
        peer.attach()
        peer.request()
        peer.socket.sendall(b"\xff\xff\xff\xff")
        peer.until_closed()

    vm = trapgate.connect(serve(play), request_limit=5)
    with pytest.raises(trapgate.BadAnswer, match="4294967295 bytes"):
        vm.read(0x1000, 8)


@pytest.mark.parametrize("sent", [0, 3, 9])
def test_a_vmm_that_dies_within_an_answer(serve: Serve, sent: int) -> None:
    def play(peer: Peer) -> None:
        peer.attach()
        peer.request()
        peer.socket.sendall(frame(_memory(2, b"12345678"))[:sent])

    with trapgate.connect(serve(play), request_limit=5) as vm, pytest.raises(trapgate.Gone, match="read memory"):
        vm.read(0x1000, 8)


def test_answers_may_come_in_pieces_and_in_any_order(serve: Serve) -> None:
    part = 4 << 20
    data = bytes(range(256)) * (3 * part // 256)

    def play(peer: Peer) -> None:
        peer.attach()
        for byte in frame(_memory(peer.request().id, b"12345678")):
            peer.socket.sendall(bytes([byte]))
        numbers = [peer.request().id for _ in range(3)]
        for index in (2, 0, 1):
            message = frame(_memory(numbers[index], bytes([index]) + data[index * part + 1 : (index + 1) * part]))
            for start in range(0, len(message), 100_003):
                peer.socket.sendall(message[start : start + 100_003])
        peer.answer(peer.request().id, done=nothing_pb2.Nothing())

    with trapgate.connect(serve(play), request_limit=20) as vm:
        assert vm.read(0x1000, 8) == b"12345678"
        whole = vm.read(0x1000, 3 * part)
        assert len(whole) == 3 * part
        for index in range(3):
            start = index * part
            assert whole[start] == index and whole[start + 1 : start + part] == data[start + 1 : start + part]


def test_an_answer_that_comes_too_late_is_dropped(serve: Serve) -> None:
    def play(peer: Peer) -> None:
        peer.attach()
        late, next_ = peer.request(), peer.request()
        peer.send(_memory(late.id, b"late"), _memory(next_.id, b"next"))
        peer.until_closed()

    vm = trapgate.connect(serve(play), request_limit=SHORT)
    with pytest.raises(trapgate.NoAnswer, match="it has paused"):
        vm.read(0x1000, 4)
    vm._session.connection.limit = 5
    assert vm.read(0x1000, 4) == b"next"
    vm._session.connection.close()


def test_a_request_that_the_vmm_drops(serve: Serve) -> None:
    def play(peer: Peer) -> None:
        peer.attach()
        peer.answer(peer.request().id)
        peer.until_closed()

    vm = trapgate.connect(serve(play), request_limit=5)
    with pytest.raises(trapgate.Gone, match="the guest is gone"):
        vm.read(0x1000, 4)
    vm._session.connection.close()


def test_text_that_comes_too_late_is_returned_by_the_next_call(serve: Serve) -> None:
    go_on = threading.Event()

    def play(peer: Peer) -> None:
        peer.attach()
        first = peer.request()
        assert go_on.wait(10)
        peer.answer(first.id, command_output=b"late")
        peer.answer(peer.request().id, command_output=b"")
        peer.until_closed()

    vm = trapgate.connect(serve(play), request_limit=SHORT)
    # The guest is stopped, so the answer does not wait for text.
    with pytest.raises(trapgate.NoAnswer, match="breakpoints have printed"):
        vm.printed()
    go_on.set()
    vm._session.connection.limit = 5
    assert vm.printed() == "late"
    vm._session.connection.close()


def test_a_vmm_that_reads_late(serve: Serve) -> None:
    go_on = threading.Event()

    def play(peer: Peer) -> None:
        peer.attach()
        assert go_on.wait(10)
        write, read = peer.request(), peer.request()
        assert write.write_memory.data == bytes(8 << 20) and read.read_memory.len == 4
        peer.answer(write.id, done=nothing_pb2.Nothing())
        peer.answer(read.id, memory=b"1234")
        peer.until_closed()

    vm = trapgate.connect(serve(play), request_limit=SHORT)
    with pytest.raises(trapgate.NoAnswer, match="write memory"):
        vm.write(0x1000, bytes(8 << 20))
    # A part of the frame was sent, and the rest has to come before any other.
    with pytest.raises(trapgate.NoAnswer, match="read memory"):
        vm.read(0x1000, 4)
    vm._session.connection.limit = 10
    go_on.set()
    assert vm.read(0x1000, 4) == b"1234"
    vm._session.connection.close()


def test_an_event_that_the_vmm_cannot_report(serve: Serve) -> None:
    def play(peer: Peer) -> None:
        peer.attach()
        request = peer.request()
        assert request.stop_on.value == 0b1010
        peer.answer(request.id, stop_on=0b0010)
        peer.until_closed()

    vm = trapgate.connect(serve(play), request_limit=5)
    with pytest.raises(trapgate.NoStopOn, match="a panic of the guest's kernel cannot be a stop: .* set a breakpoint") as caught:
        vm.stop_on({StopKind.PANIC, StopKind.POWER_OFF})
    assert caught.value.event is StopKind.PANIC
    vm._session.connection.close()


def test_requests_have_numbers_and_the_session(serve: Serve) -> None:
    seen: list[messages_pb2.Request] = []

    def play(peer: Peer) -> None:
        peer.receive()
        peer.send(HELLO)
        seen.append(peer.request())
        peer.answer(seen[0].id, attached=attached())
        seen.append(peer.request())
        peer.answer(seen[1].id, memory=b"1234")
        seen.append(peer.request())
        peer.answer(seen[2].id, done=nothing_pb2.Nothing())

    with trapgate.connect(serve(play), if_lost=trapgate.IfLost.KILL, request_limit=5) as vm:
        vm.read_physical(0x1000, 4)
    assert [(request.id, request.session) for request in seen] == [(1, 0), (2, 7), (3, 7)]
    assert seen[0].attach == run_pb2.DETACH_ACTION_KILL and seen[2].detach == run_pb2.DETACH_ACTION_KILL_UNLESS_HELD
    assert seen[1].read_memory == memory_pb2.ReadMemory(address=memory_pb2.GuestAddress(gpa=0x1000), len=4)


@pytest.mark.parametrize("kind", [field.name for field in errors_pb2.DebugError.DESCRIPTOR.fields])
def test_every_refusal_says_what_to_do(kind: str) -> None:
    error = errors_pb2.DebugError()
    getattr(error, kind).SetInParent()
    raised = refused("do this", error)
    assert raised.kind == kind and raised.detail is error
    text = str(raised)
    assert text.startswith("do this: ") and "{" not in text
    assert any(mark in text for mark in (";", ":")) and len(text) > 30
