//! The exit in `kvm_run` as an [`Exit`], and the [`DeviceAccess`] that comes with one (KVM api.rst, section 5).
#![expect(unsafe_code, reason = "kvm_run is a union selected by exit_reason")]

use crate::arch::x86_64::dr7::Dr6;
use crate::arch::x86_64::stop_cause::DebugExit;
use crate::control::exit::Exit;
use crate::machine::device_access::DeviceAccess;
use kvm_bindings::*;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::stop::CrashCause;
use vmm_core_defs::stop::FaultRegisters;

/// Who handles the exits that this crate does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exits {
    /// Nobody: the VP cannot continue.
    AreFailures,
    /// The VMM, which gets each exit unchanged. The next entry completes the exit.
    GoToVmm,
}

/// Whether an exit with this reason may be a stop for a debugger. Every other exit goes to the devices or to the VMM.
pub(super) fn may_be_stop(reason: u32) -> bool {
    matches!(
        reason,
        KVM_EXIT_DEBUG
            | KVM_EXIT_SHUTDOWN
            | KVM_EXIT_SYSTEM_EVENT
            | KVM_EXIT_INTERNAL_ERROR
            | KVM_EXIT_FAIL_ENTRY
    )
}

/// Whether KVM has nothing left to do for this exit. For other exits the next `KVM_RUN` may write the registers first.
pub(super) fn is_complete(reason: u32) -> bool {
    matches!(
        reason,
        KVM_EXIT_INTR
            | KVM_EXIT_HLT
            | KVM_EXIT_SHUTDOWN
            | KVM_EXIT_SYSTEM_EVENT
            | KVM_EXIT_INTERNAL_ERROR
            | KVM_EXIT_FAIL_ENTRY
    )
}

/// The exit in `kvm_run`, after a `KVM_RUN` that returned 0. After a shutdown the caller still has to check the registers.
pub(super) fn decode(run: &kvm_run, exits: Exits) -> Exit {
    if exits == Exits::GoToVmm && !may_be_stop(run.exit_reason) {
        return match run.exit_reason {
            KVM_EXIT_INTR => Exit::Interrupted,
            // The VMM waits for the interrupt that ends a `hlt`.
            KVM_EXIT_HLT | KVM_EXIT_IRQ_WINDOW_OPEN | KVM_EXIT_SET_TPR => Exit::Nothing,
            _ => Exit::Device,
        };
    }
    // SAFETY (all unions below): exit_reason says which member the kernel filled in (KVM api.rst, section 5); all are plain integers.
    match run.exit_reason {
        KVM_EXIT_IO | KVM_EXIT_MMIO => Exit::Device,
        KVM_EXIT_DEBUG => {
            // SAFETY: see above.
            let debug = unsafe { run.__bindgen_anon_1.debug }.arch;
            Exit::Debug(DebugExit {
                vector: debug.exception,
                pc: debug.pc,
                dr6: Dr6(debug.dr6),
            })
        }
        KVM_EXIT_HLT => Exit::Halted,
        KVM_EXIT_SHUTDOWN => Exit::Shutdown(FaultRegisters::Kept),
        KVM_EXIT_SYSTEM_EVENT => {
            // SAFETY: see above.
            match unsafe { run.__bindgen_anon_1.system_event }.type_ {
                KVM_SYSTEM_EVENT_SHUTDOWN => Exit::SystemPowerOff,
                KVM_SYSTEM_EVENT_RESET => Exit::SystemReset,
                KVM_SYSTEM_EVENT_CRASH => Exit::SystemCrash,
                _ if exits == Exits::GoToVmm => Exit::Device,
                _ => Exit::Failed(CrashCause::UnknownExit {
                    reason: KVM_EXIT_SYSTEM_EVENT,
                }),
            }
        }
        KVM_EXIT_INTERNAL_ERROR => {
            // SAFETY: see above.
            let suberror = unsafe { run.__bindgen_anon_1.internal }.suberror;
            Exit::Failed(CrashCause::Internal { suberror })
        }
        KVM_EXIT_FAIL_ENTRY => {
            // SAFETY: see above.
            let fail = unsafe { run.__bindgen_anon_1.fail_entry };
            Exit::Failed(CrashCause::FailEntry {
                hardware_reason: fail.hardware_entry_failure_reason,
            })
        }
        KVM_EXIT_INTR => Exit::Interrupted,
        KVM_EXIT_IRQ_WINDOW_OPEN | KVM_EXIT_SET_TPR => Exit::Nothing,
        reason => Exit::Failed(CrashCause::UnknownExit { reason }),
    }
}

/// The device access of an [`Exit::Device`], in `kvm_run` until the next `KVM_RUN`. `None`: the exit is another.
pub(super) fn device_access(run: &mut kvm_run) -> Option<DeviceAccess<'_>> {
    let base = std::ptr::from_mut(run).cast::<u8>();
    match run.exit_reason {
        KVM_EXIT_IO => {
            // SAFETY: exit_reason says that the kernel filled in this member (KVM api.rst, section 5); it has plain integers.
            let io = unsafe { run.__bindgen_anon_1.io };
            let size = usize::from(io.size);
            let len = size * io.count as usize;
            let offset = usize::try_from(io.data_offset).expect("an offset within a mapping");
            // SAFETY: the kernel puts the data at this offset of the mapped kvm_run area, which is longer than the struct, and the
            // result borrows `run`, so the mapping outlives it and nothing else touches it until the next KVM_RUN.
            let data = unsafe { std::slice::from_raw_parts_mut(base.add(offset), len) };
            let port = io.port;
            Some(match u32::from(io.direction) {
                KVM_EXIT_IO_IN => DeviceAccess::PioRead { port, size, data },
                _ => DeviceAccess::PioWrite { port, size, data },
            })
        }
        KVM_EXIT_MMIO => {
            // SAFETY: as above.
            let mmio = unsafe { &mut run.__bindgen_anon_1.mmio };
            let gpa = Gpa::new(mmio.phys_addr);
            let len = (mmio.len as usize).min(mmio.data.len());
            let data = &mut mmio.data[..len];
            Some(match mmio.is_write {
                0 => DeviceAccess::MmioRead { gpa, data },
                _ => DeviceAccess::MmioWrite { gpa, data },
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    /// What KVM would leave: the reason, and the member of the union that goes with it.
    fn exit(reason: u32, fill: impl FnOnce(&mut kvm_run__bindgen_ty_1)) -> Box<kvm_run> {
        let mut run = Box::new(kvm_run {
            exit_reason: reason,
            ..Default::default()
        });
        fill(&mut run.__bindgen_anon_1);
        run
    }

    fn nothing(_: &mut kvm_run__bindgen_ty_1) {}

    const RUNNER: Exits = Exits::AreFailures;

    #[test]
    fn a_vmm_gets_every_exit_that_is_no_stop() {
        for reason in 0..64 {
            let found = decode(&exit(reason, nothing), Exits::GoToVmm);
            match reason {
                KVM_EXIT_DEBUG => assert!(matches!(found, Exit::Debug(_))),
                KVM_EXIT_SHUTDOWN => assert_eq!(found, Exit::Shutdown(FaultRegisters::Kept)),
                KVM_EXIT_INTERNAL_ERROR | KVM_EXIT_FAIL_ENTRY => {
                    assert!(matches!(found, Exit::Failed(_)), "{reason}");
                }
                KVM_EXIT_INTR => assert_eq!(found, Exit::Interrupted),
                KVM_EXIT_HLT | KVM_EXIT_IRQ_WINDOW_OPEN | KVM_EXIT_SET_TPR => {
                    assert_eq!(found, Exit::Nothing);
                }
                _ => assert_eq!(found, Exit::Device, "{reason}"),
            }
        }
    }

    #[test]
    fn what_the_machine_as_a_whole_is_asked_for_is_told_apart() {
        let event = |type_| {
            exit(KVM_EXIT_SYSTEM_EVENT, |run| {
                run.system_event.type_ = type_;
            })
        };
        let unknown = Exit::Failed(CrashCause::UnknownExit {
            reason: KVM_EXIT_SYSTEM_EVENT,
        });
        for (type_, wanted) in [
            (KVM_SYSTEM_EVENT_SHUTDOWN, Exit::SystemPowerOff),
            (KVM_SYSTEM_EVENT_RESET, Exit::SystemReset),
            (KVM_SYSTEM_EVENT_CRASH, Exit::SystemCrash),
            (77, unknown),
        ] {
            assert_eq!(decode(&event(type_), RUNNER), wanted, "{type_}");
        }
        assert_eq!(
            decode(&exit(KVM_EXIT_SHUTDOWN, nothing), RUNNER),
            Exit::Shutdown(FaultRegisters::Kept)
        );
        assert_eq!(decode(&exit(KVM_EXIT_HLT, nothing), RUNNER), Exit::Halted);
    }

    #[test]
    fn a_vp_that_cannot_go_on_says_why() {
        let mut failed_entry = exit(KVM_EXIT_FAIL_ENTRY, |run| {
            run.fail_entry.hardware_entry_failure_reason = 0x8000_0021;
            run.fail_entry.cpu = 3;
        });
        let mut internal = exit(KVM_EXIT_INTERNAL_ERROR, |run| {
            run.internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
            run.internal.ndata = 2;
        });
        let mut unknown = exit(KVM_EXIT_DIRTY_RING_FULL, nothing);
        let hardware_reason = 0x8000_0021;
        for (run, cause) in [
            (&mut failed_entry, CrashCause::FailEntry { hardware_reason }),
            (&mut internal, CrashCause::Internal { suberror: 1 }),
            (
                &mut unknown,
                CrashCause::UnknownExit {
                    reason: KVM_EXIT_DIRTY_RING_FULL,
                },
            ),
        ] {
            assert_eq!(decode(run, RUNNER), Exit::Failed(cause));
        }
    }

    #[test]
    fn a_debug_exit_carries_vector_address_and_status() {
        let run = exit(KVM_EXIT_DEBUG, |run| {
            run.debug.arch = kvm_debug_exit_arch {
                exception: 1,
                pc: 0x1234,
                dr6: 0xffff_4ff0,
                dr7: 0x400,
                ..Default::default()
            };
        });
        let wanted = DebugExit {
            vector: 1,
            pc: 0x1234,
            dr6: Dr6(0xffff_4ff0),
        };
        assert_eq!(decode(&run, RUNNER), Exit::Debug(wanted));
    }

    #[test]
    fn port_and_memory_exits_carry_their_data() {
        // The data of a port is behind the structure as a rule; here at its end.
        let offset = offset_of!(kvm_run, s);
        let io = |direction: u32| {
            let mut run = exit(KVM_EXIT_IO, |run| {
                run.io = kvm_run__bindgen_ty_1__bindgen_ty_4 {
                    direction: u8::try_from(direction).unwrap(),
                    size: 2,
                    port: 0x3f8,
                    count: 3,
                    data_offset: offset as u64,
                };
            });
            let mut area = [0; 2048];
            area[..6].copy_from_slice(&b"abcdef".map(u8::cast_signed));
            run.s.padding = area;
            run
        };
        match device_access(&mut io(KVM_EXIT_IO_OUT)) {
            Some(DeviceAccess::PioWrite { port, size, data }) => {
                assert_eq!((port, size, data), (0x3f8, 2, &b"abcdef"[..]));
            }
            other => panic!("{other:?}"),
        }
        match device_access(&mut io(KVM_EXIT_IO_IN)) {
            Some(DeviceAccess::PioRead { port, size, data }) => {
                assert_eq!((port, size, data.len()), (0x3f8, 2, 6));
            }
            other => panic!("{other:?}"),
        }
        let mmio = |len, is_write| {
            exit(KVM_EXIT_MMIO, |run| {
                run.mmio.phys_addr = 0xfee0_0000;
                run.mmio.data = *b"01234567";
                run.mmio.len = len;
                run.mmio.is_write = is_write;
            })
        };
        let gpa = Gpa::new(0xfee0_0000);
        let data = b"0123";
        assert_eq!(decode(&mmio(4, 1), RUNNER), Exit::Device);
        assert_eq!(
            device_access(&mut mmio(4, 1)),
            Some(DeviceAccess::MmioWrite { gpa, data })
        );
        // The kernel's count is limited to the size of the array.
        match device_access(&mut mmio(9000, 0)) {
            Some(DeviceAccess::MmioRead { data, .. }) => assert_eq!(data.len(), 8),
            other => panic!("{other:?}"),
        }
    }
}
