use super::*;
use std::io;
use std::time::Duration;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::capability::Capability;
use vmm_core_defs::capability::CapabilityKind;
use vmm_core_defs::capability::Support;
use vmm_core_defs::debug_rpc::BadMessage;
use vmm_core_defs::debug_rpc::HypervisorCall;
use vmm_core_defs::debug_rpc::MachineCall;
use vmm_core_defs::debug_rpc::MachineFailure;
use vmm_core_defs::debug_rpc::RunnerBug;
use vmm_core_defs::memory::WalkFaultReason;
use vmm_core_defs::stop::GuestEnd;

const VP: VpIndex = VpIndex::new(1);
const GVA: Gva = Gva::new(0x1000);
const GPA: Gpa = Gpa::new(0x1000);

/// Each error with its number, with words about its cause, and with words about the next action of GDB's user.
fn table() -> Vec<(DebugError, u8, &'static str, &'static str)> {
    let capability = Capability {
        kind: CapabilityKind::DataWatchpoints,
        support: Support::NoEffect,
        seen: "the guest ran on".to_owned(),
    };
    let unsupported = |why: Unsupported| DebugError::Unsupported(why);
    let reset_failed = |how| DebugError::MachineFailed {
        call: MachineCall::Reset,
        how,
    };
    vec![
        (
            DebugError::AlreadyAttached,
            16,
            "another debugger is attached",
            "connect again",
        ),
        (
            DebugError::NotAttached,
            5,
            "this debug session has ended",
            "connect again",
        ),
        (
            DebugError::NotYourSession,
            5,
            "this debug session has ended",
            "connect again",
        ),
        (
            DebugError::Detached,
            5,
            "this debug session has ended",
            "connect again",
        ),
        (
            DebugError::Ended {
                how: GuestEnd::Killed,
            },
            19,
            "the guest has ended",
            "start the guest again",
        ),
        (
            DebugError::NotStopped,
            16,
            "the guest is running",
            "press Ctrl-C",
        ),
        (
            DebugError::BadCondition {
                address: Gva::new(0x1000),
                problem: "it has no value".to_owned(),
            },
            22,
            "0x1000 is refused: it has no value",
            "condition-evaluation host",
        ),
        (
            DebugError::NoSuchVp { vp: VP, count: 1 },
            22,
            "there is no VP 1",
            "`info threads`",
        ),
        (
            DebugError::NothingToRun,
            22,
            "no VP is to run",
            "resume or step at least one",
        ),
        (
            DebugError::NotMapped {
                vp: VP,
                gva: GVA,
                why: WalkFaultReason::NonCanonical,
            },
            14,
            "no page maps 0x1000 on VP 1",
            "`monitor info mem`",
        ),
        (
            DebugError::NoMemory { gpa: GPA },
            14,
            "physical address 0x1000",
            "`monitor info mtree`",
        ),
        (
            DebugError::MemoryOutOfReach { gpa: GPA },
            14,
            "cannot be accessed",
            "use `hbreak`",
        ),
        (
            DebugError::BadLength {
                address: 0x1000,
                len: 1 << 40,
            },
            22,
            "is too long",
            "ask for less",
        ),
        (
            DebugError::BadBreakpoint {
                address: GVA,
                len: 3,
            },
            22,
            "cannot watch 3 bytes",
            "watch a part",
        ),
        (
            DebugError::TooManyBreakpoints { limit: 7 },
            28,
            "7 breakpoints are set",
            "`delete` some",
        ),
        (
            DebugError::NoFreeSlot { slots: 4 },
            28,
            "all 4 debug registers are in use",
            "`info breakpoints`, then `delete`",
        ),
        (
            DebugError::GuestUsesSlots {
                slots: 4,
                guest: 3,
                yours: 1,
            },
            28,
            "the guest uses 3 of the 4",
            "use `break` instead of `hbreak`",
        ),
        (
            DebugError::NotExecutable { address: GVA },
            28,
            "is not executable",
            "`delete` a hardware breakpoint",
        ),
        (
            DebugError::NoSuchBreakpoint { address: GVA },
            22,
            "no such breakpoint",
            "`monitor breakpoints`",
        ),
        (
            DebugError::BadRegister {
                name: "cr0".to_owned(),
                reason: BadRegisterReason::BitRequires {
                    bit: 31,
                    requires: 0,
                },
            },
            22,
            "register cr0: bit 31 requires bit 0",
            "; set both bits",
        ),
        (
            unsupported(Unsupported::Host(capability)),
            95,
            "not possible here: data watchpoints.",
            "Use `break`",
        ),
        (
            unsupported(Unsupported::NotProbed(CapabilityKind::FrozenTime)),
            95,
            "the VMM has not probed this host",
            "`vp_runner::probe::run`",
        ),
        (
            unsupported(Unsupported::ClockRateSet),
            95,
            "the VMM has set that rate",
            "`monitor freeze-time off`",
        ),
        (
            unsupported(Unsupported::ClockRateUnknown),
            95,
            "does not say how fast",
            "`monitor freeze-time off`",
        ),
        (
            unsupported(Unsupported::ResetOfVmm),
            95,
            "lets no debugger reset",
            "`system_reset`",
        ),
        (
            unsupported(Unsupported::ClocksOfVmm),
            95,
            "the VMM owns the clocks",
            "`monitor freeze-time off`",
        ),
        (
            unsupported(Unsupported::NotStarted { vp: VP }),
            95,
            "has not started that VP",
            "choose another VP",
        ),
        (
            unsupported(Unsupported::Request {
                request: "Nmi".to_owned(),
            }),
            95,
            "does not implement the request",
            "use a newer version of the VMM",
        ),
        (
            DebugError::Overdue {
                call: MachineCall::Reset,
                seconds: 3,
            },
            110,
            "Machine::reset has not returned for 3 s",
            "try again later",
        ),
        (
            reset_failed(MachineFailure::Returned("cannot load it".to_owned())),
            5,
            "Machine::reset returned an error: cannot load it",
            "see the VMM's log, then try again",
        ),
        (
            reset_failed(MachineFailure::Panicked),
            5,
            "Machine::reset panicked",
            "see the VMM's log, then try again",
        ),
        (
            DebugError::MachineFailed {
                call: MachineCall::InitVp { vp: VP },
                how: MachineFailure::Panicked,
            },
            5,
            "Machine::init_vp for VP 1 panicked",
            "see the VMM's log, then try again",
        ),
        (
            DebugError::NoThread {
                call: MachineCall::Reset,
                error: io::Error::from_raw_os_error(11).into(),
            },
            11,
            "the host refused a thread for Machine::reset: Resource temporarily unavailable (os error 11)",
            "raise the limit on processes (`ulimit -u`), then try again",
        ),
        (
            DebugError::HeldByVmm { vp: VP },
            16,
            "VP 1 is held by the VMM",
            "continue the VM in the VMM",
        ),
        (
            DebugError::NoDeviceAccess {
                gpa: Gpa::new(0xfee0_0000),
            },
            14,
            "there is no RAM at",
            "an instruction of the guest",
        ),
        (
            DebugError::VpThreadEnded { vp: VP },
            19,
            "the thread of VP 1 has ended: code of the VMM panicked",
            "start the guest again",
        ),
        (
            DebugError::Hypervisor {
                call: HypervisorCall::WriteMsr { index: 0x10 },
                error: io::Error::from_raw_os_error(22).into(),
            },
            5,
            "KVM refused to write MSR 0x10: Invalid argument (os error 22)",
            "(`dmesg`)",
        ),
        (
            DebugError::RunnerBug(RunnerBug::NotStarted),
            5,
            "before the runner had started: this is a bug",
            "report it",
        ),
        (
            DebugError::BadMessage(BadMessage::UnknownValue {
                of: "DetachAction".to_owned(),
                value: 9,
            }),
            5,
            "DetachAction has the value 9",
            "use the same version on both sides",
        ),
        (
            DebugError::RunnerBug(RunnerBug::IllegalInput {
                input: "parked".to_owned(),
                phase: "Running".to_owned(),
            }),
            5,
            "parked is not legal in phase Running",
            "report it",
        ),
    ]
}

#[test]
fn every_error_names_its_cause_and_the_next_action_of_gdbs_user() {
    for (error, errno, cause, next) in table() {
        let shown = target_error(&CallError::Refused(error.clone()));
        let text = &shown.text;
        assert_eq!(shown.errno, errno, "{error:?}");
        let at = |words: &str| {
            text.find(words)
                .unwrap_or_else(|| panic!("{error:?}: {words:?} is not in {text:?}"))
        };
        assert!(at(cause) < at(next), "{text}");
    }
}

/// Only a call that the hypervisor refused may be shown as such.
#[test]
fn no_other_error_blames_the_hypervisor() {
    for (error, ..) in table() {
        let blames =
            |text: &str| text.contains("KVM refused") || text.contains("hypervisor refused");
        let is_refusal = matches!(error, DebugError::Hypervisor { .. });
        assert_eq!(blames(&text_for_gdb(&error)), is_refusal, "{error:?}");
        assert_eq!(blames(&error.to_string()), is_refusal, "{error:?}");
    }
}

#[test]
fn a_vmm_that_does_not_answer_is_an_error_of_its_own() {
    let late = target_error(&CallError::TimedOut(Duration::from_millis(2500)));
    assert_eq!(late.errno, 110);
    assert!(late.text.contains("within 2.5 s"), "{}", late.text);
    let gone = target_error(&CallError::Gone);
    assert_eq!(gone.errno, 19);
    assert!(gone.text.contains("start the guest again"), "{}", gone.text);
}

#[test]
fn every_refused_register_value_has_advice() {
    use BadRegisterReason::*;
    let reasons = [
        OtherArchitecture,
        Absent,
        NoValue,
        ReservedBits {
            value: 1,
            reserved: 1,
        },
        BitIsAlwaysOne { bit: 1 },
        BitRequires {
            bit: 1,
            requires: 0,
        },
        TooWide { bits: 4 },
        NotCanonical {
            address: 1 << 63,
            bits: 48,
        },
        ReservedAttributes { reserved: 1 },
        LimitNotInPages,
        LimitTooLarge,
        UnknownMsr,
        MsrRefused { value: 1 },
        Xcr0Refused { value: 1 },
        SystemRefused,
    ];
    for reason in reasons {
        let advice = register_advice(&reason);
        assert_ne!(advice, "see the VMM's log", "{reason:?}");
        let name = "r".to_owned();
        let text = text_for_gdb(&DebugError::BadRegister { name, reason });
        assert_eq!(text, format!("register r: {reason}; {advice}"));
    }
}
