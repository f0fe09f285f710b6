//! The power-on state of a VP: the state in which KVM created it, saved so that a reset can restore it.
//!
//! KVM has no request to reset a vCPU. A list of registers to clear would miss registers that a later KVM adds.
//! Therefore everything that KVM lists is read once from the new vCPU and written back at a reset.

use super::start_state::StartState;
use kvm_bindings::Msrs;
use kvm_bindings::kvm_debugregs;
use kvm_bindings::kvm_lapic_state;
use kvm_bindings::kvm_mp_state;
use kvm_bindings::kvm_msr_entry;
use kvm_bindings::kvm_regs;
use kvm_bindings::kvm_sregs;
use kvm_bindings::kvm_vcpu_events;
use kvm_bindings::kvm_xcrs;
use kvm_ioctls::VcpuFd;
use vmm_core_defs::regs::x86_64::bits::msr;
use vp_runner::kvm::x86_64::XsaveArea;
use vp_runner::kvm::x86_64::XsaveSize;
use vp_runner::machine::MachineError;

/// Time goes on over a reset. The deadline timer is part of the local APIC's state.
const MSRS_LEFT_ALONE: [u32; 3] = [msr::TSC, msr::TSC_ADJUST, msr::TSC_DEADLINE];
const MSR_MISC_ENABLE: u32 = 0x1a0;
const MSR_MTRR_DEF_TYPE: u32 = 0x2ff;
const MISC_ENABLE_FAST_STRING: u64 = 1;
/// MTRRs are enabled with the default type write-back.
const MTRR_WRITE_BACK: u64 = (1 << 11) | 6;

/// The offsets of the two local interrupt pins in the local APIC's page, and the values that firmware writes there
/// (delivery mode in bits 8-10).
const LVT_LINT0: usize = 0x350;
const LVT_LINT1: usize = 0x360;
const DELIVER_EXTINT: u32 = 0x700;
const DELIVER_NMI: u32 = 0x400;

/// The state of a new VP.
pub(crate) struct PowerOn {
    regs: kvm_regs,
    sregs: kvm_sregs,
    vectors: XsaveArea,
    xcrs: Option<kvm_xcrs>,
    debug: kvm_debugregs,
    events: kvm_vcpu_events,
    lapic: kvm_lapic_state,
    mp_state: kvm_mp_state,
    msrs: Vec<kvm_msr_entry>,
}

impl PowerOn {
    /// Reads the state of a VP that has not run, and adds the values that firmware would set. `msrs` are the MSRs that
    /// this KVM lists.
    pub(crate) fn read(
        vcpu: &VcpuFd,
        xsave: XsaveSize,
        msrs: &[u32],
    ) -> Result<Self, MachineError> {
        let mut lapic = vcpu
            .get_lapic()
            .map_err(|why| failed("read the local APIC", why))?;
        set_lapic_word(&mut lapic, LVT_LINT0, DELIVER_EXTINT);
        set_lapic_word(&mut lapic, LVT_LINT1, DELIVER_NMI);
        Ok(Self {
            regs: vcpu
                .get_regs()
                .map_err(|why| failed("read the general registers", why))?,
            sregs: vcpu
                .get_sregs()
                .map_err(|why| failed("read the system registers", why))?,
            vectors: xsave
                .get(vcpu)
                .map_err(|why| MachineError::new("read the x87 and vector registers", why))?,
            // A CPU without XSAVE has no XCRs.
            xcrs: vcpu.get_xcrs().ok().filter(|xcrs| xcrs.nr_xcrs > 0),
            debug: vcpu
                .get_debug_regs()
                .map_err(|why| failed("read the debug registers", why))?,
            events: vcpu
                .get_vcpu_events()
                .map_err(|why| failed("read the pending events", why))?,
            lapic,
            mp_state: vcpu
                .get_mp_state()
                .map_err(|why| failed("read the run state", why))?,
            msrs: read_msrs(vcpu, msrs),
        })
    }

    /// Writes the state. The first CPU gets its start state in addition.
    pub(crate) fn write(
        &self,
        vcpu: &VcpuFd,
        start: Option<StartState>,
    ) -> Result<(), MachineError> {
        let (mut regs, mut sregs) = (self.regs, self.sregs);
        if let Some(start) = start {
            regs = start.general();
            start.apply_system(&mut sregs);
        }
        vcpu.set_sregs(&sregs)
            .map_err(|why| failed("set the system registers", why))?;
        vcpu.set_regs(&regs)
            .map_err(|why| failed("set the general registers", why))?;
        // KVM accepts the whole area, whatever XCR0 contains.
        self.vectors
            .write_back(vcpu)
            .map_err(|why| failed("set the x87 and vector registers", why))?;
        if let Some(xcrs) = &self.xcrs {
            vcpu.set_xcrs(xcrs).map_err(|why| failed("set XCR0", why))?;
        }
        write_msrs(vcpu, &self.msrs);
        vcpu.set_lapic(&self.lapic)
            .map_err(|why| failed("set the local APIC", why))?;
        vcpu.set_debug_regs(&self.debug)
            .map_err(|why| failed("set the debug registers", why))?;
        vcpu.set_vcpu_events(&self.events)
            .map_err(|why| failed("set the pending events", why))?;
        vcpu.set_mp_state(self.mp_state)
            .map_err(|why| failed("set the run state", why))
    }
}

fn failed(what: &'static str, why: kvm_ioctls::Error) -> MachineError {
    MachineError::new(what, why)
}

/// The MSRs that can be read, with the values that firmware leaves. KVM lists some MSRs that a vCPU does not have.
fn read_msrs(vcpu: &VcpuFd, indices: &[u32]) -> Vec<kvm_msr_entry> {
    let mut entries = Vec::new();
    for &index in indices
        .iter()
        .filter(|index| !MSRS_LEFT_ALONE.contains(index))
    {
        let one = [kvm_msr_entry {
            index,
            ..Default::default()
        }];
        let Ok(mut one) = Msrs::from_entries(&one) else {
            continue;
        };
        if vcpu.get_msrs(&mut one).is_ok_and(|read| read == 1) {
            entries.extend_from_slice(one.as_slice());
        }
    }
    for (index, set) in [
        (MSR_MISC_ENABLE, MISC_ENABLE_FAST_STRING),
        (MSR_MTRR_DEF_TYPE, MTRR_WRITE_BACK),
    ] {
        match entries.iter_mut().find(|entry| entry.index == index) {
            Some(entry) => entry.data |= set,
            None => entries.push(kvm_msr_entry {
                index,
                data: set,
                ..Default::default()
            }),
        }
    }
    entries
}

/// Writes the MSRs that can be written. KVM stops at the first MSR that it refuses (one that only the host may set);
/// continue behind it.
fn write_msrs(vcpu: &VcpuFd, mut entries: &[kvm_msr_entry]) {
    while !entries.is_empty() {
        let chunk = &entries[..entries.len().min(64)];
        let written = Msrs::from_entries(chunk)
            .ok()
            .and_then(|msrs| vcpu.set_msrs(&msrs).ok())
            .unwrap_or(0);
        let done = match chunk.get(written) {
            Some(refused) => {
                tracing::debug!(
                    msr = format_args!("{:#x}", refused.index),
                    "KVM keeps this MSR as it is"
                );
                written + 1
            }
            None => chunk.len(),
        };
        entries = &entries[done..];
    }
}

fn set_lapic_word(lapic: &mut kvm_lapic_state, offset: usize, value: u32) {
    for (at, byte) in lapic.regs[offset..].iter_mut().zip(value.to_le_bytes()) {
        *at = i8::from_le_bytes([byte]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kvm_host::KvmHost;
    use kvm_bindings::KVM_MP_STATE_HALTED;

    const MSR_KVM_SYSTEM_TIME_NEW: u32 = 0x4b56_4d01;
    const LAPIC_SPURIOUS: usize = 0xf0;

    /// Standard format (SDM volume 1, "XSAVE Area"): XMM3, the relevant part of XSTATE_BV, and the upper half of YMM3.
    const XMM3: usize = 160 + 3 * 16;
    const XSTATE_BV: usize = 512;
    const YMM3: usize = 576 + 3 * 16;
    const SSE_AND_AVX: u8 = 0b110;

    /// Writes values to the vector registers that the host has.
    fn leave_in_vectors(xsave: XsaveSize, vcpu: &VcpuFd) {
        let mut left = xsave.get(vcpu).expect("vector registers");
        left.bytes_mut()[XMM3..XMM3 + 16].fill(9);
        left.bytes_mut()[YMM3..YMM3 + 16].fill(9);
        left.bytes_mut()[XSTATE_BV] |= SSE_AND_AVX;
        if left.set(vcpu).is_err() {
            println!("SKIP: no AVX here: only SSE registers are looked at");
            left.bytes_mut()[XSTATE_BV] &= !0b100;
            left.set(vcpu).expect("SSE registers");
        }
        let seen = vectors(&xsave.get(vcpu).expect("vector registers"));
        assert_eq!(seen[0], [9; 16], "what is to be cleared is not there");
    }

    /// XMM3 and the upper half of YMM3. If the bit of a register in XSTATE_BV is clear, the register is zero, whatever
    /// its bytes are.
    fn vectors(area: &XsaveArea) -> [[u8; 16]; 2] {
        [(XMM3, 1), (YMM3, 2)].map(|(at, bit)| match area.bytes()[XSTATE_BV] >> bit & 1 {
            0 => [0; 16],
            _ => area.bytes()[at..at + 16].try_into().expect("16 bytes"),
        })
    }

    /// No state of the previous guest is left in the registers, the MSRs, the local APIC and the pending events.
    #[test]
    fn a_reset_gives_back_the_state_of_a_fresh_vcpu() {
        let host = match KvmHost::open() {
            Ok(host) => host,
            Err(why) => return println!("SKIP: {why}"),
        };
        let vm = host.kvm.create_vm().expect("a VM");
        vm.create_irq_chip().expect("interrupt controllers");
        let vcpu = vm.create_vcpu(0).expect("a vCPU");
        vcpu.set_cpuid2(&host.cpuid).expect("the host's CPUID");
        let xsave = XsaveSize::of(&vm);
        let fresh = PowerOn::read(&vcpu, xsave, &host.msrs).expect("readable");
        fresh.write(&vcpu, None).expect("its own state");

        vcpu.set_regs(&kvm_regs {
            rip: 0x1234,
            rax: 7,
            rflags: 2,
            ..Default::default()
        })
        .expect("registers");
        let mut sregs = fresh.sregs;
        StartState::Linux64 { entry: 0 }.apply_system(&mut sregs);
        vcpu.set_sregs(&sregs).expect("long mode");
        let left =
            [(msr::LSTAR, 0x5000), (MSR_KVM_SYSTEM_TIME_NEW, 0x6001)].map(|(index, data)| {
                kvm_msr_entry {
                    index,
                    data,
                    ..Default::default()
                }
            });
        let written = vcpu
            .set_msrs(&Msrs::from_entries(&left).expect("two"))
            .expect("MSRs");
        assert_eq!(written, 2);
        leave_in_vectors(xsave, &vcpu);
        let mut debug = fresh.debug;
        debug.db[0] = 0x7000;
        vcpu.set_debug_regs(&debug).expect("debug registers");
        let mut lapic = fresh.lapic;
        set_lapic_word(&mut lapic, LAPIC_SPURIOUS, 0x1ff);
        vcpu.set_lapic(&lapic).expect("local APIC");
        vcpu.set_mp_state(kvm_mp_state {
            mp_state: KVM_MP_STATE_HALTED,
        })
        .expect("run state");

        fresh.write(&vcpu, None).expect("the fresh state again");
        let again = PowerOn::read(&vcpu, xsave, &host.msrs).expect("readable");
        assert_eq!((again.regs, again.sregs), (fresh.regs, fresh.sregs));
        assert_eq!(vectors(&again.vectors), vectors(&fresh.vectors));
        assert_eq!(again.debug, fresh.debug);
        assert_eq!(again.mp_state, fresh.mp_state);
        let registers = |state: &PowerOn| -> Vec<_> {
            state.lapic.regs.chunks(16).map(<[_]>::to_vec).collect()
        };
        for (number, (again, fresh)) in registers(&again).iter().zip(registers(&fresh)).enumerate()
        {
            assert_eq!(again, &fresh, "local APIC register {number:#x}0");
        }
        let value = |state: &PowerOn, index| {
            state
                .msrs
                .iter()
                .find(|msr| msr.index == index)
                .map(|msr| msr.data)
        };
        for msr in left {
            assert_eq!(
                value(&again, msr.index),
                value(&fresh, msr.index),
                "{:#x}",
                msr.index
            );
            assert_ne!(value(&again, msr.index), Some(msr.data));
        }
    }
}
