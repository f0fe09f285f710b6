//! The cost of the hook at `KVM_RUN` to a VMM with a run loop of its own.
//!
//! A guest writes to a port in a loop, so that each entry ends with an exit to the VMM. The VMM makes exits with and without the hook in turns, first without a debugger,
//! and then with one that has attached, set no breakpoint and let the guest run.
//!
//! Prints a JSON line for each: the medians of the time of an exit in nanoseconds, and the median of the ratios of two turns that follow each other.

use futures::executor::block_on;
use kvm_ioctls::VcpuFd;
use mesh::rpc::RpcSend;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Instant;
use vm_memory::GuestMemoryMmap;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::debug_rpc::ResumeRequest;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::session::DebugSession;
use vp_runner::embed::EmbedParams;
use vp_runner::embed::VpHook;
use vp_runner::embed::embed;
use vp_runner::kvm::x86_64::ScratchVm;
use vp_runner::kvm::x86_64::StartIn;
use vp_runner::probe;
use vp_runner::probe::open_kvm;

const TURNS: usize = 60;
const EXITS: u32 = 5_000;
const CODE: u64 = 0x800;
/// `out 10h, al; jmp` back.
const LOOP: [u8; 4] = [0xe6, 0x10, 0xeb, 0xfc];

fn main() -> Result<(), Box<dyn Error>> {
    let kvm = open_kvm()?;
    let mut scratch = ScratchVm::new(&kvm, 0x1000)?;
    scratch.load(&LOOP, CODE)?;
    scratch.start(StartIn::Long, CODE, 0xf00)?;
    let (requests, debug) = mesh::channel();
    let params = EmbedParams::of_kvm_ioctls(&kvm, scratch.vm(), debug)?.report(probe::run()?);
    let (vm, controller) = embed(params)?;
    let memory: GuestMemoryMmap = scratch.ram().clone();
    vm.set_guest_memory(Arc::new(memory));
    let controller = thread::spawn(move || block_on(controller.run()));
    let mut hook = vm.register_vcpu(0, scratch.vcpu())?;
    let vcpu = scratch.vcpu_mut();

    measure("no debugger", vcpu, &mut hook)?;
    let is_attached = Arc::new(AtomicBool::new(false));
    let attached = is_attached.clone();
    let debugger = thread::spawn(move || {
        block_on(async {
            let debugged = DebugSession::attach(&requests, DetachAction::Resume).await?;
            attached.store(true, Ordering::SeqCst);
            let run = ResumeRequest::every(VpAction::Run);
            // The answer comes with a stop, and there is none before the end.
            let _ended = debugged
                .session
                .call_failable(DebugRequest::Resume, run)
                .await;
            Ok::<_, mesh::rpc::RpcError<_>>(())
        })
    });
    // The hook returns no exit while the debugger holds the guest.
    while !is_attached.load(Ordering::SeqCst) {
        with_hook(vcpu, &mut hook)?;
    }
    // The debugger has let the guest run when this returns.
    with_hook(vcpu, &mut hook)?;
    measure("debugger attached", vcpu, &mut hook)?;
    vm.stop();
    drop(hook);
    controller.join().map_err(|_| "the controller panicked")?;
    debugger.join().map_err(|_| "the debugger panicked")??;
    Ok(())
}

/// One exit, which the VMM would handle.
fn exit(vcpu: &mut VcpuFd) -> io::Result<()> {
    match vcpu.run() {
        Ok(_) => Ok(()),
        Err(error) => Err(io::Error::from_raw_os_error(error.errno())),
    }
}

fn with_hook(vcpu: &mut VcpuFd, hook: &mut VpHook) -> io::Result<()> {
    match hook.run(|| exit(vcpu)) {
        // The VMM looks for work, and comes back.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        result => result,
    }
}

fn measure(what: &str, vcpu: &mut VcpuFd, hook: &mut VpHook) -> io::Result<()> {
    let (mut bare, mut hooked, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..=TURNS {
        let (without, with) = match turn % 2 {
            0 => {
                let without = turn_of(|| exit(vcpu))?;
                (without, turn_of(|| with_hook(vcpu, hook))?)
            }
            _ => {
                let with = turn_of(|| with_hook(vcpu, hook))?;
                (turn_of(|| exit(vcpu))?, with)
            }
        };
        // The first turn includes page faults.
        if turn > 0 {
            bare.push(without);
            hooked.push(with);
            ratios.push(with / without);
        }
    }
    println!(
        "{{\"what\":\"{what}\",\"bare_ns\":{:.1},\"hook_ns\":{:.1},\"ratio\":{:.4}}}",
        median(bare),
        median(hooked),
        median(ratios)
    );
    Ok(())
}

/// The time of an exit in nanoseconds.
fn turn_of(mut exit: impl FnMut() -> io::Result<()>) -> io::Result<f64> {
    let begun = Instant::now();
    for _ in 0..EXITS {
        exit()?;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e9 / f64::from(EXITS))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
