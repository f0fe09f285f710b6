//! The Rust code of `Guide/src/embedding.md`. A test compares the two, so change both.

// The functions are compiled and shown in the Guide, and not called here.
#![expect(dead_code)]

use debug_worker::DebugListener;
use debug_worker::DebuggerParameters;
use kvm_ioctls::VcpuFd;
use kvm_ioctls::VmFd;
use mesh::rpc::RpcSend;
use mesh::worker::WorkerRpc;
use pal_async::DefaultPool;
use pal_async::task::Spawn;
use std::error::Error;
use std::sync::Arc;
use vm_memory::GuestMemoryMmap;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugMessage;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::debug_rpc::ResumeRequest;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::session::Attached;
use vmm_core_defs::session::DebugSession;
use vp_runner::machine::Machine;
use vp_runner::probe;
use vp_runner::runner::Controller;
use vp_runner::runner::OnCrash;
use vp_runner::runner::ResetPolicy;
use vp_runner::runner::RunnerExit;
use vp_runner::runner::RunnerHandle;
use vp_runner::runner::RunnerParams;
use vp_runner::runner::StartMode;

fn hand_over(
    vm: Arc<VmFd>,
    vcpus: Vec<VcpuFd>,
    memory: Arc<GuestMemoryMmap>,
    machine: Arc<dyn Machine>,
) -> Result<(mesh::Sender<DebugMessage>, RunnerHandle, Controller), Box<dyn Error>> {
    let (requests, debug) = mesh::channel();
    let params = RunnerParams::new(vm, vcpus, memory, machine, debug)
        .start(StartMode::WaitForDebugger)
        .on_reset(ResetPolicy::Reset)
        .on_crash(OnCrash::End)
        .report(probe::run()?);
    let (handle, controller) = vp_runner::start(params)?;
    Ok((requests, handle, controller))
}

fn run_guest(
    controller: Controller,
    requests: mesh::Sender<DebugMessage>,
    listener: DebugListener,
) -> Result<RunnerExit, Box<dyn Error>> {
    let exit = DefaultPool::run_with(async |driver| {
        let mut parameters = DebuggerParameters::new(listener, requests);
        parameters.settings.on_disconnect = DetachAction::Resume;
        // Keep `owner`: the server ends when it is dropped.
        let (owner, owned) = mesh::channel::<WorkerRpc>();
        // The two as tasks of one executor: a request and its answer then wake no other thread.
        let server = driver.spawn(
            "gdb",
            debug_worker::serve(driver.clone(), parameters, owned),
        );
        let exit = controller.run().await;
        owner.send(WorkerRpc::Stop);
        server.await.map(|()| exit)
    })?;
    Ok(exit)
}

async fn look_around(requests: &mesh::Sender<DebugMessage>) -> Result<(), Box<dyn Error>> {
    let Attached { session, info } = DebugSession::attach(requests, DetachAction::Resume).await?;
    println!("{} VPs, {:?}", info.stop.vps.len(), info.stop.reason);
    let everything = ResumeRequest::every(VpAction::Run);
    let stop = session
        .call_failable(DebugRequest::Resume, everything)
        .await?;
    println!("stopped: {:?}", stop.reason);
    let state = session
        .call_failable(DebugRequest::GetVpState, VpIndex::BSP)
        .await?;
    println!("{state:?}");
    session
        .call_failable(DebugRequest::Detach, DetachAction::Resume)
        .await?;
    Ok(())
}
