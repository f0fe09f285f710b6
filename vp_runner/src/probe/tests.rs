//! On every host the probe must end, and its findings must not contradict each other.

use super::*;
use crate::kvm::x86_64::ScratchVm;
use crate::kvm::x86_64::StartIn;
use crate::kvm::x86_64::kvm_for_test;
use std::time::Instant;
use vmm_core_defs::capability::CapabilityKind;
use vmm_core_defs::capability::Support;

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
    assert!(
        report.user_mode.code_runs,
        "ring 3 with the right to write to ports"
    );
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
            let scratch = ScratchVm::new(&kvm, x86_64::scenario::PAGE).unwrap();
            let mut guest = x86_64::scenario::Guest::new(scratch, bench);
            let jump_to_itself = [0xeb, 0xfe];
            guest.start(StartIn::Real, &jump_to_itself).unwrap();
            let hung = guest.run(0, None);
            guest.start(StartIn::Real, &x86_64::programs::NOPS).unwrap();
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
        user_mode: UserMode {
            code_runs: works,
            int3,
            execution_breakpoints: finding,
            single_step: finding,
        },
        frozen_time: finding,
    }
}

#[test]
fn every_row_follows_its_own_field() {
    use CapabilityKind::DataWatchpoints;
    use CapabilityKind::ExecutionBreakpoints;
    use CapabilityKind::FrozenTime;
    use CapabilityKind::InterruptsHeld;
    use CapabilityKind::RegisterAccessReported;
    use CapabilityKind::RegistersWithExit;
    use CapabilityKind::ResumeFlag;
    use CapabilityKind::SingleStep;
    use CapabilityKind::SoftwareBreakpoints;
    use CapabilityKind::SoftwareBreakpointsInRealMode;
    use CapabilityKind::UserMode;
    type Break = fn(&mut Report);
    let broken: [(CapabilityKind, Break); 15] = [
        (SoftwareBreakpointsInRealMode, |r| {
            r.int3_real = Int3::NotTrapped(Seen::Ended)
        }),
        (SoftwareBreakpoints, |r| {
            r.int3_protected = Int3::NotTrapped(Seen::Ended);
        }),
        (SoftwareBreakpoints, |r| {
            r.int3_long = Int3::NotTrapped(Seen::Ended);
        }),
        (ExecutionBreakpoints, |r| {
            r.execution_breakpoints.works = false
        }),
        (DataWatchpoints, |r| r.data_watchpoints.works = false),
        (SingleStep, |r| r.single_step.works = false),
        (InterruptsHeld, |r| r.interrupts_held.works = false),
        (RegisterAccessReported, |r| r.register_access.works = false),
        (ResumeFlag, |r| r.resume_flag.works = false),
        (RegistersWithExit, |r| r.sync_regs.works = false),
        (UserMode, |r| r.user_mode.code_runs = false),
        (UserMode, |r| {
            r.user_mode.int3 = Int3::NotTrapped(Seen::Ended);
        }),
        (UserMode, |r| {
            r.user_mode.execution_breakpoints.works = false;
        }),
        (UserMode, |r| r.user_mode.single_step.works = false),
        (FrozenTime, |r| r.frozen_time.works = false),
    ];
    for (kind, breaking) in broken {
        let mut report = report(true);
        breaking(&mut report);
        let rows = report.capabilities();
        let failing = rows.iter().filter(|row| !row.works());
        let failing: Vec<_> = failing.map(|row| row.kind).collect();
        assert_eq!(failing, [kind]);
        assert!(rows.missing(kind).is_some());
    }
}

#[test]
fn every_kind_of_capability_has_a_row_and_says_what_was_seen() {
    for works in [true, false] {
        let rows = report(works).capabilities();
        let kinds: Vec<_> = rows.iter().map(|row| row.kind).collect();
        assert_eq!(kinds, CapabilityKind::ALL);
        assert!(rows.iter().all(|row| !row.seen.is_empty()));
        assert!(rows.iter().all(|row| row.works() == works));
    }
}

/// Whether the kernel has the call. If so, a kernel update does not help.
#[test]
fn what_was_seen_decides_why_a_capability_is_missing() {
    let mut report = report(false);
    report.shadow_holds.works = false;
    let mut support = |kind, seen| {
        report.frozen_time.seen = seen;
        report.interrupts_held.seen = seen;
        let rows = report.capabilities();
        rows.get(kind).map(|row| row.support)
    };
    let errno = libc::ENXIO;
    for (kind, seen, wanted) in [
        (
            CapabilityKind::FrozenTime,
            Seen::ClockKept,
            Support::NoEffect,
        ),
        (
            CapabilityKind::FrozenTime,
            Seen::ClockScaled,
            Support::ClockScaled,
        ),
        (
            CapabilityKind::FrozenTime,
            Seen::Refused { errno },
            Support::NotOffered,
        ),
        (
            CapabilityKind::InterruptsHeld,
            Seen::NotOffered,
            Support::NotOffered,
        ),
        (
            CapabilityKind::InterruptsHeld,
            Seen::Handler,
            Support::NoEffect,
        ),
    ] {
        assert_eq!(support(kind, seen), Some(wanted), "{kind}: {seen:?}");
    }
    report.shadow_holds.works = true;
    let held = report.capabilities();
    let held = held.missing(CapabilityKind::InterruptsHeld);
    assert_eq!(held.map(|row| row.support), Some(Support::Replaced));
    let seen = held.map(|row| row.seen.as_str()).unwrap_or_default();
    assert!(seen.ends_with("; an interrupt shadow holds them"), "{seen}");
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
        source: std::io::Error::from_raw_os_error(libc::ENOMEM),
    });
    assert!(matches!(no_memory, ProbeError::NoMemory { .. }));
}
