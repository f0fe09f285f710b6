//! `trapgate rpc`: a shell debugs the demo guest by lines of JSON.

use super::Guest;
use super::NO_GDB;
use super::symbols;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Write as _;
use std::process::ChildStdin;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use test_machine::running::Ended;
use test_machine::running::Running;
use test_machine::running::trapgate;

fn command(guest: &Guest, words: &[&str]) -> Command {
    let socket = format!("unix:{}", guest.path.display());
    trapgate(&[&["rpc", "--socket", &socket], words].concat())
}

/// One request. A guest whose last session ends at this moment is asked again.
fn ask(guest: &Guest, words: &[&str]) -> Ended {
    loop {
        let ended = Running::spawn(command(guest, words)).finish();
        if !ended.output.contains("already attached") {
            return ended;
        }
    }
}

/// A script with its lines and the answers.
struct Script {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Script {
    fn send(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("it reads");
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it writes");
        line.trim_end().to_owned()
    }
}

#[test]
fn a_script_sets_a_breakpoint_waits_for_it_reads_and_leaves_nothing_behind() {
    let Some(guest) = Guest::start(&[&NO_GDB[..], &["--no-wait"]].concat()) else {
        return;
    };
    let round = symbols().address("do_round").expect("known");
    let read = format!(r#"[{{"Gpa":{round}}},4]"#);
    let before = ask(&guest, &["read_memory", &read]);
    assert_eq!(before.code, Some(0), "{}", before.output);

    let mut child = command(&guest, &[])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut script = Script {
        input: child.stdin.take().expect("piped"),
        output: BufReader::new(child.stdout.take().expect("piped")),
    };
    script.send(&format!(
        r#"{{"id":1,"method":"set_debug_state","params":[{{"Insert":{{"kind":"Software","address":{round},"len":1}}}}]}}"#
    ));
    script.send(r#"{"id":"two","method":"resume","params":{"others":"Run","actions":[]}}"#);
    assert_eq!(script.answer(), r#"{"id":1,"result":null}"#);
    let stop = script.answer();
    assert!(stop.starts_with(r#"{"id":"two","result":{"#), "{stop}");
    assert!(stop.contains(r#""kind":"Software""#), "{stop}");
    // The guest's own bytes, and an error with its reason.
    script.send(&format!(r#"{{"method":"read_memory","params":{read}}}"#));
    assert_eq!(script.answer(), before.output.trim_end());
    script.send(r#"{"id":4,"method":"nmi","params":99}"#);
    let error = script.answer();
    assert!(
        error.starts_with(r#"{"id":4,"error":"there is no VP 99"#),
        "{error}"
    );
    // An answer that comes before the one of the request above it.
    script.send(r#"{"id":5,"method":"set_debug_state","params":[]}"#);
    assert_eq!(script.answer(), r#"{"id":5,"result":null}"#);
    // The conditions of the Guide: the bytecode is `reg 7; const8 5; equal; end`.
    script.send(&format!(
        r#"{{"id":6,"method":"set_conditions","params":{{"breakpoint":{{"kind":"Software","address":{round},"len":1}},"conditions":[{{"code":[38,0,7,34,5,19,39]}}]}}}}"#
    ));
    assert_eq!(script.answer(), r#"{"id":6,"result":null}"#);
    script.send(r#"{"id":7,"method":"breakpoint_hits"}"#);
    let hits = script.answer();
    assert!(
        hits.contains(r#""hits":1"#) && hits.contains(r#""passes":0"#),
        "{hits}"
    );
    drop(script.input);
    let code = child.wait().expect("its end").code();
    assert_eq!(code, Some(1), "one request had an error");

    let after = ask(&guest, &["read_memory", &read]);
    assert_eq!(after.output, before.output);
    let breakpoints = ask(&guest, &["breakpoints"]);
    assert_eq!(breakpoints.output.trim_end(), r#"{"result":[]}"#);
}

#[test]
fn a_break_is_sent_while_a_resume_waits() {
    let Some(guest) = Guest::start(&[&NO_GDB[..], &["--no-wait"]].concat()) else {
        return;
    };
    let mut child = command(&guest, &[])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut input = child.stdin.take().expect("piped");
    input
        .write_all(b"{\"id\":1,\"method\":\"resume\",\"params\":{\"others\":\"Run\",\"actions\":[]}}\n{\"id\":2,\"method\":\"break\"}\n")
        .expect("it reads");
    drop(input);
    let output = child.wait_with_output().expect("its end");
    let text = String::from_utf8(output.stdout).expect("text");
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].contains(r#""reason":"Break""#), "{text}");
    assert_eq!(lines[1], r#"{"id":2,"result":null}"#);
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let Some(guest) = Guest::start(&NO_GDB) else {
        return;
    };
    for (words, code, told) in [
        (
            &["rounds"][..],
            1,
            "there is no method `rounds`; write one of: read_memory, ",
        ),
        (
            &["read_memory", "7"],
            1,
            "the parameters of `read_memory` are wrong: ",
        ),
        (&["read_memory", "[1"], 1, "not JSON"),
        (
            &["write_memory", r#"[{"Gpa":0},"9"]"#],
            1,
            "`9` is no hex text of bytes",
        ),
        (&["help"], 0, "get_vp_state"),
    ] {
        let ended = ask(&guest, words);
        assert_eq!(ended.code, Some(code), "{words:?}: {}", ended.output);
        assert!(ended.output.contains(told), "{words:?}: {}", ended.output);
    }
    let program = guest.program().expect("attached");
    let refused = Running::spawn(command(&guest, &["status"])).finish();
    assert_eq!(refused.code, Some(2), "{}", refused.output);
    drop(program);
    let nobody = trapgate(&["rpc", "--socket", "unix:/nowhere/rpc", "status"]);
    let ended = Running::spawn(nobody).finish();
    assert_eq!(ended.code, Some(2));
    assert!(ended.output.contains("cannot connect to /nowhere/rpc"));
}

/// Only a request that resumes the guest starts a guest that is held.
#[test]
fn a_question_leaves_a_held_guest_held() {
    let Some(mut guest) = Guest::start(&NO_GDB) else {
        return;
    };
    let counter = symbols().address("counter").expect("known");
    let read = format!(r#"[{{"Gpa":{counter}}},8]"#);
    for _ in 0..3 {
        let ended = ask(&guest, &["status"]);
        assert_eq!(ended.code, Some(0), "{}", ended.output);
        let state = ask(&guest, &["get_vp_state", "0"]);
        assert!(
            state.output.contains(r#""rip":1048576,"#),
            "{}",
            state.output
        );
        let read = ask(&guest, &["read_memory", &read]);
        assert_eq!(read.output.trim_end(), r#"{"result":"0000000000000000"}"#);
    }
    let ended = ask(&guest, &["detach", r#""Resume""#]);
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    guest.process.wait_for("demo guest: CPU 1 is up");
}
