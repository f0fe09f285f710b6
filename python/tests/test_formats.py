"""Messages and registers as bytes and values, without a VMM."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import random
import sys
from pathlib import Path

import pytest
from google.protobuf.message import DecodeError

import trapgate
from trapgate import registers, strict
from trapgate.debug.v1 import messages_pb2, registers_pb2

_PROJECT = Path(__file__).resolve().parent.parent
_RECORDED = _PROJECT.parent / "vmm_core_defs/src/wire/tests/version1.txt"


def recorded() -> list[tuple[bytes, bytes]]:
    """The recorded requests and answers of version 1."""
    pairs = []
    for line in _RECORDED.read_text().splitlines():
        columns = line.split("|")
        if len(columns) >= 4:
            pairs.append((bytes.fromhex(columns[1]), bytes.fromhex(columns[3])))
    return pairs


def test_the_recorded_messages_of_version_1_are_read_and_written_alike() -> None:
    pairs = recorded()
    assert len(pairs) > 50
    for request, answer in pairs:
        for kind, data in ((messages_pb2.Request, request), (messages_pb2.Answer, answer)):
            strict.check(kind.DESCRIPTOR, memoryview(data))
            message = kind.FromString(data)
            again = kind.FromString(message.SerializeToString())
            assert again == message and message.WhichOneof("kind") is not None


def test_what_the_check_lets_through_is_decoded_without_loss() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    generator = random.Random(seed)
    answers = [answer for _, answer in recorded()]
    refused = 0
    for _ in range(5000):
        data = bytearray(generator.choice(answers))
        for _ in range(generator.randint(1, 3)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        try:
            strict.check(messages_pb2.Answer.DESCRIPTOR, memoryview(data))
        except strict.Unusable:
            refused += 1
            continue
        try:
            answer = messages_pb2.Answer.FromString(bytes(data))
        except DecodeError as error:
            # Text that is not UTF-8 is the only thing that the check leaves to the decoder.
            assert "utf" in str(error).lower() or "parsing" in str(error).lower(), error
            continue
        # A field that the decoder does not know, or a second value of a field, would be lost in one of the two.
        without = messages_pb2.Answer.FromString(bytes(data))
        without.DiscardUnknownFields()
        assert without == answer
    assert refused > 500


def _x86() -> registers_pb2.VpState:
    state = registers_pb2.VpState(x86_64=registers_pb2.X86VpState(gp=[0] * 16, pkru=0, xcr0=0))
    state.x86_64.debug.db.extend([0] * 4)
    return state


def _arm64() -> registers_pb2.VpState:
    return registers_pb2.VpState(aarch64=registers_pb2.Aarch64VpState(x=[0] * 31))


@pytest.mark.parametrize("state", [_x86(), _arm64()], ids=["x86", "arm64"])
def test_every_register_is_read_back_and_no_two_are_the_same(state: registers_pb2.VpState) -> None:
    names = registers.names(state)
    for value, name in enumerate(names, 1):
        registers.put(state, name, value)
    assert [registers.get(state, name) for name in names] == list(range(1, len(names) + 1))
    assert len(names) > 35


def test_a_register_that_a_vp_lacks_is_refused() -> None:
    state = _x86()
    state.x86_64.ClearField("pkru")
    for name in ("pkru", "x0", "eax", ""):
        with pytest.raises(trapgate.NoSuchRegister) as caught:
            registers.put(state, name, 1)
        assert "pkru" not in caught.value.known and "xcr0" in caught.value.known


def test_arguments_are_where_the_calling_convention_has_them() -> None:
    state = _x86()
    registers.put(state, "rsp", 0x1000)
    registers.put(state, "r9", 6)
    assert registers.argument(state, 0) is None
    registers.put(state, "efer", 1 << 10)
    state.x86_64.cs.attributes = 1 << 13
    assert registers.argument(state, 5) == ("value", 6)
    assert [registers.argument(state, number) for number in (6, 7)] == [("stack", 0x1008), ("stack", 0x1010)]
    with pytest.raises(ValueError, match="counted from 0"):
        registers.argument(state, -1)
    arm = _arm64()
    registers.put(arm, "x7", 8)
    registers.put(arm, "sp_el1", 0x1000)
    assert [registers.argument(arm, number) for number in (7, 8)] == [("value", 8), ("stack", 0x1000)]


def test_the_program_counter_has_the_base_outside_64_bit_code() -> None:
    state = _x86()
    state.x86_64.cs.base = 0xFFFF_0000
    registers.put(state, "rip", 0x1FFF0)
    assert registers.pc(state) == 0xFFF0


def test_the_generated_files_are_what_the_sources_make() -> None:
    for package, wanted in (("grpcio-tools", "1.51.3"), ("mypy-protobuf", "3.3.0")):
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found = "not installed"
        if found != wanted:
            pytest.skip(f"{package} {wanted} is needed ({found}): pip install trapgate-debug-client[generate]")
    spec = importlib.util.spec_from_file_location("generate", _PROJECT / "generate.py")
    assert spec is not None and spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    sys.modules["generate"] = generate
    spec.loader.exec_module(generate)
    assert generate.stale() == []
