//! A loop with a timer at 1 kHz. The timer's handler counts the ticks and records the guest's time.

use super::guest::PIT_HZ;
use super::guest::PIT_PERIOD;
use super::*;
use crate::amount::patience;
use std::time::Instant;
use vmm_core_defs::addr::GuestAddress;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::debug_rpc::DebugRequest;

const IDT: u64 = ENTRY + 0x100;
const VECTORS: u64 = 0x21;
const IDT_POINTER: u64 = IDT + VECTORS * 16;
/// Three words: the number of ticks, and the time stamp counter at the first and at the last tick.
const COUNTS: u64 = 0x5000;

/// The handler reports every 64th tick. An exit to the VMM for each tick would take a busy host more than a
/// millisecond.
const TICKS_PER_TELL: u8 = 64;

/// The address of the loop: `inc rbx`, `nop`, `nop` and a jump back.
pub const LOOP: u64 = ENTRY + 44;
/// The address of the instruction behind the increment. A breakpoint here is hit once per turn.
pub const SITE: u64 = LOOP + 3;
/// The first address behind the loop.
pub const LOOP_END: u64 = SITE + 4;

/// A loop of `hlt`, in which the guest takes its ticks and leaves the CPU to others.
pub const IDLE: u64 = LOOP_END;

/// The addresses of the loop's instructions.
pub const IN_LOOP: [u64; 4] = [LOOP, SITE, SITE + 1, SITE + 2];

/// A third loop: executes `int3` RBP times. The handler counts and returns.
pub const TRAPS: u64 = ENTRY + 0x400;
/// The instruction behind the `int3`.
pub const BEHIND_TRAP: u64 = TRAPS + 1;
/// The address behind the last `int3`.
pub const TRAPS_END: u64 = TRAPS + 5;
/// The first instruction of the handler.
pub const TRAP_HANDLER: u64 = TRAPS_END + 3;

/// Two words: how often the handler of vector 3 ran with the correct return address and flags, and how often with
/// others.
const TRAP_COUNTS: u64 = COUNTS + 24;

/// The values that the handler records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticks {
    /// The number of ticks.
    pub count: u64,
    /// The time stamp counter at the first tick.
    pub first: u64,
    /// The time stamp counter at the last tick.
    pub last: u64,
}

/// Long mode: the PIT at 1 kHz on vector 20h, then the loop with interrupts on. RBX counts the turns.
pub fn ticking_loop() -> Vec<u8> {
    let absolute = |opcode: &[u8], address: u64| {
        let [b0, b1, b2, b3, ..] = address.to_le_bytes();
        [opcode, &[0x25, b0, b1, b2, b3]].concat()
    };
    // cli; lidt
    let mut code = vec![0xfa];
    code.extend(absolute(&[0x0f, 0x01, 0x1c], IDT_POINTER));
    code.extend(timer_at_1_khz());
    // xor ebx, ebx; sti
    code.extend([0x31, 0xdb, 0xfb]);
    assert_eq!(code.len() as u64, LOOP - ENTRY);
    code.extend([0x48, 0xff, 0xc3, 0x90, 0x90, 0xeb, 0xf9]);
    assert_eq!(code.len() as u64, IDLE - ENTRY);
    code.extend([0xf4, 0xeb, 0xfd]);
    let handler = ENTRY + code.len() as u64;
    // push rax; push rdx; rdtsc
    code.extend([0x50, 0x52, 0x0f, 0x31]);
    // cmp qword [count], 0; jne 1f; mov [first], eax; mov [first + 4], edx
    code.extend(absolute(&[0x48, 0x83, 0x3c], COUNTS));
    code.extend([0, 0x75, 14]);
    code.extend(absolute(&[0x89, 0x04], COUNTS + 8));
    code.extend(absolute(&[0x89, 0x14], COUNTS + 12));
    // 1: mov [last], eax; mov [last + 4], edx; inc qword [count]
    code.extend(absolute(&[0x89, 0x04], COUNTS + 16));
    code.extend(absolute(&[0x89, 0x14], COUNTS + 20));
    code.extend(absolute(&[0x48, 0xff, 0x04], COUNTS));
    // mov al, 20h; out 20h, al; test byte [count], 63; jnz 2f; out tell, al; 2: pop rdx; pop rax; iretq
    code.extend([0xb0, 0x20, 0xe6, 0x20]);
    code.extend(absolute(&[0xf6, 0x04], COUNTS));
    code.extend([TICKS_PER_TELL - 1, 0x75, 2, 0xe6, PORT_TELL]);
    code.extend([0x5a, 0x58, 0x48, 0xcf]);

    assert!(code.len() as u64 <= IDT - ENTRY);
    let mut gate = |vector: u64, handler: u64| {
        let [b0, b1, b2, b3, ..] = handler.to_le_bytes();
        code.resize(usize::try_from(IDT + 16 * vector - ENTRY).unwrap(), 0);
        code.extend([b0, b1, 8, 0, 0, 0x8e, b2, b3, 0, 0, 0, 0, 0, 0, 0, 0]);
    };
    gate(3, TRAP_HANDLER);
    gate(VECTORS - 1, handler);
    code.extend(u16::try_from(VECTORS * 16 - 1).unwrap().to_le_bytes());
    code.extend(IDT.to_le_bytes());
    code.resize(usize::try_from(TRAPS - ENTRY).unwrap(), 0);
    code.extend(traps());
    code
}

fn traps() -> Vec<u8> {
    let count = |n: u64| {
        let [b0, b1, b2, b3, ..] = (TRAP_COUNTS + 8 * n).to_le_bytes();
        // inc qword [count]; iretq
        [0x48, 0xff, 0x04, 0x25, b0, b1, b2, b3, 0x48, 0xcf]
    };
    // int3; dec ebp; jnz; 1: hlt; jmp 1b
    let mut code = vec![0xcc, 0xff, 0xcd, 0x75, 0xfb, 0xf4, 0xeb, 0xfd];
    assert_eq!(code.len() as u64, TRAP_HANDLER - TRAPS);
    // cmp qword [rsp], behind; jne 1f; test word [rsp + 16], TF; jnz 1f
    let [b0, b1, b2, b3, ..] = BEHIND_TRAP.to_le_bytes();
    code.extend([0x48, 0x81, 0x3c, 0x24, b0, b1, b2, b3, 0x75, 19]);
    code.extend([0x66, 0xf7, 0x44, 0x24, 16, 0, 1, 0x75, 10]);
    code.extend(count(0));
    // 1:
    code.extend(count(1));
    code
}

/// How often the handler of vector 3 ran with correct values, and how often with others.
pub fn traps_handled(vm: &TestVm) -> (u64, u64) {
    let address = GuestAddress::Gpa(Gpa::new(TRAP_COUNTS));
    let bytes = vm.call(DebugRequest::ReadMemory, (address, 16)).unwrap();
    let word = |n: usize| u64::from_le_bytes(bytes[8 * n..8 * n + 8].try_into().unwrap());
    (word(0), word(1))
}

/// The values that the handler has recorded so far.
pub fn ticks(vm: &TestVm) -> Ticks {
    let address = GuestAddress::Gpa(Gpa::new(COUNTS));
    let bytes = vm.call(DebugRequest::ReadMemory, (address, 24)).unwrap();
    let word = |n: usize| u64::from_le_bytes(bytes[8 * n..8 * n + 8].try_into().unwrap());
    Ticks {
        count: word(0),
        first: word(1),
        last: word(2),
    }
}

/// Runs the guest until its handler has run at least `more` times.
pub fn let_it_tick(vm: &TestVm, more: u64) {
    let tells = usize::try_from(more.div_ceil(TICKS_PER_TELL.into())).unwrap();
    let told = vm.machine.wait_until("now", |_| true).told.len();
    let pending = vm.resume();
    vm.machine
        .wait_until("it ticks", |seen| seen.told.len() >= told + tells);
    interrupt(vm, pending);
}

/// The tolerance: ticks in flight, or one tick too many. The handler reads the clock before it counts, and a busy host
/// delivers late.
const SLACK: u64 = 20;

/// The guest in its loop, with the timer running, stopped at `breakpoint`. `None`, with the reason printed, if it
/// cannot run.
pub fn standing_at(breakpoint: Breakpoint) -> Option<TestVm> {
    let vm = Setup::new(Mode::Long, &ticking_loop()).build()?;
    vm.attach();
    let_it_tick(&vm, 10);
    vm.insert(breakpoint);
    assert_eq!(stop(vm.resume()), hit(0, breakpoint));
    Some(vm)
}

/// The number of ticks that the PIT owes the guest for the time between its first and its last tick, according to the
/// time stamp counter.
fn owed(vm: &TestVm, ticks: Ticks) -> u64 {
    let tsc_hz = 1000
        * u64::from(
            vm.machine
                .tsc_khz
                .expect("KVM tells the guest's TSC frequency"),
        );
    let passed = u128::from(ticks.last - ticks.first);
    let periods = passed * u128::from(PIT_HZ) / (u128::from(tsc_hz) * u128::from(PIT_PERIOD));
    u64::try_from(periods).expect("some hours at most")
}

/// Asserts that no tick is lost. KVM's PIT counts every period and delivers one interrupt for each. It delivers the
/// next when the guest has acknowledged the last, so a delayed guest gets its ticks afterwards. Given enough time, the
/// guest has as many ticks as its clock has periods.
pub fn every_tick_is_delivered(vm: &TestVm) {
    let mut regs = vm.regs(0);
    regs.rip = IDLE;
    vm.try_set_regs(0, regs).unwrap();
    // The last tick is the guest's clock, so wait for a tick after the count.
    let_it_tick(vm, 64);
    let mut now = ticks(vm);
    let late = owed(vm, now).saturating_sub(now.count);
    let start = Instant::now();
    let mut steady = 0;
    while now.count + SLACK < owed(vm, now) {
        let before = now;
        let_it_tick(vm, 500);
        now = ticks(vm);
        // Ticks arrive when they are due, one for each period, and others are missing: those are lost.
        let came = now.count - before.count;
        let due = owed(vm, now) - owed(vm, before);
        steady = if came.abs_diff(due) * 100 <= due {
            steady + 1
        } else {
            0
        };
        let missing = owed(vm, now).saturating_sub(now.count);
        assert!(
            steady < 5 || missing <= SLACK,
            "{missing} ticks are lost: {now:?}"
        );
        // KVM delivers each tick from a separate thread, which has to be scheduled.
        if start.elapsed() > patience() {
            println!(
                "SKIP: this machine is too busy for 1,000 ticks a second: {missing} are still to come"
            );
            return;
        }
    }
    let owed = owed(vm, now);
    println!(
        "{} ticks delivered for {owed} periods, {late} of them late",
        now.count
    );
    // The clock counts from the first tick, which may have been late.
    assert!(
        now.count <= owed + owed / 100 + 1_000,
        "{} ticks for {owed} periods",
        now.count
    );
}
