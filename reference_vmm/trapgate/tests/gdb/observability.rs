//! The log and the counters of the program.

use crate::packets::Packets;
use crate::running::Running;
use crate::running::kvm_here;
use test_machine::metrics::scraped;

#[test]
fn metrics_and_a_log_in_json_show_what_a_debugger_did() {
    if !kvm_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("metrics");
    let metrics = format!("unix:{}", path.display());
    let options = ["--gdb", "127.0.0.1:0", "--log", "json,debug"];
    let mut guest = Running::start(&[&options[..], &["--metrics", &metrics]].concat());
    let mut packets = Packets::connect(&guest.address());
    assert!(packets.ask("?").starts_with('T'));
    packets.ask("g");
    assert!(packets.ask("vCont;s:1").starts_with("T05"));
    let text = scraped(&path);
    assert!(
        text.contains("\ntrapgate_stops_total{cause=\"step\"} 1\n"),
        "{text}"
    );
    let read = "\ntrapgate_request_latency_seconds_count{request=\"GetVpState\"} ";
    assert!(text.contains(read), "{text}");
    let line = guest.line("a request in JSON", |line| {
        line.starts_with('{') && line.contains("\"GetVpState\"")
    });
    for part in [
        "\"session\"",
        "\"remote_addr\"",
        "\"stop\"",
        "\"cause\":\"break\"",
        "\"request\"",
    ] {
        assert!(line.contains(part), "no {part} in {line}");
    }
    assert_eq!(packets.ask("D"), "OK");
}
