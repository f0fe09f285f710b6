//! A client of the GDB Remote Serial Protocol with as little overhead as possible, so that the measures show the server.

use anyhow::Context as _;
use anyhow::bail;
use std::io::ErrorKind;
use std::io::Read as _;
use std::io::Write as _;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::ops::Range;
use std::time::Duration;

/// The time limit for a reply. A server that takes longer is broken, also in the nested bed on a busy machine.
const REPLY_WITHIN: Duration = Duration::from_secs(60);

const BUFFER: usize = 1 << 20;

/// The features that GDB 13 announces.
const FEATURES: &str = "qSupported:multiprocess+;swbreak+;hwbreak+;qRelocInsn+;fork-events+;vfork-events+;exec-events+;\
                        vContSupported+;QThreadEvents+;no-resumed+;memory-tagging+;xmlRegisters=i386";

/// One blocking connection.
pub(super) struct Client {
    stream: TcpStream,
    /// A buffer of a fixed size, larger than any packet of a server here. `received` is the part with data.
    buffer: Vec<u8>,
    received: Range<usize>,
    outgoing: Vec<u8>,
    acks: bool,
    /// The features that the server announces.
    features: String,
}

impl Client {
    /// Connects and exchanges features. Turns acknowledgements off if the server supports this.
    pub(super) fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let mut client = Self::open(address)?;
        client.negotiate()?;
        Ok(client)
    }

    /// Connects without a packet.
    pub(super) fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream =
            TcpStream::connect(address).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_WITHIN))?;
        Ok(Self {
            stream,
            buffer: vec![0; BUFFER],
            received: 0..0,
            outgoing: Vec::new(),
            acks: true,
            features: String::new(),
        })
    }

    fn negotiate(&mut self) -> anyhow::Result<()> {
        self.features = String::from_utf8_lossy(self.request(FEATURES)?).into_owned();
        if self
            .features
            .split(';')
            .any(|feature| feature == "QStartNoAckMode+")
        {
            let reply = self.request("QStartNoAckMode")?;
            if reply != b"OK" {
                bail!("QStartNoAckMode was offered and refused");
            }
            self.acks = false;
        }
        Ok(())
    }

    /// The largest packet that the server announces, in bytes.
    pub(super) fn packet_size(&self) -> usize {
        self.features
            .split(';')
            .find_map(|feature| {
                usize::from_str_radix(feature.strip_prefix("PacketSize=")?, 16).ok()
            })
            .unwrap_or(400)
    }

    fn multiprocess(&self) -> bool {
        self.features
            .split(';')
            .any(|feature| feature == "multiprocess+")
    }

    /// Whether replies are acknowledged.
    pub(super) fn acks(&self) -> bool {
        self.acks
    }

    /// Sends a packet and returns the raw reply, without `$` and `#`.
    pub(super) fn request(&mut self, payload: &str) -> anyhow::Result<&[u8]> {
        self.send(payload)?;
        self.reply()
            .with_context(|| format!("no reply to `{payload}`"))
    }

    /// Sends a packet and does not wait for the reply.
    pub(super) fn send(&mut self, payload: &str) -> anyhow::Result<()> {
        self.outgoing.clear();
        self.outgoing.push(b'$');
        self.outgoing.extend(payload.bytes());
        let sum = checksum(payload.as_bytes());
        write!(self.outgoing, "#{sum:02x}")?;
        self.stream.write_all(&self.outgoing)?;
        Ok(())
    }

    /// Sends Ctrl-C.
    pub(super) fn interrupt(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&[3])?;
        Ok(())
    }

    /// Returns the next packet.
    pub(super) fn reply(&mut self) -> anyhow::Result<&[u8]> {
        let mut searched = 0;
        let (start, end) = loop {
            let received = &self.buffer[self.received.clone()];
            // Acknowledgements come before a packet. Inside a packet both marks are escaped.
            if let Some(start) = memchr::memchr(b'$', received) {
                let from = searched.max(start);
                match memchr::memchr(b'#', &received[from..]) {
                    Some(length) if received.len() >= from + length + 3 => {
                        break (start + 1, from + length);
                    }
                    Some(length) => searched = from + length,
                    None => searched = received.len(),
                }
            }
            self.fill()?;
        };
        if self.acks {
            self.stream.write_all(b"+")?;
        }
        let payload = self.received.start + start..self.received.start + end;
        self.received.start = payload.end + 3;
        Ok(&self.buffer[payload])
    }

    /// Waits for the beginning of a packet for at most this time. Returns `false` if none has begun.
    pub(super) fn wait(&mut self, time: Duration) -> anyhow::Result<bool> {
        if self.packet_begun() {
            return Ok(true);
        }
        self.stream.set_read_timeout(Some(time))?;
        let result = self.fill();
        self.stream.set_read_timeout(Some(REPLY_WITHIN))?;
        match result {
            Ok(()) => Ok(self.packet_begun()),
            Err(error) => match error.downcast_ref::<std::io::Error>() {
                Some(io) if matches!(io.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    Ok(false)
                }
                _ => Err(error),
            },
        }
    }

    fn packet_begun(&self) -> bool {
        self.buffer[self.received.clone()].contains(&b'$')
    }

    fn fill(&mut self) -> anyhow::Result<()> {
        if self.received.start > 0 {
            // The buffer is usually empty now, because a request has one reply.
            self.buffer.copy_within(self.received.clone(), 0);
            self.received = 0..self.received.len();
        }
        let room = &mut self.buffer[self.received.end..];
        anyhow::ensure!(!room.is_empty(), "a packet of more than {BUFFER} bytes");
        let length = self.stream.read(room)?;
        anyhow::ensure!(length > 0, "the server closed the connection");
        self.received.end += length;
        Ok(())
    }

    /// Detaches and waits until the server has closed the connection. The next connection then finds the server free.
    pub(super) fn detach(mut self) -> anyhow::Result<()> {
        let packet = if self.multiprocess() { "D;1" } else { "D" };
        let reply = self.request(packet)?;
        if reply != b"OK" {
            bail!("{packet} was answered `{}`", String::from_utf8_lossy(reply));
        }
        self.stream.shutdown(Shutdown::Write)?;
        let mut rest = [0; 64];
        while let Ok(1..) = self.stream.read(&mut rest) {}
        Ok(())
    }

    /// Sends all requests that GDB 13 makes after `target remote`, up to the prompt.
    pub(super) fn attach_like_gdb(&mut self) -> anyhow::Result<()> {
        self.negotiate()?;
        let (any_thread, all_threads) = if self.multiprocess() {
            ("Hgp0.0", "Hcp1.-1")
        } else {
            ("Hg0", "Hc-1")
        };
        for packet in ["vCont?", "vMustReplyEmpty", any_thread] {
            self.request(packet)?;
        }
        let mut annexes = vec!["target.xml".to_owned()];
        while let Some(annex) = annexes.pop() {
            let text = self.transfer("features", &annex)?;
            annexes.extend(includes(&String::from_utf8_lossy(&text)));
        }
        for packet in ["qTStatus", "?"] {
            self.request(packet)?;
        }
        if self.features.contains("qXfer:threads:read+") {
            self.transfer("threads", "")?;
        } else {
            self.request("qfThreadInfo")?;
            self.request("qsThreadInfo")?;
        }
        for packet in ["qAttached", all_threads, "qOffsets", "g", "qSymbol::"] {
            self.request(packet)?;
        }
        Ok(())
    }

    /// Reads a whole object of `qXfer`, in pieces of the size that GDB asks for.
    fn transfer(&mut self, object: &str, annex: &str) -> anyhow::Result<Vec<u8>> {
        // GDB leaves room for `$l`, `#` and the checksum.
        let piece = self.packet_size().clamp(5, 0x4000) - 5;
        let mut whole = Vec::new();
        loop {
            let offset = whole.len();
            let reply =
                self.request(&format!("qXfer:{object}:read:{annex}:{offset:x},{piece:x}"))?;
            match reply.split_first() {
                Some((b'm', data)) if !data.is_empty() => whole.extend(unescaped(data)),
                Some((b'l', data)) => {
                    whole.extend(unescaped(data));
                    return Ok(whole);
                }
                _ => bail!(
                    "qXfer:{object}:read:{annex} was answered `{}`",
                    String::from_utf8_lossy(reply)
                ),
            }
        }
    }
}

/// The sum of the raw bytes modulo 256 (GDB manual, "Overview" of the Remote Serial Protocol).
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// Undoes run-length encoding and escapes (GDB manual, "Overview" of the Remote Serial Protocol).
pub(super) fn unescaped(wire: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(wire.len());
    let mut bytes = wire.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'}' => plain.extend(bytes.next().map(|byte| byte ^ 0x20)),
            b'*' => {
                if let (Some(count), Some(last)) = (bytes.next(), plain.last().copied()) {
                    plain.resize(plain.len() + usize::from(count.saturating_sub(29)), last);
                }
            }
            byte => plain.push(byte),
        }
    }
    plain
}

/// The annexes that a target description includes.
fn includes(xml: &str) -> Vec<String> {
    xml.split("<xi:include href=\"")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_run_lengths_are_undone() {
        // The example of the manual: `0* ` is `0000`.
        assert_eq!(unescaped(b"0* "), b"0000");
        assert_eq!(unescaped(b"a}\x03b"), b"a#b");
    }

    #[test]
    fn included_annexes_are_found() {
        let xml = "<target><xi:include href=\"core.xml\"/><xi:include href=\"sse.xml\"/></target>";
        assert_eq!(includes(xml), ["core.xml", "sse.xml"]);
    }

    #[test]
    fn a_reply_in_pieces_after_an_ack_is_put_together() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for piece in ["+", "$ab", "c#", "2", "6$next#be"] {
                stream.write_all(piece.as_bytes()).unwrap();
            }
            let mut seen = Vec::new();
            stream.read_to_end(&mut seen).unwrap();
            seen
        });
        let mut client = Client::open(address).unwrap();
        assert_eq!(client.request("?").unwrap(), b"abc");
        assert_eq!(client.reply().unwrap(), b"next");
        drop(client);
        assert_eq!(server.join().unwrap(), b"$?#3f++");
    }
}
