//! `/proc/net/tcp` and `/proc/net/tcp6` (proc(5), proc_pid_net(5)) list every TCP socket of this network namespace, one
//! per line.
//!
//! The files are opened once, because a worker in a sandbox can open no file later.

use super::Endpoints;
use super::PeerSocket;
use super::canonical;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;

/// The state of a listening socket.
const LISTEN: &str = "0A";

/// The length of a table with 400,000 sockets, in bytes.
const LONGEST: usize = 64 << 20;

/// The bytes that are read at once.
const PIECE: usize = 64 << 10;

/// The tables, open.
#[derive(Debug)]
pub(super) struct ProcNet(Vec<File>);

impl ProcNet {
    pub(super) fn open() -> io::Result<Self> {
        let mut tables = Vec::new();
        for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
            match File::open(table) {
                Ok(file) => tables.push(file),
                // The kernel has no IPv6.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self(tables))
    }

    /// Finds the client's socket.
    pub(super) fn find(&self, endpoints: Endpoints) -> io::Result<Option<PeerSocket>> {
        for table in &self.0 {
            let text = whole(table)?;
            if let Some(found) = find_in(&String::from_utf8_lossy(&text), endpoints) {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// The contents of a table, from its start. The position of the file does not change.
fn whole(table: &File) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    while text.len() < LONGEST {
        let filled = text.len();
        text.resize(filled + PIECE, 0);
        let count = table.read_at(&mut text[filled..], filled as u64)?;
        text.truncate(filled + count);
        if count == 0 {
            break;
        }
    }
    Ok(text)
}

fn find_in(table: &str, endpoints: Endpoints) -> Option<PeerSocket> {
    table.lines().skip(1).find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let local = address(words.next()?)?;
        let remote = address(words.next()?)?;
        let state = words.next()?;
        if (local, remote) != (bare(endpoints.peer), bare(endpoints.ours)) || state == LISTEN {
            return None;
        }
        // Skips the queues, the timer and the retransmits.
        let uid = words.nth(3)?.parse().ok()?;
        let inode = words.nth(1)?.parse().ok()?;
        Some(PeerSocket { uid, inode })
    })
}

/// The address without the scope of a link-local address, which the table does not contain.
fn bare(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

/// Parses `0100007F:04D2`: 32-bit words in this machine's byte order, and the port as a number.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        Some(
            u32::from_str_radix(ip.get(at..at + 8)?, 16)
                .ok()?
                .to_ne_bytes(),
        )
    };
    let address = match ip.len() {
        8 => (Ipv4Addr::from(word(0)?), port).into(),
        32 => {
            let mut octets = [0; 16];
            for (index, octets) in octets.chunks_exact_mut(4).enumerate() {
                octets.copy_from_slice(&word(8 * index)?);
            }
            (Ipv6Addr::from(octets), port).into()
        }
        _ => return None,
    };
    Some(canonical(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables as a little-endian kernel prints them.
    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:04D2 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 20 1 0 100 0 0 10 0
   1: 0100007F:04D2 0100007F:C001 01 00000000:00000000 00:00000000 00000000  1000        0 21 1 0 20 4 30 10 -1
   2: 0100007F:C001 0100007F:04D2 01 00000000:00000000 00:00000000 00000000  1001        0 22 1 0 20 4 30 10 -1
   3: 0100007F:C002 0100007F:04D2 05 00000000:00000000 00:00000000 00000000     0        0 0 1 0 20 4 30 10 -1
";
    const TCP6: &str = "\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:C003 00000000000000000000000001000000:04D2 01 00000000:00000000 00:00000000 00000000  1002        0 23 1 0 20 4 30 10 -1
   1: 0000000000000000FFFF00000100007F:C004 0000000000000000FFFF00000100007F:04D2 01 00000000:00000000 00:00000000 00000000  1003        0 24 1 0 20 4 30 10 -1
";

    fn endpoints(peer: &str, ours: &str) -> Endpoints {
        Endpoints {
            peer: peer.parse().expect("an address"),
            ours: ours.parse().expect("an address"),
        }
    }

    #[test]
    fn the_clients_line_is_found_and_not_the_servers_own() {
        if cfg!(target_endian = "big") {
            println!("SKIP: the tables are of a little-endian machine");
            return;
        }
        let found = |uid, inode| Some(PeerSocket { uid, inode });
        let v4 = |port: u16| endpoints(&format!("127.0.0.1:{port}"), "127.0.0.1:1234");
        assert_eq!(find_in(TCP, v4(0xc001)), found(1001, 22));
        assert_eq!(find_in(TCP, v4(0xc002)), found(0, 0), "an orphan");
        assert_eq!(find_in(TCP, v4(0xc009)), None);
        assert_eq!(find_in(TCP, endpoints("0.0.0.0:1234", "0.0.0.0:0")), None);
        let v6 = endpoints("[::1]:49155", "[::1]:1234");
        assert_eq!(find_in(TCP6, v6), found(1002, 23));
        assert_eq!(find_in(TCP6, v4(0xc004)), found(1003, 24), "mapped");
        assert_eq!(find_in("", v6), None);
        assert_eq!(find_in("head\n 0: x:y 1 2\n\n", v6), None);
    }
}
