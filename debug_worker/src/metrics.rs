//! The OpenMetrics endpoint: answers `GET /metrics` on a unix socket with the counters of a debug server.
//!
//! The socket has mode 0600, as the debug server's own unix socket has.

use crate::deadline::Deadline;
use crate::endpoint::Endpoint;
use crate::listener::DebugListener;
use crate::server::Socket;
use crate::statistics::Statistics;
use crate::statistics::encode;
use futures::AsyncReadExt;
use futures::AsyncWriteExt;
use pal_async::Driver;
use pal_async::socket::PolledSocket;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The maximum number of clients at a time. The connection of a further client is closed.
const MAX_CLIENTS: usize = 8;

/// The maximum length of a request.
const MAX_REQUEST: usize = 8192;

/// The maximum number of header lines of a request.
const MAX_HEADERS: usize = 64;

/// The time limit of a client, from its connection to the end of the answer.
const CLIENT_TIME: Duration = Duration::from_secs(5);

/// Answers scrapes until the future is dropped, if there is a socket for them.
pub(crate) async fn serve(
    driver: Arc<dyn Driver>,
    listener: Option<DebugListener>,
    statistics: Statistics,
) -> Infallible {
    if let Some(listener) = listener
        && let Err(error) = serve_listener(driver, listener, statistics).await
    {
        tracing::error!(%error, "the OpenMetrics endpoint cannot listen; the debug server runs on without it");
    }
    std::future::pending().await
}

async fn serve_listener(
    driver: Arc<dyn Driver>,
    listener: DebugListener,
    statistics: Statistics,
) -> io::Result<()> {
    let client = |socket| {
        let deadline = Deadline::new(driver.clone(), CLIENT_TIME);
        let socket = PolledSocket::new(&*driver, socket);
        let statistics = statistics.clone();
        async move {
            // The answer is lost if the client has gone or is too slow. The client scrapes again later.
            deadline
                .limit(async { drop(answer(socket, &statistics).await) })
                .await;
        }
    };
    let endpoint = Endpoint {
        name: "the OpenMetrics endpoint",
        max_clients: MAX_CLIENTS,
    };
    endpoint
        .serve(&*driver, listener, std::future::pending(), client)
        .await
}

async fn answer(socket: io::Result<Socket>, statistics: &Statistics) -> io::Result<()> {
    let (mut read, mut write) = socket?.split();
    let mut request = Vec::new();
    let response = loop {
        if let Some(response) = response(&request, statistics) {
            break response;
        }
        let mut part = [0; 1024];
        match read.read(&mut part).await? {
            0 => return Ok(()),
            count => request.extend_from_slice(&part[..count]),
        }
    };
    write.write_all(response.as_bytes()).await?;
    write.close().await
}

/// The response to a request. `None` if the request is not complete.
fn response(request: &[u8], statistics: &Statistics) -> Option<String> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(request) {
        Ok(httparse::Status::Partial) if request.len() < MAX_REQUEST => None,
        Ok(httparse::Status::Complete(_)) => Some(match (parsed.method, parsed.path.map(file)) {
            (Some("GET"), Some("/metrics")) => match encode(statistics) {
                Ok(text) => http(
                    "200 OK",
                    "application/openmetrics-text; version=1.0.0; charset=utf-8",
                    &text,
                ),
                Err(error) => plain("500 Internal Server Error", &error.to_string()),
            },
            (Some("GET"), _) => plain("404 Not Found", "the metrics are at /metrics"),
            _ => plain("405 Method Not Allowed\r\nAllow: GET", "use GET"),
        }),
        Ok(httparse::Status::Partial) => Some(plain(
            "431 Request Header Fields Too Large",
            "shorten the request",
        )),
        Err(error) => Some(plain("400 Bad Request", &format!("{error}; use HTTP/1.1"))),
    }
}

/// The path of a request target, which may be a whole address and may have a query (RFC 9112, section 3.2).
fn file(target: &str) -> &str {
    let after_host = target
        .strip_prefix("http://")
        .and_then(|rest| rest.find('/').map(|at| &rest[at..]));
    let path = after_host.unwrap_or(target);
    path.split_once('?').map_or(path, |(path, _)| path)
}

fn plain(status: &str, text: &str) -> String {
    http(status, "text/plain; charset=utf-8", &format!("{text}\n"))
}

fn http(status: &str, content_type: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(request: &str) -> Option<String> {
        let response = response(request.as_bytes(), &Statistics::default())?;
        let (line, _) = response.split_once("\r\n").expect("a status line");
        Some(line.to_owned())
    }

    #[test]
    fn only_a_get_of_the_metrics_is_answered_with_them() {
        for (request, expected) in [
            (
                "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n",
                "HTTP/1.1 200 OK",
            ),
            ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 404 Not Found"),
            ("GET /metrics?from=1 HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK"),
            (
                "GET http://localhost/metrics HTTP/1.1\r\n\r\n",
                "HTTP/1.1 200 OK",
            ),
            (
                "GET http://localhost HTTP/1.1\r\n\r\n",
                "HTTP/1.1 404 Not Found",
            ),
            (
                "HEAD /metrics HTTP/1.1\r\n\r\n",
                "HTTP/1.1 405 Method Not Allowed",
            ),
            (
                "POST /metrics HTTP/1.1\r\n\r\n",
                "HTTP/1.1 405 Method Not Allowed",
            ),
            ("$qSupported#37\r\n\r\n", "HTTP/1.1 400 Bad Request"),
        ] {
            assert_eq!(status(request).as_deref(), Some(expected), "{request}");
        }
    }

    #[test]
    fn an_incomplete_request_is_waited_for_and_a_long_one_is_not() {
        assert_eq!(status(""), None);
        assert_eq!(status("GET /metrics HTTP/1.1\r\nHost: a\r\n"), None);
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(MAX_REQUEST));
        assert_eq!(
            status(&long).as_deref(),
            Some("HTTP/1.1 431 Request Header Fields Too Large")
        );
    }

    #[test]
    fn the_text_is_complete() {
        let text = response(b"GET /metrics HTTP/1.0\r\n\r\n", &Statistics::default())
            .expect("a complete request");
        let (head, body) = text.split_once("\r\n\r\n").expect("a header");
        assert!(
            head.contains(&format!("Content-Length: {}\r\n", body.len())),
            "{head}"
        );
        assert!(body.ends_with("# EOF\n"), "{body}");
    }
}
