//! Tracepoints of GDB, with every version that is here.

use crate::gdb_client::guest;
use crate::gdb_client::in_order;
use crate::packets::Packets;
use crate::running::Running;
use std::path::Path;
use test_machine::debuggers::Client;

/// Runs a file of commands in this GDB.
fn gdb(program: &Path, guest: &mut Running, commands: &str) -> String {
    let line = guest.gdb_line();
    let arguments = line.strip_prefix("gdb ").expect("a line for GDB");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("commands");
    std::fs::write(&file, commands).unwrap();
    let mut shell = std::process::Command::new("sh");
    let script = format!(
        "exec \"$0\" -nx -batch -iex 'set pagination off' -iex 'set confirm off' -iex 'set width 0' {arguments} -x \"$1\""
    );
    shell.env("LC_ALL", "C.UTF-8").args(["-c", &script]);
    shell
        .arg(program)
        .arg(&file)
        .stdin(std::process::Stdio::null());
    let ended = Running::spawn(shell).finish();
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    ended.output
}

/// The numbers behind the first word of each line that begins with it.
fn numbers(text: &str, word: &str) -> Vec<Vec<u64>> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(word));
    lines
        .map(|line| {
            line.split_whitespace()
                .map(|n| n.parse().expect("a number"))
                .collect()
        })
        .collect()
}

const RECORD: &str = "\
trace do_round
actions
collect $regs, cpu->rounds, cpu->id
end
tstart
break count_primes if cpus[0].rounds == 40
continue
tstop
";

/// Prints the rounds of each CPU in the guest, and what each frame has of them.
const LIST: &str = "\
printf \"GUEST %lu %lu %lu %lu\\n\", cpus[0].rounds, cpus[1].rounds, cpus[2].rounds, cpus[3].rounds
tfind start
while $trace_frame != -1
printf \"FRAME %u %lu\\n\", cpu->id, cpu->rounds
tfind
end
";

#[test]
fn there_is_a_frame_for_each_round_that_the_guest_counts() {
    for found in Client::Gdb.all() {
        for cpus in ["1", "4"] {
            let Some(mut guest) = guest(&["--cpus", cpus]) else {
                return;
            };
            let commands = format!(
                "{RECORD}tstatus\n{LIST}tfind none\nprint cpus[0].rounds\ntfind 3\ninfo registers rip\nprint $xmm0\ntfind none\nstepi\nprint cpus[0].rounds\n"
            );
            let text = gdb(&found.program, &mut guest, &commands);
            let name = format!("{} {cpus}: {text}", found.name);
            let mut next = [0; 4];
            for frame in numbers(&text, "FRAME ") {
                let next = &mut next[usize::try_from(frame[0]).unwrap()];
                assert_eq!(frame[1], *next, "{name}");
                *next += 1;
            }
            let counted = &numbers(&text, "GUEST ")[0];
            for (frames, rounds) in next.iter().zip(counted) {
                // A CPU in the function counts the round later.
                assert!(
                    [*rounds, rounds + 1].contains(frames),
                    "{next:?} {counted:?} {name}"
                );
            }
            let frames: u64 = next.iter().sum();
            assert!(frames > 40, "{name}");
            let collected = format!("Collected {frames} trace frames.");
            in_order(
                &text,
                &[
                    "Trace stopped by a tstop command",
                    &collected,
                    "$1 = 40\n",
                    "Found trace frame 3",
                    "<do_round>",
                ],
            );
            assert!(text.contains("<unavailable>"), "{name}");
        }
    }
}

#[test]
fn a_buffer_that_is_full_ends_the_trace_and_a_circular_one_keeps_the_last_frames() {
    for found in Client::Gdb.all() {
        for circular in ["off", "on"] {
            let Some(mut guest) = guest(&["--cpus", "4"]) else {
                return;
            };
            let commands = format!(
                "set circular-trace-buffer {circular}\nset trace-buffer-size 6000\n{RECORD}tstatus\n{LIST}"
            );
            let text = gdb(&found.program, &mut guest, &commands);
            let name = format!("{} {circular}: {text}", found.name);
            let frames = numbers(&text, "FRAME ");
            assert!((5..20).contains(&frames.len()), "{name}");
            let first = frames.iter().map(|frame| frame[1]).min().unwrap();
            match circular {
                "on" => {
                    assert!(first > 20, "{name}");
                    assert!(text.contains("Trace buffer is circular."), "{name}");
                    assert!(text.contains(" created total)"), "{name}");
                }
                _ => {
                    assert_eq!(first, 0, "{name}");
                    assert!(
                        text.contains("Trace stopped because the buffer was full."),
                        "{name}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_client_that_comes_back_has_its_frames_its_tracepoints_and_a_file() {
    for found in Client::Gdb.all() {
        let Some(mut guest) = guest(&["--cpus", "4"]) else {
            return;
        };
        let commands = "trace do_round if cpu->id == 0\nactions\ncollect cpu->rounds, cpu->id, $rsp\nend\npasscount 7\n\
            tstart\nbreak count_primes if cpus[0].rounds == 20\ncontinue\ndisconnect\n";
        gdb(&found.program, &mut guest, commands);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("frames");
        let file = file.to_str().unwrap();
        let commands = format!(
            "tstatus\ninfo tracepoints\n{LIST}tfind 2\ntdump\nprint $rax\nprint cpu->primes\ntfind none\ntsave {file}\ndetach\n\
            target tfile {file}\ntfind tracepoint 1\nprint cpu->rounds\ntfind pc do_round\nprint cpu->rounds\n"
        );
        let text = gdb(&found.program, &mut guest, &commands);
        in_order(
            &text,
            &[
                "Trace stopped by tracepoint 1.",
                "Collected 7 trace frames.",
                "trace only if cpu->id == 0",
                "already hit 7 times",
                "collect cpu->rounds, cpu->id, $rsp",
                "pass count 7",
                "FRAME 0 6\n",
                "Data collected at tracepoint 1, trace frame 2",
                "cpu->rounds = 2",
                "cpu->id = 0",
                "$1 = <unavailable>",
                "$2 = <unavailable>",
                "$3 = 0\n",
                "$4 = 1",
            ],
        );
    }
}

#[test]
fn what_a_trace_cannot_do_is_an_error_and_the_session_goes_on() {
    let Some(mut guest) = guest(&["--cpus", "1"]) else {
        return;
    };
    let mut client = Packets::connect(&guest.address());
    assert_eq!(client.ask("QTinit"), "OK");
    assert_eq!(client.ask("QTDP:1:100000:E:0:0"), "OK");
    for wrong in [
        // A second one, no such one, steps, and what only processes have.
        "QTDP:1:100000:E:0:0",
        "QTDP:-2:100000:R1",
        "QTDP:2:100000:E:1:0",
        "QTDP:2:100000:E:0:0:F3",
        "QTDV:1:0:0:78",
        "QTDisconnected:1",
        // Bytecode that lies about its length, ends nowhere, jumps out, has an empty stack, or names a variable or an unknown register.
        "QTDP:-1:100000:X5,27",
        "QTDP:-1:100000:X1,0c",
        "QTDP:-1:100000:X3,210fff",
        "QTDP:-1:100000:X2,0c27",
        "QTDP:-1:100000:X4,2e000127",
        "QTDP:-1:100000:X4,26fff027",
        "QTDP:-1:100000:M7ff,0,1",
        "QTDP:3:100000:E:0:0:X1,27",
        "QTEnable:9:100000",
        "QTFrame:pc:",
    ] {
        let reply = client.ask(wrong);
        assert!(reply.starts_with('E'), "{wrong}: {reply}");
    }
    // A range without memory, more than a frame may have, and code that never ends, are not recorded.
    assert_eq!(
        client.ask("QTDP:-1:100000:M-1,ffff800000000000,8M-1,100000,7fffffffffffffffX3,210000"),
        "OK"
    );
    assert_eq!(client.ask("QTBuffer:size:ffffffffffffffff"), "OK");
    assert_eq!(client.ask("QTStart"), "OK");
    assert!(client.ask("s").starts_with('T'));
    assert_eq!(client.ask("QTStop"), "OK");
    assert!(client.ask("qTStatus").starts_with("T0;tstop:0;tframes:1;"));
    assert_eq!(client.ask("QTFrame:0"), "F0T1");
    assert!(client.ask("m100000,2").starts_with('E'));
    assert!(client.ask("M100000,2:0000").starts_with('E'));
    assert_eq!(client.ask("QTFrame:1"), "F-1");
    assert_eq!(client.ask("QTFrame:ffffffff"), "F-1");
    assert_eq!(client.ask("m100000,2"), "fafc");
    // A resume ends the look at a frame.
    assert_eq!(client.ask("QTFrame:0"), "F0T1");
    assert!(client.ask("s").starts_with('T'));
    assert_eq!(client.ask("m100000,2"), "fafc");
}
