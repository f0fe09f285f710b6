//! The protocols that a client may speak.
//!
//! Every program on this machine can connect to the port, and a page in a web browser can make the browser connect. The
//! browser sends its own HTTP request first, and bytes that the page has chosen behind it. Therefore no byte of a
//! connection has an effect before the first bytes show that a debugger sends them. Each protocol of a listener is a
//! [`Protocol`], and [`Connection::new`](crate::connection::Connection::new), the only way to read the bytes of a
//! socket, takes a `Protocol`.

use thiserror::Error;

/// A protocol that a client may speak. The first byte distinguishes it from other protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// GDB's protocol. It begins with an acknowledgement (`+` or `-`), a packet, or Ctrl-C.
    /// [`pending_clients`](crate::pending_clients) checks every byte up to the end of the first packet.
    Gdb,
}

/// The error for a client that speaks another protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the client is no debugger: its first byte is {0:#04x}; connect with GDB or LLDB")]
pub(crate) struct WrongProtocol(pub(crate) u8);

impl Protocol {
    /// Checks the first bytes of a connection, at least one.
    pub(crate) fn admit(self, bytes: &[u8]) -> Result<(), WrongProtocol> {
        let known: &[u8] = match self {
            Self::Gdb => b"+-$\x03",
        };
        match bytes.first() {
            Some(first) if !known.contains(first) => Err(WrongProtocol(*first)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::recordings;

    /// All protocols. The match does not compile if a protocol is missing.
    fn all() -> Vec<Protocol> {
        match Protocol::Gdb {
            Protocol::Gdb => vec![Protocol::Gdb],
        }
    }

    #[test]
    fn no_protocol_begins_as_a_browser_does() {
        for opening in all() {
            for (name, bytes) in recordings() {
                assert_eq!(
                    opening.admit(&bytes),
                    Err(WrongProtocol(bytes[0])),
                    "{name}"
                );
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
            assert_eq!(Protocol::Gdb.admit(&[byte]).is_ok(), known, "{byte:#x}");
        }
    }
}
