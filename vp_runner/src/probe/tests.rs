//! What a host can do differs; that the probe ends and does not contradict itself does not.

use super::*;
use crate::kvm::x86_64::ScratchVm;
use crate::kvm::x86_64::StartIn;
use crate::kvm::x86_64::kvm_for_test;
use std::time::Instant;

#[test]
fn the_probe_ends_and_is_of_one_mind() {
    if let Err(err) = open_kvm() {
        eprintln!("skipped: {err}");
        return;
    }
    let begun = Instant::now();
    let report = run().unwrap();
    eprintln!("{:?} for {report:#?}", begun.elapsed());
    let again = run().unwrap();
    assert_eq!(report, again, "the same host answers the same");
    if report.resume_flag.works || report.data_watchpoints.works {
        assert!(report.execution_breakpoints.works);
    }
    if report.interrupts_held.works || report.sync_regs.works {
        assert!(report.single_step.works);
    }
    if report.single_step.works {
        assert!(matches!(
            report.single_step.seen,
            Seen::Debug { vector: 1, .. }
        ));
    }
    if report.interrupts_held.works {
        assert_eq!(report.interrupts_held.seen, Seen::Handler);
    }
}

#[test]
fn a_guest_that_does_not_come_back_is_kicked_out_and_the_next_scenario_still_runs() {
    let Some(kvm) = kvm_for_test() else { return };
    let seen = supervised(
        Duration::from_millis(5),
        KickSignal::default(),
        move |bench| {
            let scratch = ScratchVm::new(&kvm, scenario::PAGE).unwrap();
            let mut guest = scenario::Guest::new(scratch, bench);
            let jump_to_itself = [0xeb, 0xfe];
            guest.start(StartIn::Real, &jump_to_itself).unwrap();
            let hung = guest.run(0, None);
            guest.start(StartIn::Real, &programs::NOPS).unwrap();
            ([hung, guest.run(0, None)], ())
        },
    )
    .unwrap();
    assert_eq!(seen, [Seen::Overdue, Seen::Ended]);
}

fn report(works: bool) -> Report {
    let finding = Finding {
        works,
        seen: Seen::Ended,
    };
    let int3 = if works {
        Int3::DebugExit
    } else {
        Int3::NotTrapped(Seen::Handler)
    };
    Report {
        int3_real: int3,
        int3_protected: int3,
        int3_long: int3,
        execution_breakpoints: finding,
        data_watchpoints: finding,
        single_step: finding,
        interrupts_held: finding,
        shadow_holds: finding,
        register_access: finding,
        resume_flag: finding,
        sync_regs: finding,
        frozen_time: finding,
    }
}

#[test]
fn every_row_follows_its_own_field() {
    type Break = fn(&mut Report);
    let broken: [(&str, Break); 11] = [
        ("software breakpoints in real mode", |r| {
            r.int3_real = Int3::NotTrapped(Seen::Ended)
        }),
        ("software breakpoints in protected and long mode", |r| {
            r.int3_protected = Int3::NotTrapped(Seen::Ended);
        }),
        ("software breakpoints in protected and long mode", |r| {
            r.int3_long = Int3::NotTrapped(Seen::Ended);
        }),
        ("hardware execution breakpoints", |r| {
            r.execution_breakpoints.works = false
        }),
        ("data watchpoints", |r| r.data_watchpoints.works = false),
        ("single step", |r| r.single_step.works = false),
        ("interrupts held while stepping", |r| {
            r.interrupts_held.works = false
        }),
        ("debug-register accesses reported", |r| {
            r.register_access.works = false
        }),
        ("resume flag", |r| r.resume_flag.works = false),
        ("registers with each exit", |r| r.sync_regs.works = false),
        ("time that stands while stopped", |r| {
            r.frozen_time.works = false
        }),
    ];
    for (name, breaking) in broken {
        let mut report = report(true);
        breaking(&mut report);
        let failing: Vec<_> = report
            .capabilities()
            .into_iter()
            .filter(|row| !row.works)
            .map(|row| row.name)
            .collect();
        assert_eq!(failing, [name]);
    }
}

#[test]
fn every_row_says_something_in_either_case() {
    for (good, bad) in report(true)
        .capabilities()
        .iter()
        .zip(report(false).capabilities())
    {
        assert!(!good.seen.is_empty() && !bad.seen.is_empty());
        assert_ne!(good.meaning, bad.meaning, "{}", good.name);
    }
}

/// A kernel that has the call is new enough: another version of it would not help.
#[test]
fn an_update_is_advised_only_where_the_kernel_lacks_something() {
    let mut report = report(false);
    let mut meaning = |name: &str, seen| {
        report.frozen_time.seen = seen;
        report.interrupts_held.seen = seen;
        let rows = report.capabilities();
        let row = rows.into_iter().find(|row| row.name == name).unwrap();
        row.meaning.to_lowercase()
    };
    let clocks = "time that stands while stopped";
    for seen in [Seen::ClockKept, Seen::ClockScaled] {
        assert!(!meaning(clocks, seen).contains("linux 5"), "{seen:?}");
    }
    let errno = libc::ENXIO;
    assert!(meaning(clocks, Seen::Refused { errno }).contains("linux 5.16"));
    let steps = "interrupts held while stepping";
    assert!(meaning(steps, Seen::NotOffered).contains("linux 5.15"));
    assert!(!meaning(steps, Seen::Handler).contains("linux 5"));
}

#[test]
fn an_int3_that_ends_in_an_internal_error_on_itself_is_a_trap() {
    assert!(Int3::InternalError.traps() && Int3::DebugExit.traps());
    assert!(!Int3::NotTrapped(Seen::InternalError { rip: 0 }).traps());
}

#[test]
fn each_way_dev_kvm_can_fail_says_what_to_do() {
    let message = |errno| open_error(kvm_ioctls::Error::new(errno)).to_string();
    assert!(message(libc::ENOENT).contains("modprobe"));
    assert!(message(libc::EACCES).contains("usermod -aG kvm"));
    assert!(message(libc::EPERM).contains("usermod -aG kvm"));
    assert!(message(libc::ENOMEM).contains("ulimit"));
    assert!(message(libc::ENODEV).contains("dmesg"));
    let no_memory = ProbeError::from(ScratchVmError::Kvm {
        step: "make a virtual machine",
        source: kvm_ioctls::Error::new(libc::ENOMEM),
    });
    assert!(matches!(no_memory, ProbeError::NoMemory { .. }));
}
