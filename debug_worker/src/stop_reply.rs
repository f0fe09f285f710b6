//! Converts stops of the guest to stop replies of the protocol, and VPs to threads.

use gdb_frontend::target::BreakpointKind as GdbKind;
use gdb_frontend::target::EndSignal;
use gdb_frontend::target::Stop;
use gdb_frontend::target::StopReason;
use gdb_frontend::target::Tid;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::stop::CrashCause;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::stop::FaultRegisters;
use vmm_core_defs::stop::GuestEnd;
use vmm_core_defs::stop::RunnerFault;

/// The VP of a thread. The VM checks whether it exists.
pub(crate) const fn vp_of(thread: Tid) -> VpIndex {
    VpIndex::new(thread.get() - 1)
}

/// The thread of a VP. `None` if the index has no thread id.
pub(crate) fn thread_of(vp: VpIndex) -> Option<Tid> {
    vp.index().checked_add(1).and_then(Tid::new)
}

/// Converts a stop reason to a stop reply.
#[deny(clippy::wildcard_enum_match_arm)]
pub(crate) fn stop_reply(why: &DebugStopReason) -> Stop {
    let reason = match *why {
        DebugStopReason::Break => StopReason::Interrupt,
        DebugStopReason::SingleStep { .. } => StopReason::Trap,
        DebugStopReason::Breakpoint { breakpoint, .. } => match gdb_kind(breakpoint.kind) {
            GdbKind::Software => StopReason::SoftwareBreakpoint,
            GdbKind::Hardware => StopReason::HardwareBreakpoint,
            // The VM reported a watchpoint as an instruction breakpoint. A plain trap claims no access that did not
            // happen.
            GdbKind::Write | GdbKind::Read | GdbKind::Access => StopReason::Trap,
        },
        DebugStopReason::Watchpoint {
            breakpoint,
            address,
            ..
        } => StopReason::Watchpoint {
            kind: gdb_kind(breakpoint.kind),
            address: address.value(),
        },
        DebugStopReason::TripleFault { .. } => StopReason::TripleFault,
        DebugStopReason::Reset { .. } => StopReason::Reset,
        DebugStopReason::PowerOff { .. } => StopReason::PowerOff,
        DebugStopReason::Crashed { .. } => StopReason::Crashed,
        DebugStopReason::Panic { .. } => StopReason::Panic,
        // A reason of a newer vmm_core_defs is a plain stop. The text of `explanation` names the reason.
        _ => StopReason::Trap,
    };
    Stop {
        thread: why.vp().and_then(thread_of),
        reason,
    }
}

/// The stop reply for a guest that has ended, for a client that waits for a stop. The exit statuses are those of
/// `trapgate`.
pub(crate) fn ending(how: &GuestEnd) -> Stop {
    let reason = match how {
        GuestEnd::PowerOff | GuestEnd::Released => StopReason::Exited(0),
        GuestEnd::Reset => StopReason::Exited(3),
        GuestEnd::TripleFault { .. } => StopReason::Terminated(EndSignal::Fault),
        GuestEnd::Crashed { .. } | GuestEnd::ResetFailed => {
            StopReason::Terminated(EndSignal::Abort)
        }
        GuestEnd::Killed => StopReason::Terminated(EndSignal::Kill),
        GuestEnd::Stopped => StopReason::Terminated(EndSignal::Terminate),
        // An end of a newer vmm_core_defs. `ending_text` shows what it is.
        _ => StopReason::Terminated(EndSignal::Terminate),
    };
    let thread = None;
    Stop { thread, reason }
}

const fn gdb_kind(kind: BreakpointKind) -> GdbKind {
    match kind {
        BreakpointKind::Software | BreakpointKind::Trace => GdbKind::Software,
        BreakpointKind::Execute => GdbKind::Hardware,
        BreakpointKind::Write => GdbKind::Write,
        BreakpointKind::Read => GdbKind::Read,
        BreakpointKind::ReadWrite => GdbKind::Access,
        // Only a kind that this server has inserted is hit, and this server inserts no other kind.
        _ => GdbKind::Access,
    }
}

/// Converts the protocol's breakpoint kind to the VM's.
pub(crate) const fn vm_kind(kind: GdbKind) -> BreakpointKind {
    match kind {
        GdbKind::Software => BreakpointKind::Software,
        GdbKind::Hardware => BreakpointKind::Execute,
        GdbKind::Write => BreakpointKind::Write,
        GdbKind::Read => BreakpointKind::Read,
        GdbKind::Access => BreakpointKind::ReadWrite,
    }
}

/// The explanation of a stop whose signal number alone says little, such as SIGQUIT. It is shown before the stop reply.
#[deny(clippy::wildcard_enum_match_arm)]
pub(crate) fn explanation(reason: &DebugStopReason) -> Option<String> {
    match reason {
        DebugStopReason::Break
        | DebugStopReason::SingleStep { .. }
        | DebugStopReason::Breakpoint { .. }
        | DebugStopReason::Watchpoint { .. } => None,
        DebugStopReason::TripleFault { vp, registers } => {
            let left = match registers {
                FaultRegisters::Kept => "All state is as it was then",
                FaultRegisters::ResetByHypervisor => {
                    "This host's KVM has reset the VP before its registers could be read (AMD's processors leave the state undefined), so only its x87 and \
                     vector registers are those at the fault; memory and the other VPs are unchanged"
                }
            };
            Some(format!(
                "VP {vp} met a triple fault: it could not deliver an exception. {left}. `continue` lets the machine react to the fault.\n"
            ))
        }
        DebugStopReason::Reset { vp } => Some(format!(
            "The guest asked for a reset{}. `continue` carries it out.\n",
            on(*vp)
        )),
        DebugStopReason::PowerOff { vp } => Some(format!(
            "The guest asked to be switched off{}. `continue` carries it out.\n",
            on(*vp)
        )),
        DebugStopReason::Crashed { vp, cause } => Some(format!(
            "VP {vp} cannot go on: {}. All state can still be read.\n",
            crash(cause)
        )),
        DebugStopReason::Panic { vp } => Some(format!(
            "The guest's kernel panicked on VP {vp}. `continue` lets the kernel go on with its panic.\n"
        )),
        other => Some(format!(
            "The guest stopped for a reason that this version of the debug server does not know: {other:?}\n"
        )),
    }
}

/// The reason why the VP of a stop has crashed, as a short text. `None` if it has not crashed.
pub(crate) fn crash_summary(reason: &DebugStopReason) -> Option<String> {
    match reason {
        DebugStopReason::Crashed { cause, .. } => Some(format!("cannot go on: {}", crash(cause))),
        DebugStopReason::TripleFault { .. } => Some("met a triple fault".to_owned()),
        _ => None,
    }
}

fn on(vp: Option<VpIndex>) -> String {
    vp.map(|vp| format!(" on VP {vp}")).unwrap_or_default()
}

#[deny(clippy::wildcard_enum_match_arm)]
fn crash(cause: &CrashCause) -> String {
    match cause {
        CrashCause::Internal { suberror } => {
            let meaning = match suberror {
                1 => "KVM cannot emulate the instruction at the program counter",
                2 => "an exception occurred while another was delivered",
                3 => "an event could not be delivered",
                4 => "the processor left the guest for an unexpected reason",
                _ => "this version does not know the reason",
            };
            format!("KVM reports internal error {suberror} ({meaning})")
        }
        CrashCause::FailEntry { hardware_reason } => {
            format!(
                "the processor refused to enter the guest, hardware reason {hardware_reason:#x}"
            )
        }
        CrashCause::Run { errno } => format!(
            "KVM_RUN failed: {}",
            std::io::Error::from_raw_os_error(*errno)
        ),
        CrashCause::UnknownExit { reason } => {
            format!("KVM exit {reason}, which this version does not know")
        }
        CrashCause::Runner(fault) => {
            let fault = match fault {
                RunnerFault::DebugState => "KVM refused to read or set the debug state of this VP",
                RunnerFault::ThreadPanicked => "a panic in the VMM ended the thread of this VP",
                RunnerFault::ThreadGone => "the thread of this VP no longer accepts commands",
                _ => "the runner has a fault that this debug server does not know",
            };
            format!("{fault}; the VMM's log has the details")
        }
        other => {
            format!("for a reason that this version of the debug server does not know: {other:?}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_core_defs::addr::Gva;
    use vmm_core_defs::breakpoint::Breakpoint;

    fn stop(reason: DebugStopReason) -> Stop {
        stop_reply(&reason)
    }

    #[test]
    fn a_fault_of_the_runner_is_not_told_as_one_of_the_guests_run() {
        for (fault, says) in [
            (RunnerFault::DebugState, "debug state"),
            (RunnerFault::ThreadPanicked, "panic"),
            (RunnerFault::ThreadGone, "thread"),
        ] {
            let text = crash(&CrashCause::Runner(fault));
            assert!(text.contains(says) && text.contains("log"), "{text}");
            assert!(!text.contains("KVM_RUN"), "{text}");
        }
    }

    #[test]
    fn threads_and_vps_are_one_apart() {
        for vp in [0, 1, 7, u32::MAX - 1].map(VpIndex::new) {
            assert_eq!(thread_of(vp).map(vp_of), Some(vp));
        }
        assert_eq!(thread_of(VpIndex::new(u32::MAX)), None);
    }

    #[test]
    fn a_watchpoint_keeps_its_kind_and_address() {
        let vp = VpIndex::new(2);
        for (kind, expected) in [
            (BreakpointKind::Write, GdbKind::Write),
            (BreakpointKind::Read, GdbKind::Read),
            (BreakpointKind::ReadWrite, GdbKind::Access),
        ] {
            assert_eq!(vm_kind(expected), kind);
            let breakpoint = Breakpoint {
                kind,
                address: Gva::new(0x1000),
                len: 8,
            };
            let address = Gva::new(0x1000);
            assert_eq!(
                stop(DebugStopReason::Watchpoint {
                    vp,
                    breakpoint,
                    address
                }),
                Stop {
                    thread: Tid::new(3),
                    reason: StopReason::Watchpoint {
                        kind: expected,
                        address: 0x1000
                    }
                }
            );
        }
    }

    #[test]
    fn breakpoints_are_told_apart_and_an_interrupt_belongs_to_no_thread() {
        let vp = VpIndex::BSP;
        let hit = |kind| {
            let breakpoint = Breakpoint {
                kind,
                address: Gva::new(1),
                len: 1,
            };
            stop(DebugStopReason::Breakpoint { vp, breakpoint }).reason
        };
        assert_eq!(
            hit(BreakpointKind::Software),
            StopReason::SoftwareBreakpoint
        );
        assert_eq!(hit(BreakpointKind::Execute), StopReason::HardwareBreakpoint);
        assert_eq!(
            stop(DebugStopReason::Break),
            Stop {
                thread: None,
                reason: StopReason::Interrupt
            }
        );
    }

    #[test]
    fn an_unusual_stop_is_explained() {
        let cause = CrashCause::Internal { suberror: 1 };
        let text = explanation(&DebugStopReason::Crashed {
            vp: VpIndex::new(1),
            cause,
        })
        .unwrap();
        assert!(
            text.contains("VP 1") && text.contains("cannot emulate"),
            "{text}"
        );
        assert_eq!(explanation(&DebugStopReason::Break), None);
    }
}
