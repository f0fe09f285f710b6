//! Where to listen, as a user writes it.

use std::fmt;
use std::net::SocketAddr;
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::str::FromStr;
use thiserror::Error;

/// Where a debug server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP port. Port 0 takes a free one.
    Tcp(SocketAddr),
    /// A socket in the file system, for its owner only.
    Unix(PathBuf),
}

/// Who may reach a TCP port. The protocol has no authentication: who reaches it owns the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Exposure {
    /// Only addresses of this machine.
    #[default]
    LoopbackOnly,
    /// Any address. The user has asked for it by an explicit flag.
    Network,
}

/// A listening address that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Neither form.
    #[error(
        "`{0}` is no address to listen on; write HOST:PORT (127.0.0.1:1234, or port 0 for a free one) or unix:PATH"
    )]
    Malformed(String),
    /// The host has no address.
    #[error(
        "the host of `{address}` has no address: {why}; write an IP address such as 127.0.0.1:1234"
    )]
    UnknownHost {
        /// What was given.
        address: String,
        /// What the resolver said.
        why: String,
    },
}

/// `HOST:PORT`, `:PORT` (on the loopback address) or `unix:PATH`.
impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let malformed = || AddressError::Malformed(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err(malformed())
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Tcp(address));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(malformed)?;
        let port: u16 = port.parse().map_err(|_| malformed())?;
        let host = if host.is_empty() { "127.0.0.1" } else { host };
        let unknown = |why: String| AddressError::UnknownHost {
            address: text.to_owned(),
            why,
        };
        let mut addresses = (host, port)
            .to_socket_addrs()
            .map_err(|error| unknown(error.to_string()))?;
        addresses
            .next()
            .map(Self::Tcp)
            .ok_or_else(|| unknown("nothing found".to_owned()))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_understood_and_printed_back() {
        for (text, printed) in [
            ("127.0.0.1:1234", "127.0.0.1:1234"),
            ("[::1]:0", "[::1]:0"),
            (":9000", "127.0.0.1:9000"),
            ("unix:/run/gdb.sock", "unix:/run/gdb.sock"),
            ("unix:relative:with:colons", "unix:relative:with:colons"),
        ] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn what_is_no_address_says_what_one_looks_like() {
        for text in [
            "",
            "1234",
            "unix:",
            "127.0.0.1:",
            "127.0.0.1:65536",
            "127.0.0.1:gdb",
            "::",
        ] {
            let error = text.parse::<ListenAddress>().unwrap_err();
            assert!(error.to_string().contains("HOST:PORT"), "{text}: {error}");
        }
    }
}
