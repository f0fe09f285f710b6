//! A debugger by packets, so that each step of the debugger and of the VMM has its place.

use crate::vmm::PROGRAMS;
use crate::vmm::Vmm;
use crate::vmm::address_of;
use crate::vmm::word;
use crate::vmm::word_of_file;
use std::net::TcpStream;
use std::time::Instant;
use test_machine::packets::Packets;
use test_machine::packets::packet;
use test_machine::running::DEADLINE;

type Debugger = Packets<TcpStream>;

/// Continues up to a breakpoint. Returns the thread that has hit it.
#[track_caller]
fn continue_to(debugger: &mut Debugger, address: u64) -> String {
    let stop = debugger.ask("vCont;c");
    let thread = thread_of(&stop);
    assert_eq!(rip(debugger, &thread), address, "{stop}");
    thread
}

/// The thread of a stop reply.
#[track_caller]
fn thread_of(stop: &str) -> String {
    assert!(stop.starts_with("T05"), "{stop}");
    let thread = stop
        .split(';')
        .find_map(|part| part.split("thread:").nth(1));
    thread.expect("a stop names its thread").to_owned()
}

/// RIP, the seventeenth register, once the VMM has given the vCPU back.
#[track_caller]
fn rip(debugger: &mut Debugger, thread: &str) -> u64 {
    let end = Instant::now() + DEADLINE;
    assert_eq!(debugger.ask(&format!("Hg{thread}")), "OK");
    loop {
        let reply = debugger.ask("p10");
        match u64::from_str_radix(&reply, 16) {
            Ok(value) => return value.swap_bytes(),
            Err(_) => assert!(Instant::now() < end, "RIP is `{reply}`"),
        }
    }
}

#[test]
fn the_vmm_pauses_and_saves_a_guest_that_a_debugger_holds() {
    for program in PROGRAMS {
        let Some(mut vmm) = Vmm::start(program, None) else {
            return;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let do_round = address_of("do_round");
        let mut debugger = vmm.packets();
        assert_eq!(debugger.ask(&format!("Z0,{do_round:x},1")), "OK");
        for turn in 0..3 {
            let thread = continue_to(&mut debugger, do_round);
            let stop = debugger.ask(&format!("vCont;s:{thread}"));
            assert_eq!(thread_of(&stop), thread);
            let stepped = rip(&mut debugger, &thread);
            assert!((do_round + 1..do_round + 16).contains(&stepped));

            vmm.pause();
            let memory = vmm.snapshot(&folder.path().join(turn.to_string()));
            assert_eq!(word(&memory, do_round), word_of_file(do_round), "{program}");
            vmm.resume();
            assert_eq!(rip(&mut debugger, &thread), stepped, "{program}");
        }
        assert_eq!(debugger.ask(&format!("z0,{do_round:x},1")), "OK");
        assert_eq!(debugger.ask("D"), "OK");
        vmm.power_off();
    }
}

#[test]
fn the_vmm_pauses_and_saves_a_guest_that_runs_under_a_debugger() {
    for program in PROGRAMS {
        let Some(mut vmm) = Vmm::start(program, None) else {
            return;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut names = (0..).map(|number| folder.path().join(number.to_string()));
        let counter = address_of("counter");
        let mut rounds = |vmm: &mut Vmm| {
            let folder = names.next().expect("there is no last number");
            word(&vmm.snapshot(&folder), counter)
        };
        let mut runs_on = |vmm: &mut Vmm| {
            let (before, end) = (rounds(vmm), Instant::now() + DEADLINE);
            while rounds(vmm) == before {
                assert!(Instant::now() < end, "{program}: the guest does not run");
            }
        };
        let mut debugger = vmm.packets();
        // Nobody calls this function, so the breakpoint is never hit.
        let breakpoint = address_of("triple_fault");
        assert_eq!(debugger.ask(&format!("Z0,{breakpoint:x},1")), "OK");
        debugger.send_raw(&packet(b"vCont;c"));
        runs_on(&mut vmm);

        vmm.pause();
        let paused = vmm.snapshot(&folder.path().join("paused"));
        let later = vmm.snapshot(&folder.path().join("later"));
        assert_eq!(word(&paused, counter), word(&later, counter), "{program}");
        assert_eq!(word(&paused, breakpoint), word_of_file(breakpoint));
        vmm.resume();
        runs_on(&mut vmm);

        debugger.send_raw(&[3]);
        let stop = debugger.reply().expect("the session goes on");
        assert!(stop.starts_with("T02"), "{stop}");
        assert_eq!(debugger.ask("D"), "OK");
        runs_on(&mut vmm);
        vmm.power_off();
    }
}

#[test]
fn a_guest_that_was_saved_under_a_debugger_goes_on_elsewhere_without_one() {
    for program in PROGRAMS {
        let Some(mut vmm) = Vmm::start(program, None) else {
            return;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let [saved, first, second] = ["0", "1", "2"].map(|name| folder.path().join(name));
        let do_round = address_of("do_round");
        let mut debugger = vmm.packets();
        assert_eq!(debugger.ask(&format!("Z0,{do_round:x},1")), "OK");
        continue_to(&mut debugger, do_round);
        vmm.snapshot(&saved);
        // The VMM ends although the debugger holds the guest.
        vmm.type_line("quit");
        vmm.ends("vmm: the guest is saved");

        let mut vmm = Vmm::start(program, Some(&saved)).expect("KVM was here");
        let (counter, end) = (address_of("counter"), Instant::now() + DEADLINE);
        let before = word(&vmm.snapshot(&first), counter);
        loop {
            let memory = vmm.snapshot(&second);
            if word(&memory, counter) > before {
                assert_eq!(word(&memory, address_of("int3_count")), 0, "{program}");
                break;
            }
            assert!(Instant::now() < end, "{program}: the guest does not go on");
            std::fs::remove_dir_all(&second).expect("a snapshot");
        }
        vmm.power_off();
    }
}

#[test]
fn a_power_off_waits_for_the_debugger_that_wants_to_see_it() {
    for program in PROGRAMS {
        let Some(mut vmm) = Vmm::start(program, None) else {
            return;
        };
        let mut debugger = vmm.packets();
        vmm.type_line("keys q");
        // GDB's number of SIGQUIT.
        let mut stop = debugger.ask("vCont;c");
        // The server's text for the user comes first.
        while stop.starts_with('O') {
            stop = debugger.reply().expect("the session goes on");
        }
        assert!(stop.starts_with("T03"), "{program}: {stop}");
        vmm.pause();
        vmm.resume();
        debugger.send_raw(&packet(b"vCont;c"));
        vmm.ends("vmm: the guest ends: PowerOff");
    }
}
