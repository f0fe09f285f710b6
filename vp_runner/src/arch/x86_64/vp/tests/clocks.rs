//! The clocks of a VP over stops, with a host's counter that the test sets.

use super::super::clocks::Clocks;
use super::super::clocks::Extent;
use super::*;
use crate::arch::x86_64::guest_time::ClockAccess;
use crate::arch::x86_64::guest_time::TscRate;
use crate::arch::x86_64::guest_time::fake_clocks::FakeClocks;
use vmm_core_defs::debug_rpc::FreezeTime;
use vmm_core_defs::regs::x86_64::bits::msr;

/// One tick is a nanosecond.
const KHZ: u32 = 1_000_000;
/// 100 ms.
const STOP: u64 = 100_000_000;

struct Vm {
    host: FakeClocks,
    clocks: Clocks,
    vcpu: FakeVcpu,
}

impl Vm {
    /// A VP that has run, and has just parked.
    fn new(freeze: FreezeTime) -> Self {
        let host = FakeClocks::default();
        host.pass(1_000_000_000);
        let rate = TscRate::from_khz(KHZ).unwrap();
        let time = Timekeeper::new(Box::new(host.clone()), freeze, Ok(rate));
        let mut vm = Self {
            host,
            clocks: Clocks::new(VP, Arc::new(time)),
            vcpu: FakeVcpu::new(Arc::new(RunGate::new()), CODE),
        };
        vm.vcpu.tsc = 5_000_000_000;
        vm.go_on();
        vm.clocks.stand();
        vm
    }

    fn go_on(&mut self) {
        self.clocks
            .go_on(ClockAccess::Possible, Extent::Open, &mut self.vcpu);
    }
}

#[test]
fn a_stop_is_taken_out_of_the_counter_when_it_ends() {
    for (freeze, taken_out) in [(FreezeTime::On, STOP), (FreezeTime::Off, 0)] {
        let mut vm = Vm::new(freeze);
        let before = vm.vcpu.tsc;
        vm.host.pass(STOP);
        vm.go_on();
        assert_eq!(before - vm.vcpu.tsc, taken_out, "{freeze:?}");
    }
}

#[test]
fn what_cannot_read_a_clock_leaves_the_counter_to_a_later_entry() {
    let mut vm = Vm::new(FreezeTime::On);
    let before = vm.vcpu.tsc;
    for _ in 0..3 {
        vm.host.pass(STOP);
        vm.clocks.go_on(
            ClockAccess::Impossible,
            Extent::OneInstruction,
            &mut vm.vcpu,
        );
        assert_eq!(vm.vcpu.tsc, before);
        vm.clocks.stand();
    }
    vm.host.pass(STOP);
    vm.go_on();
    assert_eq!(before - vm.vcpu.tsc, 4 * STOP);
}

#[test]
fn a_deadline_is_held_over_a_long_stop_and_armed_again_after_it() {
    let mut vm = Vm::new(FreezeTime::On);
    let deadline = vm.vcpu.tsc + 10 * STOP;
    vm.vcpu.deadline = deadline;
    vm.clocks.hold_timers(&mut vm.vcpu);
    assert!(vm.clocks.is_held());
    assert_eq!(vm.vcpu.deadline, 0);
    let read = vm.clocks.read_msr(msr::TSC_DEADLINE, &mut vm.vcpu);
    assert_eq!(read, Ok(deadline), "the client sees the guest's");
    vm.host.pass(STOP);
    vm.go_on();
    assert_eq!(vm.vcpu.deadline, deadline);
}

#[test]
fn a_deadline_that_the_client_writes_replaces_the_one_that_is_held() {
    let mut vm = Vm::new(FreezeTime::On);
    vm.vcpu.deadline = vm.vcpu.tsc + 10 * STOP;
    vm.clocks.hold_timers(&mut vm.vcpu);
    let wanted = vm.vcpu.tsc + STOP;
    vm.clocks
        .write_msr(msr::TSC_DEADLINE, wanted, &mut vm.vcpu)
        .unwrap();
    vm.host.pass(STOP);
    vm.go_on();
    assert_eq!(vm.vcpu.deadline, wanted);
}

#[test]
fn a_deadline_that_is_about_to_pass_is_left_alone() {
    let mut vm = Vm::new(FreezeTime::On);
    let near = vm.vcpu.tsc + 1000;
    vm.vcpu.deadline = near;
    vm.clocks.hold_timers(&mut vm.vcpu);
    assert_eq!(vm.vcpu.deadline, near);
}

#[test]
fn the_client_reads_the_counter_as_it_stood() {
    let mut vm = Vm::new(FreezeTime::On);
    let stood = vm.vcpu.tsc;
    vm.host.pass(STOP);
    // KVM's counter runs with the host's counter.
    vm.vcpu.tsc += STOP;
    let read = vm.clocks.read_msr(msr::TSC, &mut vm.vcpu);
    assert_eq!(read, Ok(stood));
}

#[test]
fn a_counter_that_fails_to_be_read_or_set_keeps_the_vp_running() {
    for call in 0..20 {
        let mut vm = Vm::new(FreezeTime::On);
        vm.vcpu.deadline = vm.vcpu.tsc + 10 * STOP;
        vm.vcpu.fails_at = Some(call);
        vm.clocks.hold_timers(&mut vm.vcpu);
        vm.host.pass(STOP);
        vm.go_on();
        vm.clocks.stand();
        vm.host.pass(STOP);
        vm.go_on();
        assert!(!vm.clocks.is_held(), "call {call}");
    }
}
