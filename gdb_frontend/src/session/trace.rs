//! The replies to packets of tracepoints.

use super::Core;
use crate::framing::PACKET_SIZE;
use crate::framing::PacketWriter;
use crate::target::TraceReply;
use crate::target::TraceState;
use crate::target::TraceStatus;
use std::fmt::Write as _;

/// The most bytes of a reply to `qTBuffer`.
pub(super) const MOST_BYTES: u64 = (PACKET_SIZE / 2) as u64;

impl Core {
    pub(super) fn send_trace(&mut self, reply: TraceReply) {
        let text = match reply {
            TraceReply::Status(status) => status_text(&status),
            TraceReply::Hits { hits, bytes } => format!("V{hits:x}:{bytes:x}"),
            TraceReply::Frame(None) => "F-1".to_owned(),
            TraceReply::Frame(Some((frame, tracepoint))) => format!("F{frame:x}T{tracepoint:x}"),
            // "‘l’ (lower case letter ‘L’) to indicate that there is no more."
            TraceReply::Definition(definition) => definition.unwrap_or_else(|| "l".to_owned()),
            TraceReply::Bytes(bytes) if bytes.is_empty() => "l".to_owned(),
            TraceReply::Bytes(bytes) => {
                let mut packet = PacketWriter::with_capacity(2 * bytes.len());
                packet.hex(&bytes);
                return self.outbox.packet(packet.finish());
            }
            TraceReply::Collected(_) => return self.bad_argument("this is no document"),
        };
        self.text(&text);
    }
}

/// `T` and whether a trace runs, then `;` and the name and the value of each property. A time that is 0 is not known.
fn status_text(status: &TraceStatus) -> String {
    let TraceStatus {
        state,
        frames,
        created,
        free,
        size,
        circular,
    } = status;
    let runs = u8::from(*state == TraceState::Running);
    let why = match state {
        TraceState::Running => String::new(),
        TraceState::NotStarted => ";tnotrun:0".to_owned(),
        TraceState::Stopped => ";tstop:0".to_owned(),
        TraceState::Full => ";tfull:0".to_owned(),
        TraceState::Disconnected => ";tdisconnected:0".to_owned(),
        TraceState::PassCount(number) => format!(";tpasscount:{number:x}"),
        TraceState::Error(text, number) => {
            let hex = text.bytes().fold(String::new(), |mut hex, byte| {
                // Writing to a string does not fail.
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            format!(";terror:{hex}:{number:x}")
        }
    };
    let circular = u8::from(*circular);
    format!(
        "T{runs}{why};tframes:{frames:x};tcreated:{created:x};tfree:{free:x};tsize:{size:x};circular:{circular};disconn:0"
    )
}

/// The document of `qXfer:traceframe-info`.
pub(super) fn frame_info(pieces: &[(u64, u64)]) -> Vec<u8> {
    let mut text = String::from(
        "<?xml version=\"1.0\"?>\n<!DOCTYPE traceframe-info SYSTEM \"traceframe-info.dtd\">\n<traceframe-info>\n",
    );
    for (address, len) in pieces {
        // Writing to a string does not fail.
        let _ = writeln!(text, "<memory start=\"{address:#x}\" length=\"{len:#x}\"/>");
    }
    text.push_str("</traceframe-info>\n");
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_whether_the_trace_runs_and_why_not() {
        let status = |state| {
            status_text(&TraceStatus {
                state,
                frames: 10,
                created: 20,
                free: 0x30,
                size: 0x40,
                circular: true,
            })
        };
        let rest = ";tframes:a;tcreated:14;tfree:30;tsize:40;circular:1;disconn:0";
        for (state, wanted) in [
            (TraceState::Running, "T1"),
            (TraceState::NotStarted, "T0;tnotrun:0"),
            (TraceState::Stopped, "T0;tstop:0"),
            (TraceState::Full, "T0;tfull:0"),
            (TraceState::Disconnected, "T0;tdisconnected:0"),
            (TraceState::PassCount(17), "T0;tpasscount:11"),
            (TraceState::Error("no".to_owned(), 2), "T0;terror:6e6f:2"),
        ] {
            assert_eq!(status(state), format!("{wanted}{rest}"));
        }
    }
}
