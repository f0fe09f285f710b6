//! Listening addresses, as users write them.

use std::fmt;
use std::net::SocketAddr;
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::str::FromStr;
use thiserror::Error;

/// The address on which a debug server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP address. Port 0 selects a free port.
    Tcp(SocketAddr),
    /// A socket in the file system, with mode 0600.
    Unix(PathBuf),
}

/// Which machines may reach a TCP port. The protocol has no authentication: any program that reaches the port controls
/// the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Exposure {
    /// Only this machine: the address must be a loopback address.
    #[default]
    LoopbackOnly,
    /// Any machine. The user has asked for this by an explicit flag.
    Network,
}

/// The error for a listening address that cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AddressError {
    /// The text has neither the form HOST:PORT nor the form unix:PATH.
    #[error(
        "`{0}` is not a listening address; write HOST:PORT (127.0.0.1:1234, or port 0 for a free port) or unix:PATH"
    )]
    Malformed(String),
    /// The resolver found no address for the host name.
    #[error(
        "no IP address was found for the host in `{address}`: {why}; write an IP address such as 127.0.0.1:1234"
    )]
    UnknownHost {
        /// The text that was parsed.
        address: String,
        /// The resolver's error.
        why: String,
    },
}

/// Parses `HOST:PORT`, `:PORT` (on the loopback address) or `unix:PATH`.
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
            .ok_or_else(|| unknown("the resolver returned no address".to_owned()))
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
