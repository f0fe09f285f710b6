"""The VMM's reasons to refuse a request, as exceptions."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from trapgate import ends, errors
from trapgate.debug.v1 import errors_pb2

_CLASSES: dict[str, type[errors.Refused]] = {
    "already_attached": errors.AlreadyAttached,
    "not_stopped": errors.NotStopped,
    "ended": errors.GuestEnded,
    "no_such_vp": errors.NoSuchVp,
    "not_mapped": errors.NotMapped,
    "no_memory": errors.NoMemory,
    "unsupported": errors.Unsupported,
}

# The names in braces are fields of the reason. The words behind them come from `describe`.
_TEXTS = {
    "already_attached": "another debugger is attached to this guest; detach it first",
    "not_attached": "no debugger is attached; connect again",
    "not_your_session": "this session has ended, and another debugger may be attached; connect again",
    "detached": "the debugger detached before the guest stopped; connect again",
    "ended": "the guest has ended: {how}",
    "not_stopped": "the guest is running; interrupt it first",
    "no_such_vp": "there is no VP {vp}, or not any more: this guest has {count}",
    "nothing_to_run": "no VP is to run; resume or step at least one",
    "not_mapped": "no page maps {gva} on VP {vp}: {why}; read a mapped address, or let the guest map it first",
    "no_memory": "neither memory nor a device is at physical address {gpa}; give the address of RAM",
    "memory_out_of_reach": "the memory at physical address {gpa} is out of reach: the VMM has mapped it read-only or without "
    "access, or the file behind it has shrunk; a breakpoint there needs a debug register",
    "bad_length": "{len} bytes from {address} are too long for one request or pass the end of the address space; ask for less",
    "bad_condition": "a condition of the breakpoint at {address} is refused: {problem}",
    "bad_breakpoint": "cannot watch {len} bytes at {address}: x86 watches 1, 2, 4 or 8 bytes at a multiple of that length",
    "too_many_breakpoints": "{limit} breakpoints are set, and this VMM permits no more; remove some first",
    "no_free_slot": "all {slots} debug registers are in use; remove a breakpoint that has one",
    "guest_uses_slots": "of the {slots} debug registers the guest uses {guest} and your breakpoints have {yours}; use a software "
    "breakpoint, or remove one of yours",
    "not_executable": "the page of {address} is not executable, and no debug register is free; remove a watchpoint",
    "no_such_breakpoint": "no such breakpoint at {address} is set; set it first",
    "bad_register": "register {name}: {reason}; give another value",
    "unsupported": "not possible here: {kind}; `trapgate doctor` shows what works on this host",
    "overdue": "{call} has not returned for {seconds} s: the VMM's code blocks there; see the VMM's log",
    "machine_failed": "{call} {how}: the fault is in the VMM's code; see the VMM's log, then try again or start the guest again",
    "no_thread": "the host refused a thread for {call}: {error}; raise the limit on processes (`ulimit -u`), then try again",
    "vp_thread_ended": "the thread of VP {vp} has ended, so the guest cannot continue; see the VMM's log, then start the guest again",
    "held_by_vmm": "VP {vp} is held by the VMM, which has paused the VM or works on the vCPU; continue the VM in the VMM, then try again",
    "no_device_access": "there is no RAM at {gpa}, and this VMM gives debuggers no access to devices; read the device with an "
    "instruction of the guest",
    "hypervisor": "the hypervisor refused to {call}: {error}; try again, and look at the log of the host's kernel",
    "runner_bug": "{kind}: this is a bug of the runner; report it with the VMM's log, then detach and attach again",
    "bad_message": "the message could not be used: {kind}; use the same release on both sides",
}


def refused(request: str, error: errors_pb2.DebugError) -> errors.Refused:
    """The exception for a reason. `request` is the request as a verb phrase."""
    kind = error.WhichOneof("kind")
    if kind is None:
        return errors.Refused(request, "unknown", error, "the VMM gives no reason; see its log")
    return _CLASSES.get(kind, errors.Refused)(request, kind, error, _text(kind, getattr(error, kind)))


def _text(kind: str, reason: Message) -> str:
    words = {field.name: _value(field, getattr(reason, field.name)) for field in reason.DESCRIPTOR.fields}
    words["kind"] = describe(reason)
    if isinstance(reason, errors_pb2.DebugError.Ended):
        words["how"] = ends.text_with_advice(reason.how)
    if isinstance(reason, errors_pb2.Unsupported) and reason.HasField("host"):
        host = {field.name: _value(field, getattr(reason.host, field.name)) for field in reason.host.DESCRIPTOR.fields}
        words["kind"] = f"this host lacks {host['kind']} ({host['support']}: {host['seen']})"
    return _TEXTS[kind].format_map(words)


def describe(message: Message) -> str:
    """A message in words: the names of its fields, and their values."""
    parts = []
    for field, value in message.ListFields():
        name = field.name.replace("_", " ").strip()
        if field.message_type is not None and not field.message_type.fields:
            parts.append(name)
        else:
            parts.append(f"{name} {_value(field, value)}".strip())
    return ", ".join(parts)


# The class of `field` differs between the releases of `protobuf`.
def _value(field: Any, value: object) -> str:
    if isinstance(value, Message):
        return describe(value)
    if field.enum_type is not None and isinstance(value, int):
        known = field.enum_type.values_by_number.get(value)
        prefix = "".join(f"_{letter}" if letter.isupper() else letter for letter in field.enum_type.name).strip("_").upper()
        return str(value) if known is None else known.name.removeprefix(f"{prefix}_").replace("_", " ").lower()
    if field.type == FieldDescriptor.TYPE_FIXED64 and isinstance(value, int):
        return f"{value:#x}"
    return str(value)
