//! Clients that are no debuggers, above all web browsers: a page can make a browser send bytes to any port of this
//! machine.

use super::bed::Bed;
use super::bed::packet;
use super::recordings;
use crate::connection::Connection;
use crate::protocol::Protocol;
use crate::protocol::WrongProtocol;
use pal_async::DefaultPool;
use pal_async::socket::PolledSocket;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::Duration;

#[test]
fn a_browser_is_cut_off_and_none_of_its_bytes_reach_the_guest() {
    let bed = Bed::new();
    for (name, bytes) in recordings() {
        let mut client = bed.connect();
        client.send_raw(&bytes);
        client.expect_closed();
        assert_eq!(bed.vm.asked("write memory"), 0, "{name}");
        assert_eq!(bed.vm.asked("read memory"), 0, "{name}");
    }
    // The next debugger can attach.
    let mut client = bed.attach();
    assert_eq!(client.ask("m0,4"), "00010203");
}

#[test]
fn http_after_the_first_bytes_of_a_debugger_is_refused() {
    let bed = Bed::new();
    for start in ["+", "-", "\u{3}", "$m0,4#00", "$m0,4#", "+-+\u{3}"] {
        let mut client = bed.connect();
        let request = format!("{start}POST / HTTP/1.1\r\n\r\n{}", packet("M0,1:ff"));
        client.send_raw(request.as_bytes());
        // An answer to the incomplete packet asks for the packet again.
        assert_eq!(client.try_reply(), None, "{start:?}");
        assert_eq!(bed.vm.asked("write memory"), 0, "{start:?}");
    }
}

/// The connection itself checks the first byte, whatever reads the bytes afterwards.
#[test]
fn no_protocol_is_handed_the_bytes_of_a_browser() {
    DefaultPool::run_with(async |driver| {
        let all = recordings().into_iter().map(|(_, bytes)| (bytes, false));
        for (bytes, is_client) in all.chain([(b"$?#3f".to_vec(), true)]) {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let socket = PolledSocket::new(&driver, ours.into()).unwrap();
            let timeout = Duration::from_secs(20);
            let mut connection =
                Connection::new(&driver, socket, Protocol::Gdb, timeout, Default::default());
            theirs.write_all(&bytes).unwrap();
            match connection.incoming.read().await {
                Ok(read) => assert!(is_client && read == bytes),
                Err(error) => {
                    let stranger = error.downcast::<WrongProtocol>().unwrap();
                    assert_eq!((stranger, is_client), (WrongProtocol(bytes[0]), false));
                }
            }
        }
    });
}
