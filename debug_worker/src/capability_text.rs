//! What a host's capabilities mean for a person who debugs with GDB.

use vmm_core_defs::capability::Capability;
use vmm_core_defs::capability::CapabilityKind;
use vmm_core_defs::capability::Support;

/// What it means for the user of GDB that the host has a capability or lacks it, and what helps.
pub fn capability_meaning(capability: &Capability) -> &'static str {
    use CapabilityKind::*;
    let works = capability.works();
    let either = |good, bad| if works { good } else { bad };
    match capability.kind {
        SoftwareBreakpointsInRealMode => either(
            "`break` works before the guest has left real mode.",
            "`break` in real-mode code needs a debug register each, four at most; `hbreak` says so plainly.",
        ),
        SoftwareBreakpoints => either(
            "`break` works anywhere, with no limit on their number.",
            "`break` needs a debug register each, four at most; delete one that is not needed before setting a fifth.",
        ),
        ExecutionBreakpoints => either(
            "`hbreak` works, also on code that is not in memory yet; four at once.",
            "`hbreak` does not stop the guest: use `break`, and update the host's kernel if that does not work either.",
        ),
        DataWatchpoints => either(
            "`watch`, `rwatch` and `awatch` on 1, 2, 4 or 8 bytes work; four at once.",
            "`watch`, `rwatch` and `awatch` are refused: this KVM accepts them and never reports a hit. Break where the data is used, step, or use another host \
             (the project's nested KVM has working ones).",
        ),
        SingleStep => either(
            "`stepi`, `step` and `next` work.",
            "`stepi`, `step` and `next` do not work, and `continue` cannot get past a breakpoint: update the host's kernel.",
        ),
        InterruptsHeld => interrupts_held(capability.support),
        RegisterAccessReported => either(
            "A debug register that a guest sets for itself is in force at once beside an `hbreak` or `watch` of yours.",
            "A debug register that a guest sets for itself may not fire for the first 25 ms beside an `hbreak` or `watch` of yours. Nothing else depends on it.",
        ),
        ResumeFlag => either(
            "RFLAGS.RF gets past an armed breakpoint.",
            "Nothing you will notice: breakpoints are taken out for one step instead, which costs some microseconds each time.",
        ),
        RegistersWithExit => either(
            "Registers come with each stop (KVM_CAP_SYNC_REGS), without a system call.",
            "Nothing you will notice: registers are fetched by system calls, which costs some microseconds at each stop.",
        ),
        FrozenTime => frozen_time(capability.support),
        _ => either(
            "This server does not know what it is good for.",
            "This server does not know what is missing without it; a newer one may.",
        ),
    }
}

fn interrupts_held(support: Support) -> &'static str {
    match support {
        Support::Works => {
            "A step stays in the code it is in; a pending interrupt is delivered when the guest next runs."
        }
        Support::Replaced => {
            "A step stays in the code it is in all the same: an interrupt shadow is cast before each step, which costs two more system calls."
        }
        Support::NotOffered => {
            "A step can end in an interrupt handler: `finish` leaves it. The host's kernel does not offer KVM_GUESTDBG_BLOCKIRQ: update it to Linux 5.15 or later."
        }
        _ => {
            "A step can end in an interrupt handler: `finish` leaves it. The host's KVM offers KVM_GUESTDBG_BLOCKIRQ, but it has no effect here."
        }
    }
}

/// What helps depends on why a guest's clocks cannot be put back.
fn frozen_time(support: Support) -> &'static str {
    match support {
        Support::Works => {
            "The guest's clocks and timers stand while it is stopped (`--freeze-time`, `monitor freeze-time`)."
        }
        Support::ClockScaled => {
            "The guest's clocks go on while it is stopped, and its timers fire at once afterwards: this host's KVM scales the guest's time-stamp counter. Use a \
             host that lets it run at its own rate."
        }
        Support::NoEffect => {
            "The guest's clocks go on while it is stopped, and its timers fire at once afterwards: this host's KVM accepts a new time and does not keep it, and no \
             update is known to help. Use another host if the guest must not notice its stops."
        }
        _ => {
            "The guest's clocks go on while it is stopped, and its timers fire at once afterwards: this host's KVM refuses to set them, as kernels before Linux \
             5.16 do. Update an older kernel; on a newer one, use another host."
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

    /// A kernel that has the call is new enough: another version of it would not help.
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
