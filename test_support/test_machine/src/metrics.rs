//! A client of an OpenMetrics endpoint.

use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The answer to `GET /metrics` on the unix socket at `path`, without the header.
#[track_caller]
pub fn scraped(path: &Path) -> String {
    let mut scraper = UnixStream::connect(path).expect("the endpoint listens");
    scraper
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("sent");
    let mut text = String::new();
    scraper.read_to_string(&mut text).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a header");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    body.to_owned()
}
