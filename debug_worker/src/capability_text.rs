//! The meaning of a host's capabilities for a user of GDB.

use vmm_core_defs::capability::Capability;
use vmm_core_defs::capability::CapabilityKind;
use vmm_core_defs::capability::Support;

/// Explains to a user of GDB what works because the host has a capability, or what does not work without the capability
/// and what helps.
pub fn capability_meaning(capability: &Capability) -> &'static str {
    use CapabilityKind::*;
    let works = capability.works();
    let either = |good, bad| if works { good } else { bad };
    match capability.kind {
        SoftwareBreakpointsInRealMode => either(
            "`break` works before the guest has left real mode.",
            "Each `break` in real-mode code needs a debug register, and there are four. Use `hbreak` there.",
        ),
        SoftwareBreakpoints => either(
            "`break` works at any address, in any number.",
            "Each `break` needs a debug register, and there are four. Delete a breakpoint before you set a fifth.",
        ),
        ExecutionBreakpoints => either(
            "`hbreak` works, also at code that is not in memory yet. There are four.",
            "`hbreak` does not stop the guest. Use `break`; if `break` does not work either, update the host's kernel.",
        ),
        DataWatchpoints => either(
            "`watch`, `rwatch` and `awatch` work for 1, 2, 4 or 8 bytes. There are four.",
            "`watch`, `rwatch` and `awatch` are refused, because this KVM accepts them and never reports a hit. Use `break` where the data is used, step, or use another host \
             (watchpoints work in the nested KVM of `cargo xtask nested`).",
        ),
        SingleStep => either(
            "`stepi`, `step` and `next` work.",
            "`stepi`, `step` and `next` do not work, and `continue` cannot pass a breakpoint. Update the host's kernel.",
        ),
        UserMode => either(
            "`break`, `hbreak` and `stepi` work in the guest's user processes as in its kernel.",
            "In 64-bit code of the guest's user processes, `break`, `hbreak` or `stepi` does not stop the guest, and the guest's kernel can get the debugger's trap as its own. Debug only \
             kernel code here, or use another host for user code.",
        ),
        InterruptsHeld => interrupts_held(capability.support),
        RegisterAccessReported => either(
            "A breakpoint that the guest sets in its own debug registers takes effect at once, also beside your `hbreak` or `watch`.",
            "Beside your `hbreak` or `watch`, a breakpoint that the guest sets in its own debug registers may take up to 25 ms to take effect. Nothing else is affected.",
        ),
        ResumeFlag => either(
            "RFLAGS.RF lets a vCPU pass an armed breakpoint.",
            "No visible effect: a breakpoint is disarmed for one step instead, which takes some microseconds each time.",
        ),
        RegistersWithExit => either(
            "KVM passes the registers with each exit (KVM_CAP_SYNC_REGS), so no system call is needed.",
            "No visible effect: the registers are read by system calls, which takes some microseconds at each stop.",
        ),
        FrozenTime => frozen_time(capability.support),
        _ => either(
            "This server does not know this feature; a newer server may.",
            "This server does not know what is missing without this feature; a newer server may.",
        ),
    }
}

fn interrupts_held(support: Support) -> &'static str {
    match support {
        Support::Works => {
            "A step stays in the code that is stepped. A pending interrupt is delivered when the guest next runs."
        }
        Support::Replaced => {
            "A step stays in the code that is stepped: the server sets an interrupt shadow before each step, which takes two more system calls."
        }
        Support::NotOffered => {
            "A step can end in an interrupt handler; `finish` leaves the handler. The host's kernel does not offer KVM_GUESTDBG_BLOCKIRQ: update it to Linux 5.15 or later."
        }
        _ => {
            "A step can end in an interrupt handler; `finish` leaves the handler. The host's KVM offers KVM_GUESTDBG_BLOCKIRQ, but the flag has no effect here."
        }
    }
}

/// The advice depends on the reason why the guest's clocks cannot be set back.
fn frozen_time(support: Support) -> &'static str {
    match support {
        Support::Works => {
            "The guest's clocks and timers stop while the guest is stopped (`--freeze-time`, `monitor freeze-time`)."
        }
        Support::ClockScaled => {
            "The guest's clocks run on while the guest is stopped, and its timers expire at once afterwards, because this host's KVM scales the guest's time-stamp counter. Use a \
             host whose KVM does not scale the counter."
        }
        Support::NoEffect => {
            "The guest's clocks run on while the guest is stopped, and its timers expire at once afterwards, because this host's KVM accepts a new time without effect. No \
             update is known to help. Use another host if the guest must not notice a stop."
        }
        _ => {
            "The guest's clocks run on while the guest is stopped, and its timers expire at once afterwards, because this host's KVM refuses to set them, as kernels before Linux \
             5.16 do. Update an older kernel; with a newer kernel, use another host."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meaning(kind: CapabilityKind, support: Support) -> &'static str {
        capability_meaning(&Capability {
            kind,
            support,
            seen: "tried".to_owned(),
        })
    }

    #[test]
    fn each_capability_means_something_else_where_it_is_missing() {
        for &kind in CapabilityKind::ALL {
            let good = meaning(kind, Support::Works);
            let bad = meaning(kind, Support::NoEffect);
            assert_ne!(good, bad, "{kind}");
            assert!(!good.contains("does not know"), "{kind}");
        }
    }

    /// If the kernel has the call, another version of the kernel would not help.
    #[test]
    fn an_update_is_advised_only_where_the_kernel_lacks_something() {
        let clocks = CapabilityKind::FrozenTime;
        for support in [Support::NoEffect, Support::ClockScaled] {
            assert!(!meaning(clocks, support).contains("Linux 5"), "{support:?}");
        }
        assert!(meaning(clocks, Support::NotOffered).contains("Linux 5.16"));
        let steps = CapabilityKind::InterruptsHeld;
        assert!(meaning(steps, Support::NotOffered).contains("Linux 5.15"));
        for support in [Support::NoEffect, Support::Replaced] {
            assert!(!meaning(steps, support).contains("Linux 5"), "{support:?}");
        }
    }
}
