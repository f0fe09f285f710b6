//! Tracepoints (GDB manual, node "Tracepoint Packets").

use super::Command;
use super::CommandError;
use super::syntax;
use crate::target::FrameSelection;
use crate::target::TraceAction;
use crate::target::TraceOp;
use crate::target::TracepointId;

const DEFINE: &str = "QTDP:n:addr:ena:step:pass[:Xlen,bytes][-], or QTDP:-n:addr:action...[-], with numbers in hex, ena E or D, and the actions R mask, M basereg,offset,len and X len,expr";
const ID: &str = "the packet, then n:addr in hex";
const FRAME: &str = "QTFrame:n, QTFrame:pc:addr, QTFrame:tdp:n, QTFrame:range:start:end, or QTFrame:outside:start:end, in hex";
const SOURCE: &str = "QTDPsrc:n:addr:type:start:slen:bytes";
const BUFFER: &str = "QTBuffer:circular:0 or 1, QTBuffer:size:size, or qTBuffer:offset,len, in hex";
const READ_ONLY: &str = "QTro:start1,end1:start2,end2:..., in hex";
const FLAG: &str = "QTDisconnected:0 or 1";

type Parsed = Result<Command<'static>, CommandError>;

/// The packets whose name begins with `QT` or `qT`, but `qTh...`. `name` ends before the first `:`.
pub(super) fn parse(name: &[u8], arguments: &[u8]) -> Parsed {
    let rest = arguments.strip_prefix(b":").unwrap_or_default();
    let op = match (name, arguments) {
        (b"QTinit", b"") => TraceOp::Init,
        (b"QTDP", _) => return define(rest),
        (b"QTDPsrc", _) => source(rest)?,
        (b"QTDV", _) => TraceOp::Variable,
        (b"QTro", _) => read_only(rest)?,
        (b"QTStart", b"") => TraceOp::Start,
        (b"QTStop", b"") => TraceOp::Stop,
        (b"qTStatus", b"") => TraceOp::Status,
        (b"qTP", _) => TraceOp::Hits(id(rest)?),
        (b"QTEnable", _) => TraceOp::Switch(id(rest)?, true),
        (b"QTDisable", _) => TraceOp::Switch(id(rest)?, false),
        (b"QTFrame", _) => TraceOp::Select(frame(rest).ok_or(CommandError::Syntax(FRAME))?),
        (b"qTfP", b"") => TraceOp::FirstDefinition,
        (b"qTsP", b"") => TraceOp::NextDefinition,
        (b"qTfV" | b"qTsV", b"") => TraceOp::FirstVariable,
        (b"qTBuffer", _) => {
            let (offset, len) = syntax::range(rest).ok_or(CommandError::Syntax(BUFFER))?;
            TraceOp::Buffer { offset, len }
        }
        (b"QTBuffer", _) => buffer(rest).ok_or(CommandError::Syntax(BUFFER))?,
        (b"QTDisconnected", _) => {
            TraceOp::Disconnected(flag(rest).ok_or(CommandError::Syntax(FLAG))?)
        }
        // "QTNotes": GDB shows the notes of the server only.
        (b"QTNotes", _) => TraceOp::Notes,
        _ => return Ok(Command::Unknown),
    };
    Ok(Command::Trace(op))
}

/// `n:addr`.
fn id(rest: &[u8]) -> Result<TracepointId, CommandError> {
    let (id, behind) = id_before(rest).ok_or(CommandError::Syntax(ID))?;
    behind
        .is_empty()
        .then_some(id)
        .ok_or(CommandError::Syntax(ID))
}

/// `n:addr`, and what is behind the next `:`.
fn id_before(rest: &[u8]) -> Option<(TracepointId, &[u8])> {
    let (number, rest) = syntax::split_once(rest, b':')?;
    let (address, behind) = syntax::split_once(rest, b':').unwrap_or((rest, &[]));
    let id = TracepointId {
        number: syntax::number(number)?.try_into().ok()?,
        address: syntax::number(address)?,
    };
    Some((id, behind))
}

/// "Create a new tracepoint, number n, at addr. If ena is ‘E’, then the tracepoint is enabled; if it is ‘D’, then the tracepoint is disabled. step gives the tracepoint’s step
/// count, and pass gives its pass count." "Define actions to be taken when a tracepoint is hit."
fn define(rest: &[u8]) -> Parsed {
    let text = rest.strip_suffix(b"-").unwrap_or(rest);
    let op = match text.strip_prefix(b"-") {
        Some(text) => actions(text)?,
        None => tracepoint(text)?,
    };
    Ok(Command::Trace(op))
}

fn tracepoint(text: &[u8]) -> Result<TraceOp, CommandError> {
    let syntax = CommandError::Syntax(DEFINE);
    let (id, rest) = id_before(text).ok_or(syntax)?;
    let mut parts = rest.split(|byte| *byte == b':');
    let enabled = match parts.next() {
        Some(b"E") => true,
        Some(b"D") => false,
        _ => return Err(syntax),
    };
    let mut number = || parts.next().and_then(syntax::number).ok_or(syntax);
    let (steps, pass_count) = (number()?, number()?);
    let mut condition = None;
    for part in parts {
        condition = match part.split_first() {
            Some((b'X', code)) if condition.is_none() => match expression(code) {
                Some((code, b"")) => Some(code),
                _ => return Err(syntax),
            },
            Some((b'F', _)) => return Err(CommandError::FastTracepoint),
            Some((b'S', _)) => return Err(CommandError::StaticTracepoint),
            _ => return Err(syntax),
        };
    }
    match steps {
        0 => Ok(TraceOp::Define {
            id,
            enabled,
            pass_count,
            condition,
            text: as_text(b'T', text).ok_or(syntax)?,
        }),
        _ => Err(CommandError::WhileStepping),
    }
}

fn actions(text: &[u8]) -> Result<TraceOp, CommandError> {
    let syntax = CommandError::Syntax(DEFINE);
    let (id, mut rest) = id_before(text).ok_or(syntax)?;
    let mut actions = Vec::new();
    while let Some((kind, behind)) = rest.split_first() {
        let action = match kind {
            b'R' => registers(behind),
            b'M' => memory(behind),
            b'X' => expression(behind).map(|(code, rest)| (TraceAction::Expression(code), rest)),
            b'S' => return Err(CommandError::WhileStepping),
            b'L' => return Err(CommandError::StaticTracepoint),
            _ => None,
        };
        let (action, behind) = action.ok_or(syntax)?;
        actions.push(action);
        rest = behind;
    }
    Ok(TraceOp::Actions {
        id,
        actions,
        text: as_text(b'A', text).ok_or(syntax)?,
    })
}

/// `R mask`: "Collect the registers whose bits are set in mask, a hexadecimal number whose i’th bit is set if register number i should be collected."
fn registers(rest: &[u8]) -> Option<(TraceAction, &[u8])> {
    let digits = rest.iter().take_while(|byte| byte.is_ascii_hexdigit());
    let (mask, rest) = rest.split_at(digits.count());
    // More registers than any target has.
    if mask.is_empty() || mask.len() > 1024 {
        return None;
    }
    let mut numbers = Vec::new();
    for (place, digit) in (0_u16..).zip(mask.iter().rev()) {
        let digit = char::from(*digit).to_digit(16)?;
        numbers.extend(
            (0..4)
                .filter(|bit| digit >> bit & 1 != 0)
                .map(|bit| 4 * place + bit),
        );
    }
    Some((TraceAction::Registers(numbers), rest))
}

/// `M basereg,offset,len`: "Collect len bytes of memory starting at the address in register number basereg, plus offset. If basereg is ‘-1’, then the range has a fixed address."
fn memory(rest: &[u8]) -> Option<(TraceAction, &[u8])> {
    let (base, rest) = syntax::split_once(rest, b',')?;
    let (offset, rest) = syntax::split_once(rest, b',')?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_hexdigit());
    let (len, rest) = rest.split_at(digits.count());
    let base = match base {
        b"-1" | b"FFFFFFFF" | b"ffffffff" => None,
        base => Some(syntax::number(base)?.try_into().ok()?),
    };
    let action = TraceAction::Memory {
        base,
        offset: syntax::number(offset)?,
        len: syntax::number(len)?,
    };
    Some((action, rest))
}

/// `len,expr` behind `X`: bytecode, and what is behind.
fn expression(rest: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (len, code) = syntax::split_once(rest, b',')?;
    let digits = usize::try_from(syntax::number(len)?).ok()?.checked_mul(2)?;
    let (code, rest) = code.split_at_checked(digits)?;
    Some((syntax::bytes(code)?, rest))
}

/// The packet as the server returns it: "These packets request data about tracepoints that are being used by the target."
fn as_text(kind: u8, text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    let is_plain = text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() || byte == b' ');
    is_plain.then(|| format!("{}{text}", char::from(kind)))
}

/// "Specify a source string of tracepoint n at address addr. This is useful to get accurate reproduction of the tracepoints originally downloaded."
fn source(rest: &[u8]) -> Result<TraceOp, CommandError> {
    let syntax = CommandError::Syntax(SOURCE);
    let (id, fields) = id_before(rest).ok_or(syntax)?;
    let mut fields = fields.splitn(4, |byte| *byte == b':');
    let kind = fields.next().ok_or(syntax)?;
    let mut number = || fields.next().and_then(syntax::number).ok_or(syntax);
    let _start_and_length = (number()?, number()?);
    let bytes = fields.next().and_then(syntax::bytes);
    if kind.is_empty() || bytes.is_none() {
        return Err(syntax);
    }
    let text = as_text(b'Z', rest).ok_or(syntax)?;
    Ok(TraceOp::Source { id, text })
}

/// "Establish the given ranges of memory as “transparent”. The stub will answer requests for these ranges from memory’s current contents, if they were not collected as part of the
/// tracepoint hit." GDB sends addresses of sections, with the end behind the last byte.
fn read_only(rest: &[u8]) -> Result<TraceOp, CommandError> {
    let ranges = rest
        .split(|byte| *byte == b':')
        .filter(|range| !range.is_empty());
    let ranges: Option<Vec<_>> = ranges.map(syntax::range).collect();
    Ok(TraceOp::ReadOnly(
        ranges.ok_or(CommandError::Syntax(READ_ONLY))?,
    ))
}

/// "Select the n’th tracepoint frame from the buffer [...] Like ‘QTFrame:n’, but select the first tracepoint frame after the currently selected frame whose PC is addr [...]; with tdp, which
/// came from tracepoint number t; [...] range: whose PC is between start (inclusive) and end (inclusive); outside".
fn frame(rest: &[u8]) -> Option<FrameSelection> {
    let (which, rest) = match syntax::split_once(rest, b':') {
        None => {
            let number = syntax::number(rest)?;
            // -1 selects none. GDB sends it as a number of 32 bits.
            return Some(match number {
                0xffff_ffff | u64::MAX => FrameSelection::None,
                number => FrameSelection::Number(number),
            });
        }
        Some(parts) => parts,
    };
    let range = || {
        let (first, last) = syntax::split_once(rest, b':')?;
        Some((syntax::number(first)?, syntax::number(last)?))
    };
    match which {
        b"pc" => {
            let address = syntax::number(rest)?;
            Some(FrameSelection::Inside(address, address))
        }
        b"tdp" => Some(FrameSelection::Tracepoint(
            syntax::number(rest)?.try_into().ok()?,
        )),
        b"range" => range().map(|(first, last)| FrameSelection::Inside(first, last)),
        b"outside" => range().map(|(first, last)| FrameSelection::Outside(first, last)),
        _ => None,
    }
}

fn buffer(rest: &[u8]) -> Option<TraceOp> {
    let (what, value) = syntax::split_once(rest, b':')?;
    match what {
        b"circular" => flag(value).map(TraceOp::Circular),
        b"size" if value == b"-1" => Some(TraceOp::BufferSize(None)),
        b"size" => syntax::number(value).map(|size| TraceOp::BufferSize(Some(size))),
        _ => None,
    }
}

fn flag(value: &[u8]) -> Option<bool> {
    match syntax::number(value)? {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}
