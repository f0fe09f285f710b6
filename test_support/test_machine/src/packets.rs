//! A client of the remote protocol that can send packets that GDB would never send.

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
        let received = Vec::new();
        Self { stream, received }
    }
}

impl Packets<UnixStream> {
    /// Connects to a unix socket.
    pub fn connect_unix(path: &str) -> Self {
        let stream = UnixStream::connect(path).expect("the server listens");
        stream
            .set_read_timeout(Some(crate::running::DEADLINE))
            .expect("a deadline");
        let received = Vec::new();
        Self { stream, received }
    }
}

/// Encodes a packet with its checksum.
pub fn packet(body: &[u8]) -> Vec<u8> {
    let sum = body.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
    [b"$", body, format!("#{sum:02x}").as_bytes()].concat()
}

impl<S: Read + Write> Packets<S> {
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

    /// Returns the body of the next packet, and acknowledges it. Skips acknowledgements before it. `None` at the end of
    /// the connection.
    pub fn reply(&mut self) -> Option<String> {
        while self.byte()? != b'$' {}
        let mut body = Vec::new();
        loop {
            match self.byte()? {
                b'#' => break,
                byte => body.push(byte),
            }
        }
        let _ = (self.byte()?, self.byte()?);
        // After its last reply the server may have closed the connection, so an error is ignored.
        let _ = self.stream.write_all(b"+");
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
