//! KVM's interrupt controllers and timer: two 8259s, the I/O APIC and the 8254.

use kvm_bindings::KVM_IRQCHIP_IOAPIC;
use kvm_bindings::KVM_IRQCHIP_PIC_MASTER;
use kvm_bindings::KVM_IRQCHIP_PIC_SLAVE;
use kvm_bindings::KVM_PIT_SPEAKER_DUMMY;
use kvm_bindings::kvm_irqchip;
use kvm_bindings::kvm_pit_config;
use kvm_bindings::kvm_pit_state2;
use kvm_ioctls::VmFd;
use std::sync::Arc;
use vp_runner::machine::MachineError;

/// The controllers, with the state in which KVM created them.
pub(crate) struct InterruptControllers {
    vm: Arc<VmFd>,
    chips: Vec<kvm_irqchip>,
    timer: kvm_pit_state2,
}

impl InterruptControllers {
    /// Creates the controllers. This has to be done before the first VP: otherwise KVM gives the VP no local APIC.
    pub(crate) fn create(vm: Arc<VmFd>) -> Result<Self, MachineError> {
        vm.create_irq_chip()
            .map_err(|why| failed("create the interrupt controllers", why))?;
        // Linux calibrates its clock by the speaker's gate bit.
        let timer = kvm_pit_config {
            flags: KVM_PIT_SPEAKER_DUMMY,
            ..Default::default()
        };
        vm.create_pit2(timer)
            .map_err(|why| failed("create the timer", why))?;
        let mut chips = Vec::new();
        for chip_id in [
            KVM_IRQCHIP_PIC_MASTER,
            KVM_IRQCHIP_PIC_SLAVE,
            KVM_IRQCHIP_IOAPIC,
        ] {
            let mut chip = kvm_irqchip {
                chip_id,
                ..Default::default()
            };
            vm.get_irqchip(&mut chip)
                .map_err(|why| failed("read an interrupt controller", why))?;
            chips.push(chip);
        }
        let timer = vm.get_pit2().map_err(|why| failed("read the timer", why))?;
        Ok(Self { vm, chips, timer })
    }

    /// Restores the state in which KVM created the controllers.
    pub(crate) fn reset(&self) -> Result<(), MachineError> {
        for chip in &self.chips {
            self.vm
                .set_irqchip(chip)
                .map_err(|why| failed("reset an interrupt controller", why))?;
        }
        self.vm
            .set_pit2(&self.timer)
            .map_err(|why| failed("reset the timer", why))
    }
}

fn failed(what: &'static str, why: kvm_ioctls::Error) -> MachineError {
    MachineError::new(what, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kvm_host::KvmHost;

    #[test]
    fn a_reset_forgets_what_the_guest_programmed() {
        let host = match KvmHost::open() {
            Ok(host) => host,
            Err(why) => return println!("SKIP: {why}"),
        };
        let vm = Arc::new(host.kvm.create_vm().expect("a VM"));
        let controllers = InterruptControllers::create(vm.clone()).expect("controllers");
        let mut timer = controllers.timer;
        timer.channels[0].mode = 2;
        timer.channels[0].count = 11_932;
        vm.set_pit2(&timer).expect("a running timer");
        controllers.reset().expect("reset");
        let again = vm.get_pit2().expect("readable");
        assert_eq!(
            (again.channels[0].mode, again.channels[0].count),
            (
                controllers.timer.channels[0].mode,
                controllers.timer.channels[0].count
            )
        );
    }
}
