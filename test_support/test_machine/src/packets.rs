//! A client of the remote protocol that can send packets that GDB would never send.

use std::collections::VecDeque;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

/// A connection with acknowledgements.
pub struct Packets<S> {
    /// The connection.
    pub stream: S,
    /// Received bytes that were not parsed yet, in reverse order.
    received: Vec<u8>,
    /// Notifications that came before replies.
    notifications: VecDeque<String>,
}

impl Packets<TcpStream> {
    /// Connects by TCP to `HOST:PORT`.
    pub fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        // An acknowledgement and the next packet are two writes. Without this option, the second write waits for the
        // server's answer to the first.
        stream.set_nodelay(true).expect("a TCP connection");
        stream
            .set_read_timeout(Some(crate::running::DEADLINE))
            .expect("a deadline");
        Self::new(stream)
    }
}

impl Packets<UnixStream> {
    /// Connects to a unix socket.
    pub fn connect_unix(path: &str) -> Self {
        let stream = UnixStream::connect(path).expect("the server listens");
        stream
            .set_read_timeout(Some(crate::running::DEADLINE))
            .expect("a deadline");
        Self::new(stream)
    }
}

/// Encodes a packet with its checksum.
pub fn packet(body: &[u8]) -> Vec<u8> {
    let sum = body.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    [b"$", body, format!("#{sum:02x}").as_bytes()].concat()
}

impl<S: Read + Write> Packets<S> {
    fn new(stream: S) -> Self {
        Self {
            stream,
            received: Vec::new(),
            notifications: VecDeque::new(),
        }
    }

    /// Sends bytes unchanged.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// Returns one byte. `None` at the end of the connection.
    pub fn byte(&mut self) -> Option<u8> {
        if let Some(byte) = self.received.pop() {
            return Some(byte);
        }
        let mut piece = [0; 1 << 14];
        match self.stream.read(&mut piece) {
            Ok(length) => {
                self.received.extend(piece[..length].iter().rev());
                self.received.pop()
            }
            Err(why) if why.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(why) => panic!("no byte from the server: {why}"),
        }
    }

    /// Returns the body of the next packet, and acknowledges it. Skips acknowledgements before it, and keeps notifications. `None` at the end of the connection.
    pub fn reply(&mut self) -> Option<String> {
        loop {
            match self.byte()? {
                b'$' => break,
                b'%' => {
                    let notification = self.body()?;
                    self.notifications.push_back(notification);
                }
                _ => {}
            }
        }
        let body = self.body()?;
        // After its last reply the server may have closed the connection, so an error is ignored.
        let _ = self.stream.write_all(b"+");
        Some(body)
    }

    /// Whether a notification came before the last reply that nobody has taken.
    pub fn has_notification(&self) -> bool {
        !self.notifications.is_empty()
    }

    /// Returns the body of the next notification. `None` at the end of the connection.
    ///
    /// # Panics
    /// A packet comes first.
    pub fn notification(&mut self) -> Option<String> {
        if let Some(notification) = self.notifications.pop_front() {
            return Some(notification);
        }
        loop {
            match self.byte()? {
                b'$' => panic!("the packet `{:?}` comes first", self.body()),
                b'%' => return self.body(),
                _ => {}
            }
        }
    }

    /// The rest of a packet or notification, without the checksum.
    fn body(&mut self) -> Option<String> {
        let mut body = Vec::new();
        loop {
            match self.byte()? {
                b'#' => break,
                byte => body.push(byte),
            }
        }
        let _ = (self.byte()?, self.byte()?);
        Some(String::from_utf8_lossy(&body).into_owned())
    }

    /// Sends a packet and returns the body of the reply.
    #[track_caller]
    pub fn ask(&mut self, body: &str) -> String {
        self.send_raw(&packet(body.as_bytes()));
        self.reply()
            .unwrap_or_else(|| panic!("`{body}` ended the session"))
    }
}
