//! The VMM of `test_support/small_vmm`: two vCPUs in a loop in protected mode.

use crate::bed::Vmm;
use crate::bed::built;
use crate::bed::console;
use crate::bed::exec;
use crate::bed::monitor;
use debug_client::blocking::Debugger;
use std::net::TcpStream;
use test_machine::packets::Packets;
use test_machine::running::DEADLINE;
use test_machine::running::kvm_here;

/// The guest's loop: an increment of four bytes at 0x2000, an increment of BX, a write to a port, and a jump back. Behind it is an instruction that no vCPU reaches.
const CODE: &str = "f066ff06002043e610ebf5f4";
const START: u64 = 0x1000;
const INC_BX: u64 = 0x1006;
const OUT: u64 = 0x1007;

/// With an INT3 at [`INC_BX`], and with one behind the loop.
const BYTE_AT_INC_BX: &str = "f066ff060020cce610ebf5f4";
const BYTE_BEHIND_LOOP: &str = "f066ff06002043e610ebf5cc";

fn start(options: &[&str], cpus: &str) -> Option<Vmm> {
    kvm_here().then(|| Vmm::start(exec(options, &[&built("small_vmm"), cpus])))
}

impl Vmm {
    /// Types a command and returns the answer.
    #[track_caller]
    fn ask(&mut self, command: &str) -> String {
        self.say(command);
        let prefix = format!("{command}: ");
        loop {
            let line = self.process.next_line(DEADLINE);
            let line = line.expect("an answer in time").expect("the VMM runs");
            match line.strip_prefix(&prefix) {
                Some(answer) => return answer.to_owned(),
                None => self.passed_over.push(line),
            }
        }
    }

    fn count(&mut self) -> u64 {
        self.ask("count").parse().expect("a number")
    }

    /// Whether the breakpoint is a byte in memory. If not, memory is as without a debugger at any time, and a skip is printed.
    #[track_caller]
    fn has_byte(&mut self, with: &str) -> bool {
        let code = self.ask("code");
        if code == CODE {
            println!("SKIP: INT3 does not trap here, and the breakpoint is in a debug register");
        } else {
            assert_eq!(code, with);
        }
        code != CODE
    }

    /// Pauses the VMM and returns what a snapshot would have.
    #[track_caller]
    fn pause(&mut self) -> String {
        let answer = self.ask("pause");
        let (time, code) = answer.split_once(" ms, code ").expect("two parts");
        let time: u32 = time.parse().expect("a number");
        assert!(time < 100, "the VMM waited {time} ms for its own threads");
        code.to_owned()
    }
}

#[track_caller]
fn rip(packets: &mut Packets<TcpStream>) -> u64 {
    let reply = packets.ask("p10");
    let number = u64::from_str_radix(&reply, 16).unwrap_or_else(|_| panic!("`p10`: {reply}"));
    number.swap_bytes()
}

#[track_caller]
fn stops(packets: &mut Packets<TcpStream>, how: &str) {
    let reply = packets.ask(how);
    assert!(reply.starts_with("T05"), "`{how}`: {reply}");
}

#[test]
fn a_guest_is_held_before_its_first_instruction_and_debugged() {
    let Some(mut vmm) = start(&["--wait"], "2") else {
        return;
    };
    let mut packets = vmm.packets();
    assert_eq!(rip(&mut packets), START);
    assert_eq!(vmm.count(), 0, "the guest has run");
    assert_eq!(packets.ask("Z0,1006,1"), "OK");
    for _ in 0..4 {
        stops(&mut packets, "c");
        assert_eq!(rip(&mut packets), INC_BX);
        assert_eq!(packets.ask("m1000,c"), CODE);
    }
    // Only the vCPU that has stopped: the other one could come to the breakpoint first.
    let thread = packets.ask("qC");
    let thread = thread.strip_prefix("QC").expect("a thread");
    stops(&mut packets, &format!("vCont;s:{thread}"));
    assert_eq!(rip(&mut packets), OUT);
    assert_eq!(packets.ask("z0,1006,1"), "OK");
    // The counter of both vCPUs.
    assert_eq!(packets.ask("M2000,4:00000000"), "OK");
    assert_eq!(packets.ask("m2000,4"), "00000000");
    let before = vmm.count();
    assert_eq!(packets.ask("D"), "OK");
    while vmm.count() < before + 1000 {}
}

#[test]
fn the_vmm_pauses_at_once_while_a_debugger_holds_the_guest() {
    let Some(mut vmm) = start(&[], "2") else {
        return;
    };
    while vmm.count() == 0 {}
    let mut packets = vmm.packets();
    assert_eq!(packets.ask("Z0,1006,1"), "OK");
    for _ in 0..3 {
        stops(&mut packets, "c");
        if !vmm.has_byte(BYTE_AT_INC_BX) {
            return;
        }
        let count = vmm.count();
        assert_eq!(vmm.pause(), CODE, "a breakpoint's byte is in a snapshot");
        assert_eq!(vmm.ask("resume"), "done");
        assert_eq!(rip(&mut packets), INC_BX);
        assert_eq!(vmm.count(), count, "the guest has run");
    }
    assert_eq!(packets.ask("D"), "OK");
    while vmm.count() < 1000 {}
}

#[test]
fn a_snapshot_of_a_running_guest_has_no_byte_of_ours() {
    let Some(mut vmm) = start(&["--wait"], "2") else {
        return;
    };
    let mut packets = vmm.packets();
    assert_eq!(packets.ask("Z0,100b,1"), "OK");
    packets.send_raw(&test_machine::packets::packet(b"c"));
    for _ in 0..5 {
        let count = vmm.count();
        while vmm.count() == count {}
        if !vmm.has_byte(BYTE_BEHIND_LOOP) {
            return;
        }
        assert_eq!(vmm.pause(), CODE);
        assert_eq!(vmm.ask("resume"), "done");
    }
}

#[test]
fn memory_that_the_vmm_has_cut_off_gives_an_error_and_the_vmm_lives() {
    let Some(mut vmm) = start(&["--wait"], "2") else {
        return;
    };
    let mut packets = vmm.packets();
    assert_eq!(packets.ask("M100ff8,8:1122334455667788"), "OK");
    assert_eq!(packets.ask("M101000,8:99aabbccddeeff00"), "OK");
    assert_eq!(vmm.ask("shrink"), "done");
    // One access of the processor, a copy, and a write.
    for lost in ["m101000,8", "m101ff1,f", "M101000,4:01020304"] {
        let reply = packets.ask(lost);
        assert!(reply.starts_with('E'), "`{lost}`: {reply}");
    }
    assert_eq!(packets.ask("m100ff8,8"), "1122334455667788");
    assert_eq!(packets.ask("m1000,c"), CODE);
    stops(&mut packets, "s");
    let count = vmm.count();
    assert_eq!(packets.ask("D"), "OK");
    while vmm.count() < count + 1000 {}
    vmm.say("quit");
    assert_eq!(vmm.process.finish().code, Some(7));
}

#[test]
fn memory_that_the_vmm_maps_anew_has_the_breakpoint_again() {
    let Some(mut vmm) = start(&["--wait"], "2") else {
        return;
    };
    let mut packets = vmm.packets();
    assert_eq!(packets.ask("Z0,1006,1"), "OK");
    stops(&mut packets, "c");
    vmm.pause();
    assert_eq!(vmm.ask("remap"), "done");
    assert_eq!(vmm.ask("resume"), "done");
    assert_eq!(packets.ask("m1000,c"), CODE);
    for _ in 0..4 {
        stops(&mut packets, "c");
        assert_eq!(rip(&mut packets), INC_BX);
    }
    vmm.pause();
}

#[test]
fn the_vmm_ends_with_its_own_status_and_its_children_are_not_debugged() {
    let Some(mut vmm) = start(&[], "1") else {
        return;
    };
    while vmm.count() == 0 {}
    assert_eq!(vmm.ask("child"), "0 variables");
    let mut packets = vmm.packets();
    vmm.say("quit");
    // The guest is stopped, and the VMM ends all the same.
    let ended = vmm.process.finish();
    assert_eq!(ended.code, Some(7), "{}", ended.output);
    while packets.byte().is_some() {}
}

#[test]
fn a_debugger_that_waits_is_told_that_the_vmm_has_ended() {
    let Some(mut vmm) = start(&[], "1") else {
        return;
    };
    while vmm.count() == 0 {}
    let mut packets = vmm.packets();
    packets.send_raw(&test_machine::packets::packet(b"c"));
    let before = vmm.count();
    while vmm.count() == before {}
    vmm.say("quit");
    let first = packets.reply().expect("the end of the guest");
    let (text, reply) = console(&mut packets, first);
    assert!(text.contains("the VMM has ended the guest"), "{text}");
    assert_eq!(reply, "W00");
    assert_eq!(vmm.process.finish().code, Some(7));
}

#[test]
fn events_that_only_the_vmm_sees_are_no_stops_and_a_reset_is_refused_with_what_to_do() {
    let Some(mut vmm) = start(&["--wait"], "1") else {
        return;
    };
    let mut packets = vmm.packets();
    let stops = monitor(&mut packets, "stop-on");
    assert!(stops.contains("reset         no stop"), "{stops}");
    assert!(stops.contains("triple-fault  a stop"), "{stops}");
    let asked = monitor(&mut packets, "stop-on reset,triple-fault");
    assert!(asked.contains("reset         NO STOP: this VMM"), "{asked}");
    assert!(asked.contains("poweroff      no stop"), "{asked}");
    assert!(asked.contains("triple-fault  a stop"), "{asked}");
    let refused = monitor(&mut packets, "reset");
    assert!(refused.contains("`system_reset`"), "{refused}");
    assert!(!refused.contains("Machine::reset"), "{refused}");
}

#[test]
fn a_signal_reaches_the_vmm() {
    let Some(mut vmm) = start(&[], "1") else {
        return;
    };
    while vmm.count() == 0 {}
    vmm.process.signal("TERM");
    let ended = vmm.process.finish();
    assert_eq!(ended.code, None, "{}", ended.output);
}

/// As a VMM has them that runs several guests, or that tries KVM's features in a VM of its own.
#[test]
fn each_vm_of_a_process_has_a_debug_server() {
    let Some(mut vmm) = start(&[], "1") else {
        return;
    };
    let mut first = vmm.packets();
    assert_eq!(vmm.ask("second"), "done");
    let before = vmm.count();
    let known = vmm.process.address();
    let is_second = |line: &str| line.starts_with("gdb: listening on ") && !line.ends_with(&known);
    // The answer and this line come by two pipes.
    let passed_over = vmm.passed_over.iter().find(|line| is_second(line));
    let address = match passed_over {
        Some(line) => line.clone(),
        None => vmm.process.line("the second address", is_second),
    };
    let mut second = Packets::connect(address.trim_start_matches("gdb: listening on "));
    second.ask("qSupported:swbreak+;hwbreak+");
    assert_eq!(second.ask("Z0,1006,1"), "OK");
    stops(&mut second, "c");
    assert_eq!(rip(&mut second), INC_BX);
    // The guest of the first session stands, and has no breakpoint.
    assert_eq!(vmm.count(), before);
    stops(&mut first, "s");
    assert_eq!(second.ask("D"), "OK");
    assert_eq!(first.ask("D"), "OK");
    vmm.say("quit");
    assert_eq!(vmm.process.finish().code, Some(7));
}

#[test]
fn a_lost_debugger_ends_the_vmm_if_the_user_says_so() {
    let Some(mut vmm) = start(&["--on-disconnect", "kill"], "1") else {
        return;
    };
    while vmm.count() == 0 {}
    let mut packets = vmm.packets();
    stops(&mut packets, "s");
    drop(packets);
    // Ended by a signal.
    let ended = vmm.process.finish();
    assert_eq!(ended.code, None, "{}", ended.output);
}

#[test]
fn a_lost_debugger_leaves_the_guest_stopped_if_the_user_says_so() {
    let Some(mut vmm) = start(&["--on-disconnect", "stop"], "1") else {
        return;
    };
    while vmm.count() == 0 {}
    let mut first = vmm.packets();
    stops(&mut first, "s");
    let count = vmm.count();
    drop(first);
    // A guest that goes on does so long before the last answer.
    for _ in 0..5000 {
        assert_eq!(vmm.count(), count, "the guest has run");
    }
    let mut second = vmm.packets();
    assert_eq!(vmm.count(), count, "the guest has run");
    assert_eq!(second.ask("D"), "OK");
    while vmm.count() < count + 1000 {}
}

#[test]
fn a_core_file_goes_into_the_folder_that_the_user_names() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("text");
    let Some(mut vmm) = start(&["--wait", "--dump-dir", path], "1") else {
        return;
    };
    let mut packets = vmm.packets();
    let text = monitor(&mut packets, "dump core");
    let core = std::fs::read(folder.path().join("core"));
    let core = core.unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(core.starts_with(b"\x7fELF"), "{text}");
}

#[test]
fn the_counters_are_on_a_socket_of_the_users_choice() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("metrics");
    let metrics = format!("unix:{}", path.display());
    let Some(mut vmm) = start(&["--wait", "--metrics", &metrics], "1") else {
        return;
    };
    let mut packets = vmm.packets();
    stops(&mut packets, "s");
    let text = test_machine::metrics::scraped(&path);
    assert!(
        text.contains("\ntrapgate_stops_total{cause=\"step\"} 1\n"),
        "{text}"
    );
}

#[test]
fn a_program_debugs_the_guest_over_a_socket_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let rpc = format!("unix:{}", folder.path().join("rpc").display());
    let Some(mut vmm) = start(&["--wait", "--rpc", &rpc], "1") else {
        return;
    };
    vmm.process.wait_for(&format!("rpc: listening on {rpc}"));
    let mut vm = Debugger::connect(&rpc).expect("attached");
    assert_eq!(vm.vp(0).pc().expect("stopped"), START);
    let out = vm.break_at(OUT).expect("set");
    vm.run_until(&out, DEADLINE).expect("the write to the port");
    assert_eq!(vm.vp(0).reg("rbx").expect("stopped") & 0xffff, 1);
    drop(vm);
    let count = vmm.count();
    while vmm.count() < count + 1000 {}
}

#[test]
fn a_client_that_sends_nothing_is_closed_after_the_users_time() {
    let Some(mut vmm) = start(&["--idle-timeout", "1"], "1") else {
        return;
    };
    let mut silent = Packets::connect(&vmm.process.address());
    assert_eq!(silent.byte(), None);
}

/// Another server has taken the address between the start of `trapgate exec` and the creation of the VM.
#[test]
fn a_guest_without_a_debugger_is_told_of_in_capitals() {
    if !kvm_here() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("gdb");
    let script = format!("touch {}; exec {} 1", socket.display(), built("small_vmm"));
    let address = format!("unix:{}", socket.display());
    let mut command = test_machine::running::trapgate(&["exec", "--gdb", &address]);
    command.arg("--library").arg(crate::bed::library());
    command.args(["--", "sh", "-c", &script]);
    command.stdin(std::process::Stdio::null());
    let ended = command.output().expect("it starts");
    let error = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(error.contains("NO DEBUGGER"), "{error}");
    assert!(error.contains("is not a socket"), "{error}");
}
