//! The guest's clocks and timers over a stop, on real guests. The tests wait, because the time that passes during a
//! stop is their subject.

use test_machine::machine;
use vmm_core_defs::regs::x86_64::bits::msr;

use kvm_ioctls::Kvm;
use machine::guest::*;
use machine::*;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::GuestAddress;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::*;
use vmm_core_defs::stop::DebugStopReason;

/// Much longer than a busy host takes to run a guest again, and short for a test.
const STOP: Duration = Duration::from_secs(2);
/// The maximum jump that the guest may see over such a stop, including the time in which it runs.
const SLACK: Duration = Duration::from_millis(500);

/// The address at which the loops store their time-stamp counter.
const SEEN: Gpa = Gpa::new(0x5000);
/// The address at which VP 1 counts how often VP 0's counter was ahead of its own.
const AHEAD: Gpa = Gpa::new(0x5010);
const KVMCLOCK: Gpa = Gpa::new(0x6000);

const MSR_APIC_BASE: u32 = 0x1b;
const MSR_KVM_SYSTEM_TIME_NEW: u32 = 0x4b56_4d01;
const X2APIC_SPURIOUS: u32 = 0x80f;
/// Interrupts requested, vectors 40h to 5fh.
const X2APIC_IRR2: u32 = 0x822;
const X2APIC_LVT_TIMER: u32 = 0x832;
const X2APIC_INITIAL_COUNT: u32 = 0x838;
const X2APIC_CURRENT_COUNT: u32 = 0x839;
const X2APIC_DIVIDE: u32 = 0x83e;

/// Long mode: `rdtsc; shl rdx, 32; or rax, rdx; mov [5000h], rax; jmp` back.
const WATCH: [u8; 19] = [
    0x0f, 0x31, 0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09, 0xd0, 0x48, 0x89, 0x04, 0x25, 0, 0x50, 0, 0,
    0xeb, 0xed,
];

/// VP 0 as above. The others: `mov rsi, [5000h]; xor eax, eax; cpuid; rdtsc; shl rdx, 32; or rax, rdx; mov [5008h], rax; cmp rax, rsi; jae` back,
/// or `inc qword [5010h]; jmp` back.
const COMPARE: [u8; 67] = [
    0x85, 0xc0, 0x75, 0x13, 0x0f, 0x31, 0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09, 0xd0, 0x48, 0x89, 0x04,
    0x25, 0, 0x50, 0, 0, 0xeb, 0xed, 0x48, 0x8b, 0x34, 0x25, 0, 0x50, 0, 0, 0x31, 0xc0, 0x0f, 0xa2,
    0x0f, 0x31, 0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09, 0xd0, 0x48, 0x89, 0x04, 0x25, 0x08, 0x50, 0, 0,
    0x48, 0x39, 0xf0, 0x73, 0xde, 0x48, 0xff, 0x04, 0x25, 0x10, 0x50, 0, 0, 0xeb, 0xd4,
];

/// Time passes while the guest is stopped.
fn pass(time: Duration) {
    thread::sleep(time);
}

/// Converts a time to ticks of the counter.
fn ticks(time: Duration) -> u64 {
    let vm = Kvm::new().unwrap().create_vm().unwrap();
    let khz = vm.create_vcpu(0).unwrap().get_tsc_khz().unwrap();
    u64::try_from(time.as_micros()).unwrap() * u64::from(khz) / 1000
}

fn word(vm: &TestVm, gpa: Gpa) -> u64 {
    let read = vm.call(DebugRequest::ReadMemory, (GuestAddress::Gpa(gpa), 8));
    u64::from_le_bytes(read.unwrap().try_into().unwrap())
}

fn msr(vm: &TestVm, msr: u32) -> u64 {
    vm.call(DebugRequest::ReadMsr, (VpIndex::BSP, msr)).unwrap()
}

fn set_msr(vm: &TestVm, msr: u32, value: u64) {
    let set = (VpIndex::BSP, msr, value);
    vm.call(DebugRequest::WriteMsr, set).unwrap();
}

/// Runs the guest until the stored counter is greater than `tsc`.
fn run_past(vm: &TestVm, at: Gpa, tsc: u64) {
    let pending = vm.resume();
    let end = Instant::now() + Duration::from_secs(60);
    while word(vm, at) <= tsc {
        assert!(
            Instant::now() < end,
            "the guest's counter does not get there"
        );
        thread::yield_now();
    }
    interrupt(vm, pending);
}

/// Runs the guest for a short time.
fn run_on(vm: &TestVm, at: Gpa) {
    run_past(vm, at, word(vm, at));
}

/// A guest that has run. `None`, with the reason printed, if it cannot.
fn watching(setup: Setup) -> Option<TestVm> {
    let vm = setup.build()?;
    vm.attach();
    let freezes = vm.call(DebugRequest::FreezeTime, Some(FreezeTime::On));
    if let Err(err) = freezes {
        println!("SKIP: {err}");
        return None;
    }
    run_on(&vm, SEEN);
    Some(vm)
}

fn watcher() -> Option<TestVm> {
    watching(Setup::new(Mode::Long, &WATCH))
}

fn freeze(vm: &TestVm, freeze: FreezeTime) {
    let now = vm.call(DebugRequest::FreezeTime, Some(freeze)).unwrap();
    assert_eq!(now, freeze);
}

/// The jump of the guest's counter over a stop, in ticks.
fn jump(vm: &TestVm, stop: Duration) -> u64 {
    let before = word(vm, SEEN);
    pass(stop);
    // The guest goes round the loop, so that the stored value was read after the stop.
    for _ in 0..10 {
        vm.step(0);
    }
    let after = word(vm, SEEN);
    assert!(after > before, "the counter went back, {before} to {after}");
    after - before
}

#[test]
fn a_stop_takes_no_time_that_the_guest_sees() {
    let Some(vm) = watcher() else { return };
    assert!(jump(&vm, STOP) < ticks(SLACK));
    run_on(&vm, SEEN);
    assert!(jump(&vm, STOP) < ticks(SLACK));
    // Shows that the test can fail:
    freeze(&vm, FreezeTime::Off);
    run_on(&vm, SEEN);
    assert!(jump(&vm, STOP) >= ticks(STOP));
    freeze(&vm, FreezeTime::On);
    assert!(jump(&vm, STOP) < ticks(SLACK));
}

#[test]
fn what_the_guest_ran_is_all_that_its_clock_shows() {
    let Some(vm) = watcher() else { return };
    let before = word(&vm, SEEN);
    let mut worked = Duration::ZERO;
    // Fast steps over instructions that read no clock, slow steps, and steps over instructions that read the clock.
    for _ in 0..8 {
        let begun = Instant::now();
        for _ in 0..25 {
            vm.step(0);
        }
        worked += begun.elapsed();
        pass(SLACK);
    }
    let begun = Instant::now();
    run_on(&vm, SEEN);
    worked += begun.elapsed();
    let seen = word(&vm, SEEN) - before;
    let most = ticks(worked + SLACK);
    assert!(seen <= most, "{seen} ticks were seen, of {most} at most");
}

#[test]
fn kvmclock_stands_with_the_counter() {
    let Some(vm) = watcher() else { return };
    // Bit 0 turns it on (KVM's msr.rst).
    let on = (VpIndex::BSP, MSR_KVM_SYSTEM_TIME_NEW, KVMCLOCK.value() | 1);
    if let Err(err) = vm.call(DebugRequest::WriteMsr, on) {
        return println!("SKIP: this KVM has no kvmclock: {err}");
    }
    let clock = |vm: &TestVm| {
        run_on(vm, SEEN);
        kvmclock(vm, word(vm, SEEN))
    };
    let stop = |vm: &TestVm| {
        let before = clock(vm);
        pass(STOP);
        let after = clock(vm);
        assert!(after >= before, "kvmclock went back, {before} to {after}");
        Duration::from_nanos(after - before)
    };
    assert!(stop(&vm) < SLACK);
    freeze(&vm, FreezeTime::Off);
    assert!(stop(&vm) >= STOP);
    // The flag that reports the stop to the guest (PVCLOCK_GUEST_STOPPED).
    let flags = word(&vm, Gpa::new(KVMCLOCK.value() + 0x18)) >> 40 & 0xff;
    assert_eq!(flags & 2, 2, "flags {flags:#x}");
}

/// The sum of many stops. Linux marks a counter as unstable that is off by 125 us in half a second.
#[test]
fn kvmclock_and_the_counter_stay_together_over_many_stops() {
    const STOPS: u32 = 200;
    const APART: u64 = 60_000;
    let Some(vm) = watcher() else { return };
    let on = (VpIndex::BSP, MSR_KVM_SYSTEM_TIME_NEW, KVMCLOCK.value() | 1);
    if let Err(err) = vm.call(DebugRequest::WriteMsr, on) {
        return println!("SKIP: this KVM has no kvmclock: {err}");
    }
    let both = || {
        run_on(&vm, SEEN);
        let tsc = word(&vm, SEEN);
        (tsc, kvmclock(&vm, tsc))
    };
    let (tsc, clock) = both();
    for _ in 0..STOPS {
        run_on(&vm, SEEN);
    }
    let (later_tsc, later_clock) = both();
    let by_tsc =
        u128::from(later_tsc - tsc) * 1_000_000_000 / u128::from(ticks(Duration::from_secs(1)));
    let by_tsc = u64::try_from(by_tsc).unwrap();
    let apart = by_tsc.abs_diff(later_clock - clock);
    println!("{apart} ns apart after {STOPS} stops in {by_tsc} ns");
    assert!(
        apart < APART,
        "kvmclock and the counter are {apart} ns apart"
    );
}

/// The guest's computation with the page (`pvclock.rst`): ns = system time + (counter - counter at that time) * 2^shift
/// * factor / 2^32.
fn kvmclock(vm: &TestVm, tsc: u64) -> u64 {
    let at = |offset| word(vm, Gpa::new(KVMCLOCK.value() + offset));
    let (stamp, system, scale) = (at(8), at(16), at(24));
    let (factor, shift) = (scale & 0xffff_ffff, (scale >> 32).to_le_bytes()[0]);
    let delta = u128::from(tsc.saturating_sub(stamp));
    let shifted = match shift.cast_signed() {
        shift @ 0.. => delta << shift,
        shift => delta >> -shift,
    };
    system + u64::try_from((shifted * u128::from(factor)) >> 32).unwrap()
}

/// Switches the local APIC to x2APIC mode, with `mode` (bits 17 and 18 of its entry) for the timer at vector 40h.
fn apic_timer(vm: &TestVm, mode: u64) {
    let base = msr(vm, MSR_APIC_BASE);
    set_msr(vm, MSR_APIC_BASE, base | 0x800);
    set_msr(vm, MSR_APIC_BASE, base | 0xc00);
    set_msr(vm, X2APIC_SPURIOUS, 0x1ff);
    set_msr(vm, X2APIC_LVT_TIMER, mode << 17 | 0x40);
    // Divide by 1.
    set_msr(vm, X2APIC_DIVIDE, 0b1011);
}

/// Whether the timer's interrupt has been requested. The guest takes no interrupt.
fn fired(vm: &TestVm) -> bool {
    msr(vm, X2APIC_IRR2) & 1 != 0
}

#[test]
fn a_deadline_that_passes_during_a_stop_is_met_when_the_guest_gets_there() {
    for frozen in [FreezeTime::On, FreezeTime::Off] {
        let Some(vm) = watcher() else { return };
        apic_timer(&vm, 2);
        freeze(&vm, frozen);
        let deadline = msr(&vm, msr::TSC) + ticks(SLACK);
        set_msr(&vm, msr::TSC_DEADLINE, deadline);
        if msr(&vm, msr::TSC_DEADLINE) != deadline {
            return println!("SKIP: this KVM has no deadline timer");
        }
        run_on(&vm, SEEN);
        assert!(!fired(&vm));
        pass(STOP);
        if frozen == FreezeTime::On {
            assert_eq!(msr(&vm, msr::TSC_DEADLINE), deadline, "as the guest has it");
        }
        run_on(&vm, SEEN);
        let early = word(&vm, SEEN) < deadline;
        assert_eq!(early, frozen == FreezeTime::On, "{frozen:?}");
        assert_eq!(fired(&vm), !early, "{frozen:?}");
        run_past(&vm, SEEN, deadline + ticks(SLACK));
        assert!(fired(&vm), "{frozen:?}");
    }
}

#[test]
fn a_counting_timer_has_left_what_it_had() {
    let Some(vm) = watcher() else { return };
    apic_timer(&vm, 0);
    // Ten seconds.
    set_msr(&vm, X2APIC_INITIAL_COUNT, 2_500_000_000);
    set_msr(&vm, X2APIC_DIVIDE, 0b0001);
    set_msr(&vm, X2APIC_INITIAL_COUNT, 2_500_000_000);
    let left = |vm: &TestVm| {
        run_on(vm, SEEN);
        msr(vm, X2APIC_CURRENT_COUNT)
    };
    let counted = |time: Duration| u64::try_from(time.as_nanos()).unwrap() / 4;
    let before = left(&vm);
    pass(STOP);
    let after = left(&vm);
    assert!(before - after < counted(SLACK), "{before} to {after}");
    freeze(&vm, FreezeTime::Off);
    let before = left(&vm);
    pass(STOP);
    let after = left(&vm);
    assert!(before - after >= counted(STOP), "{before} to {after}");
}

#[test]
fn a_count_that_runs_down_during_a_stop_has_not() {
    let Some(vm) = watcher() else { return };
    apic_timer(&vm, 0);
    // Half a second.
    set_msr(&vm, X2APIC_INITIAL_COUNT, 500_000_000);
    run_on(&vm, SEEN);
    assert!(!fired(&vm));
    pass(STOP);
    run_on(&vm, SEEN);
    let left = msr(&vm, X2APIC_CURRENT_COUNT);
    assert!(!fired(&vm) && left > 0, "{left} left");
    run_past(&vm, SEEN, word(&vm, SEEN) + ticks(STOP));
    assert!(fired(&vm));
}

#[test]
fn the_counters_of_all_vps_stay_alike() {
    let Some(vm) = watching(Setup::new(Mode::Long, &COMPARE).vps(2)) else {
        return;
    };
    let other = Gpa::new(0x5008);
    run_past(&vm, other, word(&vm, SEEN));
    for round in 0..40 {
        match round % 4 {
            0 => vm.step(0),
            1 => vm.step(1),
            2 => pass(Duration::from_millis(20)),
            _ => {}
        }
        run_past(&vm, other, word(&vm, SEEN));
        run_past(&vm, SEEN, word(&vm, other));
        assert_eq!(word(&vm, AHEAD), 0, "in round {round}");
    }
}

#[test]
fn time_stands_after_a_detach_that_stays_and_goes_on_after_one_that_does_not() {
    let Some(vm) = watcher() else { return };
    let before = word(&vm, SEEN);
    vm.detach(DetachAction::Stay);
    pass(STOP);
    vm.attach();
    pass(STOP);
    vm.detach(DetachAction::Resume);
    let attached = vm.attach();
    assert_eq!(attached.stop.reason, DebugStopReason::Break);
    run_on(&vm, SEEN);
    let seen = word(&vm, SEEN) - before;
    assert!(seen < ticks(SLACK), "{seen}");
}

#[test]
fn a_reset_after_a_long_stop_leaves_the_clock_where_it_stood() {
    let Some(vm) = watcher() else { return };
    let before = word(&vm, SEEN);
    pass(STOP);
    vm.call(DebugRequest::Reset, ()).unwrap();
    pass(STOP);
    run_on(&vm, SEEN);
    let after = word(&vm, SEEN);
    assert!(
        after > before && after - before < ticks(SLACK),
        "{before} to {after}"
    );
}

/// The address of the loop of the ticking guest.
const LOOP: u64 = ENTRY + 51;
/// The address of its counter. Its ticks are the 16 bits at [`SEEN`].
const TICKING: Gpa = Gpa::new(0x5004);

/// Real mode: the PIT at 1 kHz, then `inc bx; rdtsc; mov [5004h], eax; mov [5008h], edx; jmp` with interrupts on, and a
/// handler that counts the interrupts.
fn ticking() -> Vec<u8> {
    let [low, high, ..] = (LOOP + 14).to_le_bytes();
    let mut code = vec![0xfa, 0xbc, 0x00, 0x30];
    code.extend(timer_at_1_khz());
    // mov word [80h], handler; mov word [82h], 0; xor bx, bx; sti
    code.extend([0xc7, 0x06, 0x80, 0, low, high, 0xc7, 0x06, 0x82, 0, 0, 0]);
    code.extend([0x31, 0xdb, 0xfb]);
    assert_eq!(code.len() as u64, LOOP - ENTRY);
    code.extend([
        0x43, 0x0f, 0x31, 0x66, 0xa3, 4, 0x50, 0x66, 0x89, 0x16, 8, 0x50, 0xeb, 0xf2,
    ]);
    // inc word [5000h]; push ax; mov al, 20h; out 20h, al; pop ax; iret
    code.extend([
        0xff, 0x06, 0, 0x50, 0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf,
    ]);
    code
}

/// The number of ticks so far, and the counter.
fn ticked(vm: &TestVm) -> (u64, u64) {
    (word(vm, SEEN) & 0xffff, word(vm, TICKING))
}

/// A guest with a ticking timer.
fn in_the_loop() -> Option<TestVm> {
    let vm = Setup::new(Mode::Real, &ticking()).build()?;
    vm.attach();
    if let Err(err) = vm.call(DebugRequest::FreezeTime, Some(FreezeTime::On)) {
        println!("SKIP: {err}");
        return None;
    }
    run_past(&vm, TICKING, 0);
    run_past(
        &vm,
        TICKING,
        word(&vm, TICKING) + ticks(Duration::from_millis(20)),
    );
    Some(vm)
}

/// Runs the guest for some time of its own counter. Returns the number of ticks per second.
fn tick_rate(vm: &TestVm) -> u64 {
    let (ticks_before, before) = ticked(vm);
    run_past(vm, TICKING, before + ticks(Duration::from_millis(100)));
    let (ticks_after, after) = ticked(vm);
    (ticks_after - ticks_before) * ticks(Duration::from_secs(1)) / (after - before)
}

#[test]
fn the_pit_ticks_on_after_a_stop_as_if_there_had_been_none() {
    let Some(vm) = in_the_loop() else { return };
    // A busy host delivers fewer than a thousand.
    let usual = tick_rate(&vm);
    assert!(usual > 0);
    pass(STOP);
    let after = tick_rate(&vm);
    assert!(
        after > usual / 8,
        "{usual} ticks a second before the stop, {after} after it"
    );
    // If the ticks of two seconds were delivered in a tenth of a second, the rate would be twenty times as high.
    assert!(
        after < 5000,
        "{usual} ticks a second before the stop, {after} after it"
    );
}
