//! The scenarios of the KVM project's own test of guest debugging, as requests: breakpoints in each debug register on
//! execution and on writes, and single steps over instructions that KVM carries out itself while an interrupt is
//! pending. `guest_debug.rs` tests the guest's own DR0-3, DR7.GD and `INT3`.

use test_machine::machine;

use machine::guest::*;
use machine::recorder::*;
use machine::*;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::*;
use vmm_core_defs::capability::CapabilityKind;
use vmm_core_defs::debug_rpc::*;
use vmm_core_defs::stop::DebugStopReason;

fn watch_at(address: u64) -> Breakpoint {
    Breakpoint {
        kind: BreakpointKind::Write,
        address: Gva::new(address),
        len: 4,
    }
}

fn on_register(vm: &TestVm) -> usize {
    let list = vm.call(DebugRequest::Breakpoints, ()).unwrap();
    match list.last().map(|last| &last.arming) {
        Some(Arming::DebugRegister { number, .. }) => *number,
        other => panic!("not on a debug register: {other:?}"),
    }
}

/// Tests each register number. The lower registers hold breakpoints that no VP reaches.
fn each_number(wanted: Breakpoint, stopped_at: u64) {
    let turns = vec![0x90; 3];
    let Some(vm) = Setup::new(Mode::Long, &program(Mode::Long, &[], &turns)).build() else {
        return;
    };
    vm.attach();
    for number in 0..4 {
        let change = vec![BreakpointChange::Insert(wanted)];
        match vm.call(DebugRequest::SetDebugState, change) {
            Err(DebugError::Unsupported(why)) => {
                println!("SKIP: {why}");
                return;
            }
            other => other.unwrap(),
        }
        assert_eq!(on_register(&vm), number);
        let (vp, breakpoint) = (VpIndex::BSP, wanted);
        let reason = match wanted.kind {
            BreakpointKind::Execute => hit(0, wanted),
            _ => DebugStopReason::Watchpoint {
                vp,
                breakpoint,
                address: wanted.address,
            },
        };
        assert_eq!(stop(vm.resume()), reason, "DR{number}");
        assert_eq!(vm.regs(0).rip, stopped_at, "DR{number}");
        let turns = u32::from_le_bytes(vm.read_gva(0, TURNS, 4).unwrap().try_into().unwrap());
        let before = u32::from(wanted.kind == BreakpointKind::Execute);
        assert_eq!(turns as usize, number + 1 - before as usize, "DR{number}");
        vm.remove(wanted);
        vm.insert(execute_at(0x7000 + number as u64));
        assert_eq!(on_register(&vm), number, "its place is taken");
    }
    assert_eq!(records(&vm.machine), [], "the guest knows nothing of it");
    let guests = vm.regs(0).debug;
    assert_eq!((guests.dr6, guests.dr7), (0xffff_0ff0, 0x400));
}

#[test]
fn each_debug_register_stops_execution_before_the_instruction() {
    each_number(execute_at(LOOP), LOOP);
}

#[test]
fn each_debug_register_stops_after_a_write() {
    each_number(watch_at(TURNS), BODY);
}

/// Long mode. Turns the x2APIC on, keeps the value of MSR 1A0h, sends vector 20h to itself with interrupts off, and
/// turns interrupts on.
const SELF_IPI: &[u8] = &[
    0xb9, 0x1b, 0x00, 0x00, 0x00, // mov ecx, 1bh
    0x0f, 0x32, // rdmsr
    0x0d, 0x00, 0x0c, 0x00, 0x00, // or eax, 0c00h
    0x0f, 0x30, // wrmsr
    0xb9, 0x0f, 0x08, 0x00, 0x00, // mov ecx, 80fh
    0xb8, 0xff, 0x01, 0x00, 0x00, // mov eax, 1ffh
    0x31, 0xd2, // xor edx, edx
    0x0f, 0x30, // wrmsr
    0xb9, 0xa0, 0x01, 0x00, 0x00, // mov ecx, 1a0h
    0x0f, 0x32, // rdmsr
    0x89, 0xc6, // mov esi, eax
    0x89, 0xd7, // mov edi, edx
    0xb9, 0x3f, 0x08, 0x00, 0x00, // mov ecx, 83fh
    0xb8, 0x20, 0x00, 0x00, 0x00, // mov eax, 20h
    0x31, 0xd2, // xor edx, edx
    0x0f, 0x30, // wrmsr
    0xfb, // sti
];

/// The six instructions and their lengths; then `nop; jmp` to it.
const STEPPED: &[u8] = &[
    0x31, 0xc0, // xor eax, eax
    0x0f, 0xa2, // cpuid
    0xb9, 0xa0, 0x01, 0x00, 0x00, // mov ecx, 1a0h
    0x89, 0xf0, // mov eax, esi
    0x89, 0xfa, // mov edx, edi
    0x0f, 0x30, // wrmsr
    0x90, 0xeb, 0xfd, // nop; jmp $-1
];
const LENGTHS: [u64; 6] = [2, 2, 5, 2, 2, 2];

/// `push rax; push rcx; push rdx; inc dword [5000h]; mov ecx, 80bh; xor eax, eax; xor edx, edx; wrmsr; out tell, al; pop rdx; pop rcx; pop rax; iretq`
const HANDLER: &[u8] = &[
    0x50, 0x51, 0x52, 0xff, 0x04, 0x25, 0x00, 0x50, 0x00, 0x00, 0xb9, 0x0b, 0x08, 0x00, 0x00, 0x31,
    0xc0, 0x31, 0xd2, 0x0f, 0x30, 0xe6, PORT_TELL, 0x5a, 0x59, 0x58, 0x48, 0xcf,
];
const HANDLER_AT: u64 = 0x3000;
const INTERRUPTS: u64 = 0x9000;

#[test]
fn six_steps_over_cpuid_and_wrmsr_with_an_interrupt_pending_take_it_only_afterwards() {
    let first = ENTRY + SELF_IPI.len() as u64;
    let code = [SELF_IPI, STEPPED].concat();
    let Some(vm) = Setup::new(Mode::Long, &code).build() else {
        return;
    };
    let host = vm.attach().capabilities;
    if let Some(missing) = host.missing(CapabilityKind::InterruptsHeld) {
        println!("SKIP: {missing}");
        return;
    }
    vm.write_gva(0, HANDLER_AT, HANDLER).unwrap();
    let [low, high, ..] = HANDLER_AT.to_le_bytes();
    let gate = [low, high, 8, 0, 0, 0x8e, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    vm.write_gva(0, INTERRUPTS + 0x20 * 16, &gate).unwrap();
    let mut regs = vm.regs(0);
    (regs.idtr.base, regs.idtr.limit) = (INTERRUPTS, 0x20 * 16 + 15);
    vm.try_set_regs(0, regs).unwrap();
    vm.insert(execute_at(first));
    assert_eq!(stop(vm.resume()), hit(0, execute_at(first)));
    vm.remove(execute_at(first));
    let taken = || u32::from_le_bytes(vm.read_gva(0, 0x5000, 4).unwrap().try_into().unwrap());
    let mut rip = first;
    for len in LENGTHS {
        vm.step(0);
        rip += len;
        assert_eq!((vm.regs(0).rip, taken()), (rip, 0));
    }
    assert_ne!(vm.regs(0).rflags & 0x200, 0, "interrupts were on all along");
    let pending = vm.resume();
    vm.machine
        .wait_until("the interrupt comes", |seen| !seen.told.is_empty());
    interrupt(&vm, pending);
    assert_eq!(taken(), 1);
}
