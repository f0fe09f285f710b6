//! `qSupported`: what either party can do.

use super::breakpoints;
use super::memory;
use super::query;
use super::resume;
use crate::framing::PACKET_SIZE;

/// What the client says of itself, as far as it changes replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientFeatures {
    /// Understands the stop reason `swbreak`.
    pub swbreak: bool,
    /// Understands the stop reason `hwbreak`.
    pub hwbreak: bool,
    /// Understands `E.` and words in every error reply.
    pub error_message: bool,
    /// GDB or LLDB itself, which both expand runs. Simple clients do not, and they name the features they have copied from somewhere: those that count
    /// here are ones that only GDB has a use for. LLDB shows itself by a packet of its own.
    pub expands_runs: bool,
    /// LLDB, which wants an answer to `k`.
    pub lldb: bool,
}

impl ClientFeatures {
    /// `qSupported [:gdbfeature [;gdbfeature]...]`: each `name=value`, `name+`, `name-` or `name?`. Those it does not know are
    /// ignored, as the manual asks.
    pub(super) fn parse(arguments: &[u8]) -> Self {
        let mut features = Self::default();
        for feature in arguments
            .strip_prefix(b":")
            .unwrap_or_default()
            .split(|&byte| byte == b';')
        {
            match feature {
                b"swbreak+" => features.swbreak = true,
                b"hwbreak+" => features.hwbreak = true,
                b"error-message+" => features.error_message = true,
                b"qRelocInsn+" | b"QThreadEvents+" | b"no-resumed+" => features.expands_runs = true,
                _ => {}
            }
        }
        features
    }
}

/// The reply: what each file here says of itself.
pub(crate) fn supported(client: ClientFeatures) -> String {
    let mut reply = format!("PacketSize={PACKET_SIZE:x};QStartNoAckMode+");
    let optional: &[&str] = if client.error_message {
        &["error-message+"]
    } else {
        &[]
    };
    for feature in [
        resume::FEATURES,
        breakpoints::FEATURES,
        memory::FEATURES,
        query::FEATURES,
        optional,
    ]
    .into_iter()
    .flatten()
    {
        reply.push(';');
        reply.push_str(feature);
    }
    reply
}
