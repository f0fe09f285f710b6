//! What a connection may begin with.
//!
//! A port of this machine is reached by every program on it, and by every page in its web browser: the browser sends its own request first, with
//! what the page has chosen at the end of it. So no byte of a connection counts before it is clear that a client of ours sends it. Each
//! protocol that a listener here speaks is an [`Opening`], and [`Connection::new`](crate::connection::Connection::new), the one way from a socket to its bytes, takes one.

use thiserror::Error;

/// A protocol, as its first byte tells it from all else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    /// GDB's: an acknowledgement, good or bad, a packet, or Ctrl-C. The [`lobby`](crate::lobby) looks at every byte up to the end of the first packet.
    Packets,
}

/// The client speaks another protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the client is no debugger: the first thing it sent is the byte {0:#04x}; connect with GDB or LLDB"
)]
pub(crate) struct Stranger(pub(crate) u8);

impl Opening {
    /// Looks at the first bytes that have come, at least one.
    pub(crate) fn admit(self, bytes: &[u8]) -> Result<(), Stranger> {
        let known: &[u8] = match self {
            Self::Packets => b"+-$\x03",
        };
        match bytes.first() {
            Some(first) if !known.contains(first) => Err(Stranger(*first)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::recordings;

    /// Every protocol there is; the compiler names this place when there is another.
    fn all() -> Vec<Opening> {
        match Opening::Packets {
            Opening::Packets => vec![Opening::Packets],
        }
    }

    #[test]
    fn no_protocol_begins_as_a_browser_does() {
        for opening in all() {
            for (name, bytes) in recordings() {
                assert_eq!(opening.admit(&bytes), Err(Stranger(bytes[0])), "{name}");
            }
            for method in [
                "GET", "POST", "HEAD", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
                "PRI",
            ] {
                assert!(opening.admit(method.as_bytes()).is_err(), "{method}");
            }
        }
    }

    #[test]
    fn a_debugger_may_begin_with_what_it_sends_between_packets() {
        for byte in 0..=u8::MAX {
            let known = matches!(byte, b'+' | b'-' | b'$' | 0x03);
            assert_eq!(Opening::Packets.admit(&[byte]).is_ok(), known, "{byte:#x}");
        }
    }
}
