//! The replies that a client gets from a session, and the requests that the VM gets.

use super::bed::Bed;
use super::bed::Client;
use super::bed::unhex;
use crate::DebugListener;
use crate::DebugWorker;
use crate::DebuggerParameters;
use crate::ListenAddress;
use crate::SessionSettings;
use mesh::worker::launch_local_worker;
use pal_async::local::block_on;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::stop::CrashCause;
use vmm_core_defs::stop::DebugStopReason;

#[test]
fn registers_are_fetched_once_per_stop() {
    let bed = Bed::new();
    let mut client = bed.attach();
    let first = client.ask("g");
    assert_eq!(client.ask("g"), first);
    assert_eq!(client.ask("p10"), "0010000000000000", "rip");
    assert_eq!(bed.vm.asked("get vp state"), 1);
    // Each VP has its own registers.
    assert_eq!(client.ask("Hg2"), "OK");
    assert_eq!(client.ask("p10"), "0110000000000000");
    assert_eq!(bed.vm.asked("get vp state"), 2);
    // A write is read back, and only from the VP that was written.
    assert_eq!(client.ask("P10=2143658700000000"), "OK");
    assert_eq!(client.ask("p10"), "2143658700000000");
    assert_eq!(client.ask("Hg1"), "OK");
    assert_eq!(client.ask("p10"), "0010000000000000");
    assert_eq!(bed.vm.asked("get vp state"), 3);
    // Running the guest makes the cache stale.
    bed.vm
        .stop_at_next_resume(DebugStopReason::SingleStep { vp: VpIndex::BSP });
    assert!(client.ask("vCont;s:1").starts_with("T05"));
    assert_eq!(client.ask("p10"), "0110000000000000");
    assert_eq!(bed.vm.asked("get vp state"), 4);
}

/// A `Z` packet sets the conditions of its breakpoint anew, also to none.
#[test]
fn conditions_are_sent_where_there_are_some_or_were() {
    let bed = Bed::new();
    let mut client = bed.attach();
    for (packet, requests) in [
        ("Z0,1000,1", 0),
        ("Z0,1000,1;X3,220127", 1),
        ("Z0,1000,1;X3,220027X3,220127", 2),
        ("Z0,1000,1", 3),
        ("Z0,1000,1", 3),
        // A register of 128 bits: GDB evaluates the condition.
        ("Z1,2000,1;X4,26002827", 3),
        ("Z1,2000,1;X3,220127", 4),
        ("z1,2000,1", 4),
        ("Z1,2000,1", 4),
    ] {
        assert_eq!(client.ask(packet), "OK", "{packet}");
        assert_eq!(bed.vm.asked("set conditions"), requests, "{packet}");
    }
    // An operand is missing.
    assert_eq!(client.ask("Z0,3000,1;X1,22"), "E16");
    assert_eq!(bed.vm.asked("set conditions"), 4);
}

#[test]
fn memory_is_read_and_written_and_errors_are_told() {
    let bed = Bed::new();
    let mut client = bed.attach();
    assert_eq!(client.ask("m0,4"), "00010203");
    assert_eq!(client.ask("M0,2:aabb"), "OK");
    assert_eq!(client.ask("m0,4"), "aabb0203");
    assert_eq!(client.ask("mfffff,2").len(), 2, "as far as there is memory");
    assert_eq!(client.ask("m100000,1"), "E0e");
    assert!(
        client
            .ask("qSupported:error-message+")
            .contains("PacketSize")
    );
    let error = client.ask("m100000,1");
    assert!(error.starts_with("E.no page maps 0x100000"), "{error}");
}

#[test]
fn each_thread_does_what_it_is_told() {
    let bed = Bed::new();
    let mut client = bed.attach();
    bed.vm.stop_at_next_resume(DebugStopReason::SingleStep {
        vp: VpIndex::new(1),
    });
    assert!(client.ask("vCont;s:2;c").contains("thread:2;"));
    bed.vm
        .stop_at_next_resume(DebugStopReason::SingleStep { vp: VpIndex::BSP });
    client.ask("vCont;r1000,2000:1");
    let resumes = bed.vm.resumes();
    assert_eq!(resumes[0].actions, [(VpIndex::new(1), VpAction::Step)]);
    assert_eq!(resumes[0].others, VpAction::Run);
    let range = VpAction::StepRange {
        start: Gva::new(0x1000),
        end: Gva::new(0x2000),
    };
    assert_eq!(resumes[1].actions, [(VpIndex::BSP, range)]);
    assert_eq!(resumes[1].others, VpAction::Stay);
}

#[test]
fn a_watchpoint_stop_names_thread_kind_and_address() {
    let bed = Bed::new();
    let mut client = bed.attach_and_continue();
    let vp = VpIndex::new(1);
    let breakpoint = Breakpoint {
        kind: BreakpointKind::Write,
        address: Gva::new(0x5678),
        len: 4,
    };
    bed.vm.stop(DebugStopReason::Watchpoint {
        vp,
        breakpoint,
        address: Gva::new(0x5678),
    });
    let stop = client.reply();
    assert!(
        stop.starts_with("T05") && stop.contains("watch:5678;") && stop.contains("thread:2;"),
        "{stop}"
    );
}

#[test]
fn a_crash_is_explained_before_it_is_reported() {
    let bed = Bed::new();
    let mut client = bed.attach_and_continue();
    let cause = CrashCause::Internal { suberror: 1 };
    bed.vm.stop(DebugStopReason::Crashed {
        vp: VpIndex::BSP,
        cause,
    });
    let console = client.reply();
    assert!(
        unhex(&console[1..]).contains("cannot emulate the instruction"),
        "{console}"
    );
    assert!(client.reply().starts_with("T06"));
    assert!(
        !client.ask("g").starts_with('E'),
        "and the state can be read"
    );
}

#[test]
fn an_interrupt_stops_the_guest_once() {
    let bed = Bed::new();
    let mut client = bed.attach_and_continue();
    client.send_raw(b"\x03");
    assert!(client.reply().starts_with("T02"));
    assert_eq!(client.ask("m0,1"), "00", "and nothing else was sent");
    assert_eq!(bed.vm.asked("break"), 1);
}

#[test]
fn physical_memory_is_read_and_written_while_the_mode_is_on() {
    let bed = Bed::new();
    let mut client = bed.attach();
    client.ask("qSupported:error-message+");
    let virtual_error = client.ask("m100000,1");
    assert!(
        !virtual_error.contains("physical address"),
        "{virtual_error}"
    );
    assert_eq!(client.ask("Qqemu.PhyMemMode:1"), "OK");
    assert_eq!(client.ask("m0,4"), "00010203");
    assert_eq!(client.ask("M0,2:aabb"), "OK");
    assert_eq!(client.ask("m0,4"), "aabb0203");
    for request in ["m100000,1", "M100000,1:00"] {
        let error = client.ask(request);
        assert!(
            error.contains("physical address 0x100000"),
            "{request}: {error}"
        );
    }
    // The next session begins without the setting.
    assert_eq!(client.ask("D"), "OK");
    client.expect_closed();
    let mut client = bed.attach();
    assert_eq!(client.ask("qqemu.PhyMemMode"), "0");
}

#[test]
fn an_interrupt_that_crosses_a_stop_leaves_both_sides_agreed() {
    let bed = Bed::new();
    let mut client = bed.attach();
    for round in 0..50 {
        client.send("vCont;c");
        bed.vm.wait_running();
        // Both orders, and at the same time.
        let hit = DebugStopReason::SingleStep { vp: VpIndex::BSP };
        if round % 2 == 0 {
            bed.vm.stop(hit);
            client.send_raw(b"\x03");
        } else {
            client.send_raw(b"\x03");
        }
        let stop = client.reply();
        assert!(stop.starts_with("T05") || stop.starts_with("T02"), "{stop}");
        // One resume has one stop: the reply to the next packet comes next.
        assert_eq!(client.ask("m1,1"), "01", "round {round}");
        // The client has shown the stop to its user.
        client.ask("qfThreadInfo");
    }
}

#[test]
fn a_stop_is_not_lost_when_bytes_arrive_while_the_guest_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (bed, mut client) = Bed::with_unix_session(dir.path());
    bed.let_run(&mut client);
    client.send_raw(b"+++");
    client.send_raw(b"$m0");
    bed.settle();
    bed.vm
        .stop(DebugStopReason::SingleStep { vp: VpIndex::BSP });
    assert!(client.reply().starts_with("T05"));
    client.send_raw(b",1#fa");
    assert_eq!(client.reply(), "00", "the packet begun before is finished");
}

#[test]
fn monitor_commands_answer_people() {
    let bed = Bed::new();
    let mut client = bed.attach();
    let mut monitor = |line: &str| client.monitor(line);
    assert_eq!(
        monitor("status"),
        "thread 1  VP 0: halted (waits for an interrupt), 64-bit mode, ring 0\n\
         thread 2  VP 1: halted (waits for an interrupt), 64-bit mode, ring 0\n"
    );
    assert!(monitor("regs").contains("rip  0x0000000000001000"));
    assert!(monitor("phys x 0 16").starts_with("0x000000000000   00 01 02 03"));
    assert!(monitor("phys x 0x100000 1").contains("neither memory nor a device"));
    assert!(monitor("translate 0x4000").contains("no page maps 0x4000"));
    assert_eq!(
        monitor("msr read 0x10"),
        "MSR 0x10 (tsc) of VP 0 = 0x0000000000001000\n"
    );
    assert!(monitor("doctor").starts_with("works    single step  one instruction"));
    assert_eq!(monitor("step-irqs"), "Steps hold interrupts back.\n");
    assert!(monitor("step-irqs on").starts_with("Steps take interrupts"));
    assert!(monitor("step-irqs").starts_with("Steps take interrupts"));
    assert!(monitor("reset").contains("first instruction"));
    assert!(monitor("nonsense").contains("monitor help"));
    assert!(monitor("help").contains("monitor translate ADDR"));
    assert!(monitor("help translate").contains("type `monitor help` alone"));
}

/// Scripts for QEMU parse every line of `info mem`, so the first line names the VP at its end. An error names the VP
/// too.
#[test]
fn each_answer_about_one_vp_names_it_in_its_first_line() {
    let bed = Bed::new();
    bed.vm.enable_paging();
    let mut client = bed.attach();
    let mut answers = |thread: &str, vp: &str, named: &str| {
        assert_eq!(client.ask(&format!("Hg{thread}")), "OK");
        for line in [
            "regs",
            "mode",
            "disas",
            "disas 0x1000 2",
            "translate 0x4000",
            "translate 0x100000000",
            "msr read lstar",
            "msr read 0xdead",
            "msr write tsc 5",
            "nmi",
            "info registers",
            "info mem",
            "info tlb",
            "gva2gpa 0x4000",
            "gva2gpa 0x100004000",
        ] {
            let answer = client.monitor(&format!("{line}{vp}"));
            let first = answer.lines().next().unwrap_or_default();
            let spaced = first.replace("VP", "VP ");
            assert!(
                first.contains(named) || spaced.contains(named),
                "{line}{vp}: {answer}"
            );
        }
    };
    answers("1", "", "VP 0");
    answers("2", "", "VP 1");
    // `vp N` has priority over the selected thread.
    answers("1", " vp 1", "VP 1");
    answers("2", " vp 0", "VP 0");
    assert!(client.monitor("mode vp 2").contains("there is no VP 2"));
}

#[test]
fn scripts_for_qemu_find_what_they_search() {
    let bed = Bed::new();
    let mut client = bed.attach();
    let mut monitor = |line: &str| client.monitor(line);
    assert_eq!(
        monitor("info mem"),
        "0000000000000000-0000000100000000 0000000100000000 -rw,VP0,PG-disabled\n"
    );
    assert_eq!(monitor("info tlb"), "VP 0: PG disabled\n");
    bed.vm.enable_paging();
    monitor("msr write tsc 0");
    assert_eq!(
        monitor("info mem"),
        "0000000000001000-0000000000003000 0000000000002000 -rw,VP0\n"
    );
    assert_eq!(monitor("info tlb").lines().count(), 2);
    assert!(monitor("info registers").contains("\nCR0=80000000 CR2="));
    let all = monitor("info registers -a");
    assert!(all.contains("CPU#0\n") && all.contains("CPU#1\n"), "{all}");
    assert!(monitor("info mtree -f").contains("0000000000000000-00000000000fffff (prio 0, ram)"));
    assert_eq!(
        monitor("xp /2wx 0"),
        "0000000000000000: 0x03020100 0x07060504\n"
    );
    assert_eq!(monitor("xp/2xb 4"), "0000000000000004: 0x04 0x05\n");
    assert!(monitor("xp /gx 0x100000").starts_with("Cannot access memory"));
    assert_eq!(monitor("gva2gpa 0x4000"), "VP 0: Unmapped\n");
    assert_eq!(monitor("gva2gpa 0x100004000"), "VP 0 gpa: 0x4000\n");
    assert!(monitor("gpa2hva 0x4000").contains("is refused"));
    for (resets, line) in [(1, "system_reset"), (2, "reset halt"), (3, "reset init")] {
        assert!(monitor(line).contains("first instruction"));
        assert_eq!(bed.vm.asked("reset"), resets);
    }
    assert!(monitor("quit").contains("debug session have ended"));
    assert_eq!(bed.vm.wait_detached(), [DetachAction::Kill]);
}

/// No client shows the text of the error, so the server prints it once where the protocol allows text: at the next
/// `monitor` command or resume.
#[test]
fn why_a_watchpoint_was_refused_reaches_the_person() {
    let bed = Bed::new();
    bed.vm.refuse_watchpoints();
    let mut client = bed.attach();
    let reason = "The watchpoint at 0x1000 was refused: not possible here: data watchpoints: the VMM has not probed this host; the VMM has to give its runner the report of `vp_runner::probe::run`\n";
    // GDB gives up the resume for which it inserted the breakpoint, so the server must not send anything by itself.
    assert_eq!(client.ask("Z2,1000,8"), "E5f");
    assert_eq!(client.ask("m0,1"), "00");
    // Plug-ins parse these answers, or search them for words, and do not show them to a person.
    let lines = [
        "info registers",
        "info mem",
        "info tlb",
        "info mtree -f",
        "xp /gx 0",
        "gva2gpa 0",
        "gpa2hva 0",
        "info kvm",
        "help r",
        "help",
    ];
    for line in lines {
        let answer = client.monitor(line);
        assert!(!answer.contains("The watchpoint at"), "{line}: {answer}");
    }
    let answer = client.monitor("step-irqs");
    assert_eq!(answer, format!("{reason}Steps hold interrupts back.\n"));
    assert_eq!(client.monitor("step-irqs"), "Steps hold interrupts back.\n");
    let listed = client.monitor("breakpoints");
    let refused = "Refused breakpoints, with the last one first:\n0x1000  write     length 8: not possible here: data watchpoints: the VMM has";
    assert!(listed.contains(refused), "{listed}");
    // If the client resumes all the same, it gets the text while it waits for the stop.
    assert_eq!(client.ask("Z2,1000,8"), "E5f");
    client.send("vCont;c");
    let console = client.reply();
    let text = console.strip_prefix('O').expect("console output");
    assert_eq!(unhex(text), reason);
    bed.vm.wait_running();
    bed.vm
        .stop(DebugStopReason::SingleStep { vp: VpIndex::BSP });
    assert!(client.reply().starts_with("T05"));
    // The breakpoint is accepted after all.
    bed.vm.accept_watchpoints();
    assert_eq!(client.ask("Z2,1000,8"), "OK");
    let listed = client.monitor("breakpoints");
    assert!(!listed.contains("Refused"), "{listed}");
}

/// A VP passes a breakpoint at its RIP only if no client has set RIP. So each write of RIP is reported to the VM, also
/// a write of the same value.
#[test]
fn that_the_client_sets_rip_is_told_in_each_way_to_set_it() {
    let bed = Bed::new();
    let mut client = bed.attach();
    let rip = client.ask("p10");
    assert_eq!(client.ask("P3=0100000000000000"), "OK");
    assert_eq!(bed.vm.asked("redirect"), 0);
    assert_eq!(client.ask(&format!("P10={rip}")), "OK");
    assert_eq!(bed.vm.asked("redirect"), 1);
    let mut all = client.ask("g");
    // Behind sixteen registers of 8 bytes.
    let place = 16 * 16..17 * 16;
    assert_eq!(all[place.clone()], rip);
    all.replace_range(place, "0020000000000000");
    assert_eq!(client.ask(&format!("G{all}")), "OK");
    assert_eq!(bed.vm.asked("redirect"), 2);
    client.send("c3000");
    bed.vm.wait_running();
    assert_eq!(bed.vm.asked("redirect"), 3);
}

#[test]
fn a_memory_region_is_told_with_the_rights_of_its_pages() {
    let bed = Bed::new();
    let mut client = bed.attach();
    let mapped = client.ask("qMemoryRegionInfo:1234");
    assert_eq!(mapped, "start:1000;size:1000;permissions:rx;");
    let hole = client.ask("qMemoryRegionInfo:5678");
    assert_eq!(hole, "start:4000;size:7c000;");
}

#[test]
fn what_is_cut_says_so() {
    let bed = Bed::new();
    let mut client = bed.attach();
    let dump = client.monitor("phys x 0 10000");
    assert!(dump.contains("(4096 of 10000 bytes"), "{dump}");
    assert!(dump.ends_with("`monitor phys x 0x1000 5904`)\n"), "{dump}");
    let code = client.monitor("disas 0 100000");
    assert!(code.ends_with("(200 of 100000 instructions, which is the maximum of one command)\n"));
}

#[test]
fn changes_behind_the_registers_make_them_stale() {
    let bed = Bed::new();
    let mut client = bed.attach();
    for (reads, line) in [(1, "msr write 0xc0000100 5"), (2, "reset")] {
        client.ask("g");
        assert_eq!(bed.vm.asked("get vp state"), reads);
        client.monitor(line);
    }
    client.ask("g");
    assert_eq!(bed.vm.asked("get vp state"), 3);
}

/// The mode of a VP follows from its registers, and an NMI ends the halt of a VP.
#[test]
fn the_status_is_requested_again_after_each_change_of_a_vp() {
    let bed = Bed::new();
    let mut client = bed.attach();
    let changes: [fn(&mut Client); 5] = [
        |client| assert_eq!(client.ask("P12=18000000"), "OK"),
        |client| assert_eq!(client.ask("P10=0020000000000000"), "OK"),
        |client| drop(client.monitor("msr write 0xc0000080 0")),
        |client| drop(client.monitor("nmi")),
        |client| drop(client.monitor("reset")),
    ];
    for (before, change) in (1..).zip(changes) {
        client.monitor("mode");
        client.monitor("status");
        assert_eq!(bed.vm.asked("status"), before);
        change(&mut client);
    }
    client.monitor("mode");
    assert_eq!(bed.vm.asked("status"), 6);
}

#[test]
fn a_second_client_is_told_and_the_first_notices_nothing() {
    let bed = Bed::with(SessionSettings {
        refuse_after: Duration::from_millis(20),
        ..Default::default()
    });
    let mut first = bed.attach();
    assert_eq!(bed.inspect("state").as_deref(), Some("connected"));
    for _ in 0..20 {
        let mut second = bed.connect();
        let refusal = second.ask("?");
        assert!(
            refusal.starts_with("E.another debugger is connected, from 127.0.0.1:"),
            "{refusal}"
        );
        // A client that writes before it reads must still be able to read the refusal.
        second.send("qSupported");
        second.send("g");
        second.expect_closed();
        assert_eq!(first.ask("m1,2"), "0102");
    }
    assert_eq!(bed.vm.asked("attach"), 1);
    drop(first);
    bed.vm.wait_detached();
    bed.attach();
}

#[test]
fn a_client_that_follows_a_slow_detach_waits_for_it() {
    let bed = Bed::new();
    let client = bed.attach();
    bed.vm.mute("detach");
    drop(client);
    bed.vm.wait_asked("detach");
    let mut next = bed.connect();
    next.send("QStartNoAckMode");
    bed.wait_for("waiting", "1");
    assert_eq!(bed.inspect("state").as_deref(), Some("ending"));
    assert_eq!(
        bed.vm.asked("attach"),
        1,
        "not before the last session's end"
    );
    bed.vm.answer_muted();
    assert_eq!(next.reply(), "OK");
    assert_eq!(bed.vm.asked("attach"), 2);
}

#[test]
fn a_detach_that_is_never_answered_does_not_hold_up_the_next_client_for_ever() {
    let bed = Bed::with(SessionSettings {
        rpc_deadline: Duration::from_millis(50),
        ..Default::default()
    });
    let client = bed.attach();
    bed.vm.mute("detach");
    drop(client);
    // The fake is still attached, because it has not carried out the detach. The next client is told so.
    let mut next = bed.connect();
    assert!(
        next.ask("?")
            .contains("another debugger is attached to this guest")
    );
}

#[test]
fn a_unix_socket_serves_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gdb");
    let listener =
        DebugListener::bind(&ListenAddress::Unix(path.clone()), Default::default()).unwrap();
    let mut bed = Bed::with_listener(listener, SessionSettings::default());
    let mut client = Client::new(UnixStream::connect(&path).unwrap());
    client.start();
    assert_eq!(client.ask("m1,1"), "01");
    let mut second = Client::new(UnixStream::connect(&path).unwrap());
    assert!(
        second
            .ask("?")
            .contains("another debugger is connected, from a local client")
    );
    assert_eq!(client.ask("D"), "OK");
    bed.stop();
    assert!(!path.exists(), "the socket file goes with the server");
}

#[test]
fn the_worker_runs_on_its_own_thread_is_inspected_and_stopped() {
    let (requests, vm_requests) = mesh::channel();
    let vm = super::fake_vm::FakeVm::new();
    let vm_thread = std::thread::spawn({
        let vm = vm.clone();
        move || block_on(vm.run(vm_requests))
    });
    let listener =
        DebugListener::bind(&"127.0.0.1:0".parse().unwrap(), Default::default()).unwrap();
    let ListenAddress::Tcp(address) = listener.local_addr() else {
        unreachable!("bound so")
    };
    let parameters = DebuggerParameters::new(listener, requests);
    block_on(async {
        let mut worker = launch_local_worker::<DebugWorker>(parameters)
            .await
            .unwrap();
        let state = worker.inspect_state().await.unwrap();
        assert_eq!(state.get("state"), Some("listening"));
        assert_eq!(state.get("local_addr"), Some(address.to_string().as_str()));
        let mut client = Client::new(std::net::TcpStream::connect(address).unwrap());
        client.start();
        client.send("vCont;c");
        vm.wait_running();
        let remote = client
            .socket()
            .local_addr()
            .unwrap()
            .as_socket()
            .unwrap()
            .to_string();
        let state = worker.inspect_state().await.unwrap();
        assert_eq!(state.get("remote_addr"), Some(remote.as_str()));
        worker.stop();
        worker.join().await.unwrap();
        assert_eq!(vm.wait_detached().len(), 1);
        client.expect_closed();
    });
    vm_thread.join().unwrap();
}
