use super::*;
use crate::fake_guest::FakeGuest;
use crate::framing::Decoder;
use crate::framing::Frame;
use crate::framing::expand;
use crate::regs::Layout;
use crate::session::Action;
use crate::session::Session;
use crate::target::Stop;
use crate::target::StopReason;
use crate::target::TargetOp;
use crate::target::Tid;
use std::collections::BTreeSet;
use std::path::Path;

const LAYOUT: Layout = Layout::X86_64 {
    avx: false,
    avx512: false,
    pkru: false,
};

/// The first packet that a session in extended mode sends in answer to a packet. `None` if the session sends none.
fn answer(packet: &str) -> Option<Vec<u8>> {
    let mut guest = FakeGuest::new(LAYOUT, 2);
    guest.symbols = true;
    let mut session = Session::new(guest.info());
    let mut sent = Vec::new();
    let sum = packet
        .bytes()
        .fold(0_u8, |sum, byte| sum.wrapping_add(byte));
    session.push(format!("+$!#21+${packet}#{sum:02x}").as_bytes());
    while let Some(action) = session.poll_action() {
        match action {
            Action::Send(bytes) => sent.extend(bytes),
            Action::Close => {}
            Action::Target(op) => {
                session.complete(guest.answer(&op));
                if let TargetOp::Resume(_) = op {
                    let stop = Stop {
                        thread: Tid::new(1),
                        reason: StopReason::Trap,
                    };
                    session.stopped(stop, None);
                }
            }
        }
    }
    let mut decoder = Decoder::default();
    decoder.push(&sent);
    let mut extended = false;
    while let Some(frame) = decoder.next_frame() {
        if let Frame::Packet(payload) = frame {
            if !std::mem::replace(&mut extended, true) {
                assert_eq!(payload, b"OK");
                continue;
            }
            return Some(expand(payload).expect("a reply that a client can decode"));
        }
    }
    None
}

/// The packet as a client sends it. The value of `G` is that of `g`, which would make the list unreadable.
fn sent(packet: &Packet) -> String {
    match packet.plain {
        "G" => {
            let registers = answer("g").expect("a reply");
            format!("G{}", String::from_utf8(registers).expect("hex digits"))
        }
        plain => plain.to_owned(),
    }
}

/// An empty reply, `E NN`, `E.` and a text, or the answer that files are read-only.
fn is_refusal(reply: &[u8]) -> bool {
    match reply {
        [] | [b'E', b'.', ..] => true,
        b"F-1,1e" => true,
        [b'E', code @ ..] => code.len() == 2 && code.iter().all(u8::is_ascii_hexdigit),
        _ => false,
    }
}

#[test]
fn each_packet_of_the_list_is_answered_as_the_list_says() {
    for packet in all().filter(|packet| !packet.plain.is_empty()) {
        assert!(packet.plain.starts_with(packet.name), "{packet:?}");
        let reply = answer(&sent(packet));
        let refused = reply.as_deref().is_some_and(is_refusal);
        let shown = reply.as_deref().map(String::from_utf8_lossy);
        match packet.support {
            Support::Yes(_) => assert!(!refused, "{packet:?} gets {shown:?}"),
            Support::No(_) => assert!(refused, "{packet:?} gets {shown:?}"),
        }
        // Without a word from the server the client would wait.
        assert!(
            reply.is_some() || matches!(packet.name, "k" | "R"),
            "{packet:?} gets no reply"
        );
    }
}

#[test]
fn each_packet_is_in_the_list_once() {
    let mut seen = BTreeSet::new();
    for packet in all() {
        assert!(
            seen.insert((packet.name, packet.plain)),
            "{packet:?} is there twice"
        );
    }
}

#[test]
fn what_is_announced_is_supported_and_nothing_else() {
    let everything = ClientFeatures {
        error_message: true,
        ..ClientFeatures::default()
    };
    let announced = supported(everything, true);
    for packet in all() {
        if !matches!(packet.announced, Announced::Nothing) {
            assert!(matches!(packet.support, Support::Yes(_)), "{packet:?}");
        }
    }
    let features: BTreeSet<&str> = announced.split(';').collect();
    assert_eq!(features.len(), announced.split(';').count(), "{announced}");
    assert!(announced.starts_with("PacketSize=40000;"), "{announced}");
    let least = supported(ClientFeatures::default(), false);
    assert!(
        !least.contains("error-message") && !least.contains("exec-file"),
        "{least}"
    );
}

/// The names of the test functions in the sources below a folder.
fn test_functions(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in folder.read_dir().expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            test_functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).expect("a text");
            let mut marked = false;
            for line in text.lines().map(str::trim_start) {
                if line.starts_with("#[") {
                    marked |= line.ends_with("test]") || line.contains("test(");
                } else if marked {
                    marked = false;
                    let line = line.strip_prefix("async ").unwrap_or(line);
                    if let Some((name, _)) = line
                        .strip_prefix("fn ")
                        .and_then(|rest| rest.split_once('('))
                    {
                        found.insert(name.to_owned());
                    }
                }
            }
        }
    }
}

#[test]
fn each_test_that_the_list_names_is_there_and_each_transcript_has_the_packet() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut functions = BTreeSet::new();
    test_functions(folder.parent().expect("the workspace"), &mut functions);
    let mut wrong = Vec::new();
    for packet in all() {
        let Support::Yes(tests) = packet.support else {
            continue;
        };
        assert!(!tests.is_empty(), "{packet:?} is shown by no test");
        for test in tests {
            if !test.ends_with(".txt") {
                if !functions.contains(*test) {
                    wrong.push(format!("{}: there is no test {test}", packet.name));
                }
                continue;
            }
            let transcript = folder.join("tests/transcripts").join(test);
            let text = std::fs::read_to_string(transcript).unwrap_or_default();
            let sent = format!("{{{}", packet.name);
            if text.is_empty() || (!packet.plain.is_empty() && !text.contains(&sent)) {
                wrong.push(format!("{}: {test} does not show it", packet.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_page_of_the_guide_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Guide/src/packets.md");
    let page = markdown::page();
    if std::env::var_os("TRAPGATE_BLESS").is_some() {
        std::fs::write(&path, &page).expect("a file that can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "{} is out of date; run: TRAPGATE_BLESS=1 cargo test -p trapgate-gdb-frontend",
        path.display()
    );
}
