//! What can be seen of a server from outside: counters, their OpenMetrics text, and the spans of the log.

use super::Text;
use super::bed::Bed;
use super::bed::Client;
use super::fake_vm::FakeVm;
use crate::DebugListener;
use crate::DebuggerParameters;
use crate::Exposure;
use crate::ListenAddress;
use crate::serve;
use mesh::worker::WorkerRpc;
use pal_async::DefaultPool;
use pal_async::task::Spawn;
use std::net::TcpStream;
use std::thread;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::stop::DebugStopReason;

fn statistics(client: &mut Client) -> String {
    client.monitor("stats")
}

/// The words behind the first word of a line.
fn line<'a>(text: &'a str, first: &str) -> Vec<&'a str> {
    let line = text.lines().find(|line| line.starts_with(first));
    let words = line.unwrap_or_else(|| panic!("no line {first} in {text}"));
    words.split_whitespace().skip(1).collect()
}

#[test]
fn what_a_session_does_is_counted() {
    let bed = Bed::new();
    let mut client = bed.attach();
    let before = statistics(&mut client);
    assert_eq!(line(&before, "sessions")[0], "1,", "{before}");
    assert_eq!(line(&before, "stops"), ["none"], "{before}");
    assert_eq!(line(&before, "Attach")[..2], ["1", "0"], "{before}");
    client.ask("g");
    client.ask("g");
    assert_eq!(client.ask("m100000,1"), "E0e");
    client.ask("m0,4");
    bed.vm
        .stop_at_next_resume(DebugStopReason::SingleStep { vp: VpIndex::BSP });
    assert!(client.ask("vCont;s:1").starts_with("T05"));
    let after = statistics(&mut client);
    assert_eq!(line(&after, "stops"), ["step", "1"], "{after}");
    assert_eq!(
        line(&after, "GetVpState")[..2],
        ["1", "0"],
        "one read a stop: {after}"
    );
    assert_eq!(line(&after, "ReadMemory")[..2], ["2", "1"], "{after}");
    assert_eq!(line(&after, "Resume")[..2], ["1", "0"], "{after}");
    let received = |text: &str| line(text, "received")[0].parse::<u64>().expect("a number");
    // Five packets and the second `monitor stats`.
    assert_eq!(received(&after), received(&before) + 6, "{after}");
    let sent = |text: &str| line(text, "sent")[0].parse::<u64>().expect("a number");
    assert!(sent(&after) >= sent(&before) + 6, "{after}");
    drop(client);
    // The counts are those of the server, not of the session.
    let mut next = bed.attach();
    let next = statistics(&mut next);
    assert_eq!(line(&next, "sessions")[0], "2,", "{next}");
    assert_eq!(line(&next, "Detach")[..2], ["1", "0"], "{next}");
    let inspected = bed.inspect("statistics").expect("a field");
    assert_eq!(line(&inspected, "sessions"), line(&next, "sessions"));
}

#[cfg(feature = "open-metrics")]
#[test]
fn a_scraper_gets_the_counts_also_while_a_client_is_silent() {
    use std::io::Read as _;
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("metrics");
    let address = ListenAddress::Unix(path.clone());
    let metrics = DebugListener::bind(&address, Exposure::default()).expect("a socket");
    let bed = Bed::with_metrics(metrics);
    let mut client = bed.attach();
    assert_eq!(client.ask("m100000,1"), "E0e");
    let _silent = UnixStream::connect(&path).expect("a listener");
    let mut scraper = UnixStream::connect(&path).expect("a listener");
    scraper
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("sent");
    let mut text = String::new();
    scraper.read_to_string(&mut text).expect("text");
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    for expected in [
        "trapgate_sessions_total 1\n",
        "trapgate_requests_failed_total{request=\"ReadMemory\"} 1\n",
        "trapgate_request_latency_seconds_count{request=\"ReadMemory\"} 1\n",
        "trapgate_request_latency_seconds_bucket{le=\"+Inf\",request=\"Attach\"} 1\n",
        "trapgate_stops_total{cause=\"break\"} 0\n",
        "trapgate_received_bytes_total ",
        "# EOF\n",
    ] {
        assert!(text.contains(expected), "no {expected} in {text}");
    }
}

#[test]
fn a_request_is_logged_in_its_stop_and_its_session() {
    // The executor runs on this thread, so the log contains only this test's lines.
    let log = Text::of(tracing::Level::DEBUG, || {
        DefaultPool::run_with(async |driver| {
            let listener =
                DebugListener::bind(&"127.0.0.1:0".parse().unwrap(), Exposure::default()).unwrap();
            let ListenAddress::Tcp(address) = listener.local_addr() else {
                unreachable!("bound so")
            };
            let (requests, vm_requests) = mesh::channel();
            let _vm = driver.spawn("vm", FakeVm::new().run(vm_requests));
            let parameters = DebuggerParameters::new(listener, requests);
            let (owner, owned) = mesh::channel();
            let server = driver.spawn("server", serve(driver.clone(), parameters, owned));
            let client = thread::spawn(move || {
                let mut client = Client::new(TcpStream::connect(address).unwrap());
                client.start();
                client.ask("g");
                client.ask("m100000,1");
                owner.send(WorkerRpc::Stop);
            });
            server.await.unwrap();
            client.join().expect("the client's assertions hold");
        });
    });
    let in_stop = |rest: &str| {
        log.lines().any(|line| {
            let (_, spans) = line.split_once("session{").unwrap_or_default();
            spans.contains("remote_addr=")
                && spans.contains(&format!(":stop{{epoch=0 cause=\"break\"}}:{rest}"))
        })
    };
    assert!(in_stop("request{kind=\"GetVpState\"}: "), "{log}");
    assert!(in_stop("request{kind=\"ReadMemory\"}: "), "{log}");
    assert!(log.contains("failed took="), "{log}");
}
