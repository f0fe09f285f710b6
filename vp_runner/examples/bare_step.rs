//! The cost of a step on this host without a debugger: the lower bound for every measurement of stepping.
//!
//! Prints one JSON line. `run_us` is the median of `KVM_RUN` alone with single-stepping on. `full_us` also contains the
//! calls that every debugger needs, `KVM_SET_GUEST_DEBUG` before and `KVM_GET_REGS` after the step. In microseconds,
//! with a guest of five instructions in long mode.

use kvm_bindings::KVM_GUESTDBG_ENABLE;
use kvm_bindings::KVM_GUESTDBG_SINGLESTEP;
use kvm_bindings::kvm_guest_debug;
use kvm_ioctls::VcpuExit;
use std::error::Error;
use std::hint::black_box;
use std::time::Duration;
use std::time::Instant;
use vp_runner::kvm::x86_64::ScratchVm;
use vp_runner::kvm::x86_64::StartIn;
use vp_runner::probe::open_kvm;

const STEPS: usize = 2000;
const CODE: u64 = 0x800;
/// `nop; nop; nop; nop; jmp` back.
const LOOP: [u8; 6] = [0x90, 0x90, 0x90, 0x90, 0xeb, 0xfa];

fn main() -> Result<(), Box<dyn Error>> {
    let mut scratch = ScratchVm::new(&open_kvm()?, 0x1000)?;
    scratch.load(&LOOP, CODE)?;
    scratch.start(StartIn::Long, CODE, 0xf00)?;
    let debug = kvm_guest_debug {
        control: KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP,
        ..Default::default()
    };
    scratch.vcpu().set_guest_debug(&debug)?;
    // The first steps include page faults.
    median(STEPS / 10, || step(&mut scratch))?;
    let run = median(STEPS, || step(&mut scratch))?;
    let full = median(STEPS, || {
        scratch.vcpu().set_guest_debug(&debug)?;
        step(&mut scratch)?;
        black_box(scratch.vcpu().get_regs()?);
        Ok(())
    })?;
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    println!("{{\"run_us\":{:.2},\"full_us\":{:.2}}}", us(run), us(full));
    Ok(())
}

fn step(scratch: &mut ScratchVm) -> Result<(), Box<dyn Error>> {
    match scratch.vcpu_mut().run()? {
        VcpuExit::Debug(_) => Ok(()),
        other => Err(format!(
            "a step ended with {other:?}; see what `trapgate doctor` says of single steps"
        )
        .into()),
    }
}

fn median(
    times: usize,
    mut work: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<Duration, Box<dyn Error>> {
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        let begun = Instant::now();
        work()?;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    Ok(took[times / 2])
}
