//! The Rust code of `Guide/src/crates.md`. A test compares the two, so change both. `cargo xtask test --only packages` also builds this file against the packages.

// The functions are compiled and shown in the Guide, and not called here.
#![expect(dead_code)]

use debug_worker::DebugListener;
use debug_worker::DebuggerParameters;
use debug_worker::Exposure;
use mesh::worker::WorkerRpc;
use pal_async::DefaultPool;
use std::error::Error;
use std::io;
use std::os::fd::BorrowedFd;
use std::thread;
use vp_runner::embed::EmbedParams;
use vp_runner::embed::MemorySlot;
use vp_runner::embed::VmHandle;
use vp_runner::embed::embed;
use vp_runner::probe;

/// Starts the debug server of a VM on a thread of its own.
fn start_debugger(kvm: BorrowedFd<'_>, vm: BorrowedFd<'_>) -> Result<VmHandle, Box<dyn Error>> {
    let listener = DebugListener::bind(&"127.0.0.1:1234".parse()?, Exposure::LoopbackOnly)?;
    let (requests, receiver) = mesh::channel();
    let params = EmbedParams::new(kvm, vm, receiver)?.report(probe::run()?);
    let (handle, controller) = embed(params)?;
    thread::Builder::new().spawn(move || {
        DefaultPool::run_with(async |driver| {
            let (stop, stopped) = mesh::channel();
            let parameters = DebuggerParameters::new(listener, requests);
            let server = debug_worker::serve(driver, parameters, stopped);
            let guest = async {
                controller.run().await;
                stop.send(WorkerRpc::Stop);
            };
            futures::join!(server, guest).0
        })
    })?;
    Ok(handle)
}

/// The VMM sets, changes or removes (`None`) a memory slot: the debugger reads and writes the guest's memory there.
fn set_user_memory_region(
    debugger: &VmHandle,
    number: u32,
    slot: Option<MemorySlot>,
    ioctl: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    // Before KVM forgets the former memory, the debugger has to.
    debugger.set_slot(number, None);
    ioctl()?;
    debugger.set_slot(number, slot);
    Ok(())
}

/// The thread of a vCPU. `kvm_run` makes the ioctl, and `handle_exit` is what the VMM did before.
fn vcpu_thread(
    debugger: &VmHandle,
    id: u32,
    vcpu: BorrowedFd<'_>,
    mut kvm_run: impl FnMut() -> io::Result<()>,
    mut handle_exit: impl FnMut(io::Result<()>) -> bool,
) -> io::Result<()> {
    let mut hook = debugger.register_vp(id, vcpu)?;
    while handle_exit(hook.run(&mut kvm_run)) {}
    Ok(())
}
