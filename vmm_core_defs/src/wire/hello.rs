//! The first message of each side.

use super::fields;
use super::frame::Outgoing;
use super::proto;
use super::strict;
use bytes::Bytes;
use prost::Message as _;
use thiserror::Error;

/// The version of the messages that this crate speaks.
pub const VERSION: u32 = 1;

/// The maximum length of a hello, in bytes. What a program of another protocol sends first is longer as a length, so its connection is closed at once.
pub const MAX_HELLO: usize = 256;

const PROTOCOL: &str = "trapgate debug";

/// Why the other side cannot be talked to. The connection is to be closed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HelloError {
    /// The first bytes are no hello.
    #[error(
        "the other side does not speak the debug protocol of Trapgate; check the address of the socket"
    )]
    OtherProtocol,
    /// No version is spoken by both sides.
    #[error(
        "the other side speaks the versions {oldest} to {newest} of the debug protocol, and this side speaks version {VERSION}; use the same release on both sides"
    )]
    OtherVersion {
        /// The lowest version of the other side.
        oldest: u32,
        /// The highest version of the other side.
        newest: u32,
    },
}

/// The frame that each side sends first.
pub fn hello() -> Outgoing {
    let hello = proto::Hello {
        protocol: PROTOCOL.to_owned(),
        oldest: VERSION,
        newest: VERSION,
    };
    Outgoing::of(&hello)
}

/// Reads the hello of the other side, and returns the version to be used. Ignores fields that this version does not know.
///
/// # Errors
/// [`HelloError`].
pub fn accept(message: Bytes) -> Result<u32, HelloError> {
    // A version that is too large for its field would be read as another one.
    strict::check_known(&fields::HELLO, &message).map_err(|_| HelloError::OtherProtocol)?;
    let hello = proto::Hello::decode(message).map_err(|_| HelloError::OtherProtocol)?;
    if hello.protocol != PROTOCOL {
        return Err(HelloError::OtherProtocol);
    }
    let (oldest, newest) = (hello.oldest, hello.newest);
    match (oldest..=newest).contains(&VERSION) {
        true => Ok(VERSION),
        false => Err(HelloError::OtherVersion { oldest, newest }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(oldest: u32, newest: u32) -> Result<u32, HelloError> {
        let protocol = PROTOCOL.to_owned();
        let hello = proto::Hello {
            protocol,
            oldest,
            newest,
        };
        let mut bytes = hello.encode_to_vec();
        // A field 9 of a newer version.
        bytes.extend_from_slice(&[9 << 3, 1]);
        accept(bytes.into())
    }

    #[test]
    fn a_version_is_not_cut_and_does_not_come_twice() {
        // Version 1 of 2 to the 32 more, as `newest`.
        let hello = |newest: &[u8]| {
            let protocol = [&[1 << 3 | 2, 14][..], PROTOCOL.as_bytes()].concat();
            accept([&protocol[..], &[2 << 3, 1], newest].concat().into())
        };
        assert_eq!(hello(&[3 << 3, 1]), Ok(1));
        let cut = [3 << 3, 0x81, 0x80, 0x80, 0x80, 0x10];
        assert_eq!(hello(&cut), Err(HelloError::OtherProtocol));
        let twice = [3 << 3, 9, 3 << 3, 1];
        assert_eq!(hello(&twice), Err(HelloError::OtherProtocol));
        // A field 9 of 32 bits, which this version does not know.
        assert_eq!(hello(&[3 << 3, 1, 9 << 3 | 5, 1, 2, 3, 4]), Ok(1));
    }

    #[test]
    fn a_version_that_both_sides_speak_is_found() {
        assert_eq!(accept(hello().head.slice(4..)), Ok(1));
        assert!(hello().len() <= MAX_HELLO);
        assert_eq!(from(1, 7), Ok(1));
        let (oldest, newest) = (2, 7);
        let other = HelloError::OtherVersion { oldest, newest };
        assert_eq!(from(2, 7), Err(other));
        assert_eq!(
            accept(Bytes::from_static(b"GET / HTTP/1.1\r\n")),
            Err(HelloError::OtherProtocol)
        );
        let get = u32::from_le_bytes(*b"GET ");
        assert!(get as usize > MAX_HELLO, "the length of a browser's hello");
    }
}
