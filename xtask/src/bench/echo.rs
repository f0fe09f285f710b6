//! The floor: an echo server, which does nothing with a packet. No debug server on this machine can answer faster.
//!
//! The echo server is a process of its own (this program, started again), because the debug servers are processes too.

use super::cores::Core;
use super::cores::Pinned;
use anyhow::Context as _;
use std::io::Read as _;
use std::io::Write as _;
use std::net::TcpListener;

/// A packet that asks for a reply of the given number of bytes.
pub(super) fn request(size: usize) -> String {
    format!("echo:{size:x}")
}

/// Prints the port on standard output, then serves one client after the other until the process is killed.
pub(super) fn serve() -> anyhow::Result<()> {
    let _core = Pinned::to(Core::Last)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    loop {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        // A session ends normally when the client closes the connection.
        let _ = session(stream);
    }
}

fn session(mut stream: std::net::TcpStream) -> anyhow::Result<()> {
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    let mut reply = Vec::new();
    loop {
        let length = stream.read(&mut chunk)?;
        anyhow::ensure!(length > 0, "end of the session");
        received.extend_from_slice(&chunk[..length]);
        while let Some(end) = memchr::memchr(b'#', &received) {
            if received.len() < end + 3 {
                break;
            }
            let packet: Vec<u8> = received.drain(..end + 3).collect();
            answer(&packet[..end], &mut reply).context("not a packet")?;
            stream.write_all(&reply)?;
        }
    }
}

fn answer(packet: &[u8], reply: &mut Vec<u8>) -> Option<()> {
    let start = packet.iter().position(|&byte| byte == b'$')? + 1;
    let payload = std::str::from_utf8(&packet[start..]).ok()?;
    if payload.starts_with("qSupported") {
        reply.clear();
        reply.extend(b"+$QStartNoAckMode+#db");
    } else if payload == "QStartNoAckMode" {
        reply.clear();
        reply.extend(b"+$OK#9a");
    } else {
        let size = usize::from_str_radix(payload.strip_prefix("echo:")?, 16).ok()?;
        // The client does not check the sum. If the next reply has the same size, the same bytes are sent again.
        if reply.len() != size + 4 {
            reply.clear();
            reply.push(b'$');
            reply.resize(size + 1, b'0');
            reply.extend(b"#00");
        }
    }
    Some(())
}
