//! GDB with `set non-stop on`.

use crate::session::address_of;
use std::time::Instant;
use test_machine::gdb_client::gdb_here;
use test_machine::running::DEADLINE;
use test_machine::running::Running;
use test_machine::running::kvm_here;
use test_machine::typed_gdb::TypedGdb;

/// GDB, connected in non-stop mode to the demo guest at its first instruction.
fn gdb(cpus: &str) -> Option<(TypedGdb, Running)> {
    if !kvm_here() || !gdb_here() {
        return None;
    }
    let mut vm = Running::start(&["--gdb", "127.0.0.1:0", "--cpus", cpus]);
    let settings = ["set non-stop on", "set displaced-stepping off"];
    let gdb = TypedGdb::connect_with(demo_guest::ELF, &settings, &vm.address());
    Some((gdb, vm))
}

/// The value that GDB prints for an expression.
fn value(gdb: &mut TypedGdb, expression: &str) -> String {
    let text = gdb.say(&format!("print {expression}"));
    let value = text.split(" = ").nth(1).and_then(|it| it.lines().next());
    value.unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[test]
fn gdb_stops_steps_and_inspects_one_vcpu_while_the_others_run() {
    for cpus in ["2", "4", "8"] {
        let Some((mut gdb, _vm)) = gdb(cpus) else {
            return;
        };
        gdb.say("break do_round thread 1");
        gdb.say("continue &");
        gdb.wait_for("Thread 1 \"vCPU 0\" hit Breakpoint 1, do_round");
        let threads = gdb.say("info threads");
        assert!(threads.contains("do_round (cpu="), "{threads}");
        // Thread 2 has the breakpoint of thread 1 too, and GDB steps it over the breakpoint.
        let mine = value(&mut gdb, "cpus[0].rounds");
        let before: u64 = value(&mut gdb, "cpus[1].rounds").parse().expect("a number");
        gdb.say("delete");
        while value(&mut gdb, "cpus[1].rounds") == before.to_string() {}
        assert_eq!(value(&mut gdb, "cpus[0].rounds"), mine);
        for (command, wanted) in [
            ("bt", "cpu_loop (cpu="),
            ("next", "uint32_t"),
            ("stepi", ""),
            ("finish", "cpu_loop (cpu="),
        ] {
            let text = gdb.say(command);
            assert!(text.contains(wanted), "{command}: {text}");
            assert!(!text.contains("running."), "{command}: {text}");
        }
        // Another vCPU may have met the breakpoint of `finish`, and GDB resumes it.
        let begin = Instant::now();
        while !gdb.say("info threads").contains("VP 1: running") {
            assert!(begin.elapsed() < DEADLINE, "vCPU 1 does not run");
        }
        gdb.say("thread 2");
        gdb.say("interrupt");
        gdb.wait_for("Thread 2 \"vCPU 1\" stopped.");
        let rip = value(&mut gdb, "$rip");
        assert_eq!(value(&mut gdb, "$rip"), rip);
        gdb.say("break do_round thread 2");
        gdb.say("continue -a &");
        gdb.wait_for("Thread 2 \"vCPU 1\" hit Breakpoint 2, do_round");
        let at = format!("{:#x}", address_of("do_round"));
        let rip = value(&mut gdb, "$rip");
        assert!(rip.contains(&at), "{rip}");
        gdb.say("interrupt -a");
        gdb.wait_for("Thread 1 \"vCPU 0\" stopped.");
        assert!(gdb.say("detach").contains("detached"));
    }
}

/// GDB stops a vCPU at each hit, prints, steps the vCPU over the breakpoint and resumes it, while the others run.
#[test]
fn gdb_prints_each_hit_of_four_vcpus_once_and_in_order() {
    let Some((mut gdb, _vm)) = gdb("4") else {
        return;
    };
    gdb.say("dprintf do_round,\"CPU %d in round %lu\\n\", cpu->id, cpu->rounds");
    gdb.say("continue -a &");
    let mut next = [0_u64; 4];
    while next.iter().any(|next| *next < 20) {
        for line in gdb.say("echo").lines() {
            let Some(told) = line.split("CPU ").nth(1) else {
                continue;
            };
            let words: Vec<_> = told.split(' ').collect();
            let [cpu, "in", "round", round] = words[..] else {
                panic!("{line}");
            };
            let next = &mut next[cpu.parse::<usize>().expect("a CPU")];
            assert_eq!(round.parse(), Ok(*next), "CPU {cpu}");
            *next += 1;
        }
    }
    gdb.say("interrupt -a");
    gdb.say("detach");
}

/// An event of the guest stops every vCPU, and GDB learns of the guest's end.
#[test]
fn gdb_sees_a_power_off_and_the_end() {
    let Some((mut gdb, _vm)) = gdb("2") else {
        return;
    };
    gdb.say("continue -a &");
    // At its start, the guest takes the scenario from its command line.
    while value(&mut gdb, "cpus[0].rounds") == "0" {}
    // SCENARIO_POWER_OFF.
    gdb.say("print scenario = 1");
    gdb.wait_for("Thread 1 \"vCPU 0\" received signal SIGQUIT");
    gdb.wait_for("Thread 2 \"vCPU 1\" stopped.");
    gdb.say("continue -a &");
    gdb.wait_for("exited normally");
}
