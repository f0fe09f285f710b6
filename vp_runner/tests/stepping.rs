//! Single steps and range steps, through RPC, on real guests.

use test_machine::machine;

use machine::guest::*;
use machine::*;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::*;
use vmm_core_defs::stop::DebugStopReason;

#[test]
fn each_step_executes_one_instruction_in_every_mode() {
    for mode in MODES {
        let Some(vm) = Setup::new(mode, &counting_loop(mode)).build() else {
            return;
        };
        vm.attach();
        for n in 1..=12 {
            vm.step(0);
            let regs = vm.regs(0);
            assert_eq!(regs.rip, in_loop(mode, n % 4), "{mode:?} step {n}");
            assert_eq!(regs.gp[3], n.div_ceil(4), "{mode:?} step {n}");
        }
    }
}

#[test]
fn a_step_leaves_no_trap_flag_behind() {
    let Some(vm) = Setup::new(Mode::Long, &telling_loop(Mode::Long)).build() else {
        return;
    };
    vm.attach();
    vm.step(0);
    assert_eq!(vm.regs(0).rflags & 0x100, 0, "our TF shows in RFLAGS");
    let pending = vm.resume();
    vm.machine
        .wait_until("it runs freely", |seen| seen.told.len() > 50);
    interrupt(&vm, pending);
}

#[test]
fn a_step_after_the_client_moved_rip_executes_the_instruction_there() {
    let Some(vm) = Setup::new(Mode::Long, &counting_loop(Mode::Long)).build() else {
        return;
    };
    vm.attach();
    vm.step(0);
    let mut regs = vm.regs(0);
    regs.rip = in_loop(Mode::Long, 3);
    vm.try_set_regs(0, regs).unwrap();
    vm.step(0);
    assert_eq!(vm.regs(0).rip, ENTRY);
    vm.step(0);
    assert_eq!(vm.regs(0).rip, in_loop(Mode::Long, 1));
}

#[test]
fn a_step_over_port_io_ends_after_it_with_the_device_told_once() {
    for mode in MODES {
        let Some(vm) = Setup::new(mode, &telling_loop(mode)).build() else {
            return;
        };
        vm.attach();
        vm.step(0);
        vm.step(0);
        let told = vm.machine.wait_until("now", |_| true).told.len();
        let regs = vm.regs(0);
        assert_eq!((told, regs.rip), (1, in_loop(mode, 1) + 2), "{mode:?}");
    }
}

/// `mov ecx, 5; 1: inc ebx; dec ecx; jnz 1b; nop; jmp` to the start.
const COUNT_TO_FIVE: &[u8] = &[
    0xb9, 5, 0, 0, 0, 0xff, 0xc3, 0xff, 0xc9, 0x75, 0xfa, 0x90, 0xeb, 0xf2,
];

#[test]
fn a_range_step_runs_until_the_range_is_left() {
    let Some(vm) = Setup::new(Mode::Long, COUNT_TO_FIVE).build() else {
        return;
    };
    vm.attach();
    vm.step(0);
    let range = VpAction::StepRange {
        start: Gva::new(ENTRY + 5),
        end: Gva::new(ENTRY + 11),
    };
    let vp = VpIndex::BSP;
    assert_eq!(stop(vm.only(0, range)), DebugStopReason::SingleStep { vp });
    let regs = vm.regs(0);
    assert_eq!((regs.rip, regs.gp[3]), (ENTRY + 11, 5));
    // RIP is outside the range: one instruction.
    assert_eq!(stop(vm.only(0, range)), DebugStopReason::SingleStep { vp });
    assert_eq!(vm.regs(0).rip, ENTRY + 12);
}

/// Also with interrupts on, because each step holds them.
#[test]
fn a_breakpoint_inside_the_range_ends_a_range_step_and_is_passed_by_the_next() {
    const IF: u64 = 1 << 9;
    for interrupts in [0, IF] {
        let Some(vm) = Setup::new(Mode::Long, COUNT_TO_FIVE).build() else {
            return;
        };
        vm.attach();
        vm.step(0);
        let mut regs = vm.regs(0);
        regs.rflags |= interrupts;
        vm.try_set_regs(0, regs).unwrap();
        let breakpoint = execute_at(ENTRY + 7);
        vm.insert(breakpoint);
        let range = VpAction::StepRange {
            start: Gva::new(ENTRY + 5),
            end: Gva::new(ENTRY + 11),
        };
        for turn in 1..=5 {
            assert_eq!(stop(vm.only(0, range)), hit(0, breakpoint), "{turn}");
            let regs = vm.regs(0);
            assert_eq!((regs.rip, regs.gp[3]), (ENTRY + 7, turn));
        }
        let vp = VpIndex::BSP;
        assert_eq!(stop(vm.only(0, range)), DebugStopReason::SingleStep { vp });
        assert_eq!(vm.regs(0).rip, ENTRY + 11);
    }
}

#[test]
fn a_range_step_that_never_ends_is_interrupted_like_a_run() {
    let Some(vm) = Setup::new(Mode::Long, &counting_loop(Mode::Long)).build() else {
        return;
    };
    vm.attach();
    let range = VpAction::StepRange {
        start: Gva::new(ENTRY),
        end: Gva::new(ENTRY + 0x100),
    };
    let pending = vm.only(0, range);
    interrupt(&vm, pending);
}

#[test]
fn only_the_vp_that_steps_moves() {
    let code = counting_loop(Mode::Long);
    let Some(vm) = Setup::new(Mode::Long, &code).vps(3).build() else {
        return;
    };
    vm.attach();
    for _ in 0..5 {
        vm.step(1);
    }
    assert_eq!(vm.regs(1).rip, in_loop(Mode::Long, 1));
    assert_eq!((vm.regs(0).rip, vm.regs(2).rip), (ENTRY, ENTRY));
}

#[test]
fn stepping_a_vp_that_was_never_started_does_not_hang() {
    let code = counting_loop(Mode::Real);
    let setup = Setup::new(Mode::Real, &code).vps(2).others_wait();
    let Some(vm) = setup.build() else {
        return;
    };
    vm.attach();
    assert_eq!(vm.status().vps[1].activity, VpActivity::WaitingForStart);
    let rip = vm.regs(1).rip;
    vm.step(1);
    assert_eq!(vm.regs(1).rip, rip, "there was nothing to execute");
    let pending = vm.resume();
    interrupt(&vm, pending);
    assert_eq!(vm.status().vps[1].activity, VpActivity::WaitingForStart);
}

#[test]
fn a_vp_that_waits_to_be_started_is_stopped_while_it_runs_alone() {
    let code = counting_loop(Mode::Real);
    let setup = Setup::new(Mode::Real, &code).vps(2).others_wait();
    let Some(vm) = setup.build() else {
        return;
    };
    vm.attach();
    let pending = vm.only(1, VpAction::Run);
    interrupt(&vm, pending);
}

#[test]
fn a_guest_in_hlt_is_stopped_and_says_so() {
    // out tell, al; hlt; jmp to the start
    let mut code = vec![0xe6, PORT_TELL, 0xf4];
    jump_to_start(&mut code);
    let Some(vm) = Setup::new(Mode::Long, &code).build() else {
        return;
    };
    vm.attach();
    let pending = vm.resume();
    vm.machine
        .wait_until("it is about to halt", |seen| !seen.told.is_empty());
    // The breaks before the guest gets there stop it on its way.
    let mut pending = pending;
    while vm.status_after_break(pending) != VpActivity::Halted {
        pending = vm.resume();
    }
    assert_eq!(vm.regs(0).rip, ENTRY + 3, "after the hlt");
    let pending = vm.resume();
    interrupt(&vm, pending);
    let activity = vm.status().vps[0].activity;
    assert_eq!(activity, VpActivity::Halted, "a stop does not wake it");
}

/// KVM copies the registers out with the exit of a step, and copies none out while nothing can stop the guest.
#[test]
fn registers_after_a_free_run_are_not_those_of_the_step_before() {
    // inc ebx; mov [0x6000], ebx: no exit to the VMM
    let mut counts = vec![0xff, 0xc3, 0x89, 0x1c, 0x25, 0, 0x60, 0, 0];
    jump_to_start(&mut counts);
    let Some(vm) = Setup::new(Mode::Long, &counts).build() else {
        return;
    };
    vm.attach();
    let count = || vm.machine.raw_memory()[0x6000..0x6004].to_vec();
    for _ in 0..5 {
        vm.step(0);
        let (before, counted) = (vm.regs(0).gp[3], count());
        let pending = vm.resume();
        while count() == counted {
            std::thread::yield_now();
        }
        interrupt(&vm, pending);
        assert!(vm.regs(0).gp[3] > before);
    }
}
