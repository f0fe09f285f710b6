//! A minimal VMM: the vCPUs run on threads of `vp_runner`. The program steps the guest's first instruction by requests, and then serves GDB until the guest ends. Each
//! line of standard input is typed on the guest's serial port.
#![forbid(unsafe_code)]

mod pc;

use debug_worker::DebugListener;
use debug_worker::DebuggerParameters;
use debug_worker::Exposure;
use mesh::rpc::RpcSend as _;
use mesh::worker::WorkerRpc;
use pal_async::DefaultPool;
use pc::Pc;
use small_pc::SmallPc;
use std::error::Error;
use std::sync::Arc;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugMessage;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::debug_rpc::ResumeRequest;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::regs::DebuggerVpState;
use vmm_core_defs::session::DebugSession;
use vp_runner::runner::ResetPolicy;
use vp_runner::runner::RunnerParams;
use vp_runner::runner::StartMode;

const VCPUS: u8 = 2;

fn main() -> Result<(), Box<dyn Error>> {
    let pc = Arc::new(Pc(SmallPc::new("")?));
    let SmallPc { vm, devices, .. } = &pc.0;
    let created = (0..VCPUS).map(|index| vm.create_vcpu(index.into()));
    let vcpus = created.collect::<Result<Vec<_>, _>>()?;
    let (requests, debug) = mesh::channel();
    let params = RunnerParams::new(vm.clone(), vcpus, pc.0.memory().clone(), pc.clone(), debug)
        .start(StartMode::WaitForDebugger)
        .on_reset(ResetPolicy::Exit)
        .report(vp_runner::probe::run()?);
    let (_handle, controller) = vp_runner::start(params)?;
    let listener = DebugListener::bind(&"127.0.0.1:0".parse()?, Exposure::LoopbackOnly)?;
    let devices = devices.clone();
    std::thread::spawn(move || {
        let lines = std::io::stdin().lines().map_while(Result::ok);
        lines.for_each(|line| devices.type_keys(&line));
    });
    let end = DefaultPool::run_with(async |driver| {
        let (stop, stopped) = mesh::channel();
        let guest = async {
            let end = controller.run().await;
            stop.send(WorkerRpc::Stop);
            end
        };
        let debuggers = async {
            step_once(&requests).await?;
            println!("gdb: listening on {}", listener.local_addr());
            let parameters = DebuggerParameters::new(listener, requests);
            Ok::<_, Box<dyn Error>>(debug_worker::serve(driver, parameters, stopped).await?)
        };
        let (end, debugged) = futures::join!(guest, debuggers);
        debugged.map(|()| end)
    })?;
    println!("vmm: the guest has ended: {end:?}");
    Ok(())
}

/// A debugger in the VMM itself: the guest executes its first instruction, and stays held for GDB.
async fn step_once(requests: &mesh::Sender<DebugMessage>) -> Result<(), Box<dyn Error>> {
    let vm = DebugSession::attach(requests, DetachAction::Stay).await?;
    let vm = vm.session;
    let step = ResumeRequest::new(VpAction::Stay, vec![(VpIndex::BSP, VpAction::Step)]);
    let stop = vm.call_failable(DebugRequest::Resume, step).await?;
    let state = vm
        .call_failable(DebugRequest::GetVpState, VpIndex::BSP)
        .await?;
    if let DebuggerVpState::X86_64(state) = &*state {
        println!("vmm: {:?}, now at {:#x}", stop.reason, state.rip);
    }
    Ok(vm
        .call_failable(DebugRequest::Detach, DetachAction::Stay)
        .await?)
}
