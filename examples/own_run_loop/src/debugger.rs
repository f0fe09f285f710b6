//! The debug server of the VMM. The run loops need only the [`VmHandle`] from here.

use crate::vmm::Event;
use debug_worker::DebugListener;
use debug_worker::DebuggerParameters;
use debug_worker::Exposure;
use mesh::worker::WorkerRpc;
use pal_async::DefaultPool;
use small_pc::SmallPc;
use std::error::Error;
use std::sync::mpsc::Sender;
use std::thread;
use std::thread::JoinHandle;
use vmm_core_defs::debug_rpc::DebugMessage;
use vmm_sys_util::signal::SIGRTMIN;
use vp_runner::embed::Controller;
use vp_runner::embed::EmbedParams;
use vp_runner::embed::KickSignal;
use vp_runner::embed::SignalKick;
use vp_runner::embed::VmHandle;
use vp_runner::embed::embed;
use vp_runner::probe;

/// The debug server of one VM.
pub struct Debugger {
    /// What the run loops need.
    pub vm: VmHandle,
    thread: JoinHandle<()>,
}

impl Debugger {
    /// Starts the server at a free port of this machine, and prints the address.
    ///
    /// # Errors
    /// The port cannot be opened, or the host has no thread or descriptor left.
    pub fn start(pc: &SmallPc, events: Sender<Event>) -> Result<Self, Box<dyn Error>> {
        let listener = DebugListener::bind(&"127.0.0.1:0".parse()?, Exposure::LoopbackOnly)?;
        println!("gdb: listening on {}", listener.local_addr());
        let (requests, receiver) = mesh::channel();
        let params = EmbedParams::of_kvm_ioctls(&pc.kvm, &pc.vm, receiver)?
            .report(probe::run()?)
            // The VMM keeps SIGRTMIN for itself.
            .kick(SignalKick::new(KickSignal::new(SIGRTMIN() + 1)?))
            // A debugger has seen the event and goes on, so the VMM acts on the event.
            .on_continue(move |kind| {
                // The main thread may have ended for another reason.
                let _ = events.send(Event::Guest(kind));
            });
        let (vm, controller) = embed(params)?;
        vm.set_guest_memory(pc.memory().clone());
        let thread = thread::Builder::new()
            .name("debugger".to_owned())
            .spawn(move || serve(listener, requests, controller))?;
        Ok(Self { vm, thread })
    }

    /// Ends the debugger: a vCPU that it holds is let go, and the hooks have no effect from now on.
    pub fn end(self) {
        self.vm.stop();
        // The thread ends with the controller.
        let _ = self.thread.join();
    }
}

/// The controller and the server on one thread: a packet and its answer wake no other thread.
fn serve(listener: DebugListener, requests: mesh::Sender<DebugMessage>, controller: Controller) {
    DefaultPool::run_with(async |driver| {
        let parameters = DebuggerParameters::new(listener, requests);
        let (stop, stopped) = mesh::channel();
        let server = debug_worker::serve(driver, parameters, stopped);
        let guest = async {
            controller.run().await;
            stop.send(WorkerRpc::Stop);
        };
        let (served, ()) = futures::join!(server, guest);
        if let Err(error) = served {
            eprintln!("vmm: no debugger can attach any more: {error}; restart the VMM");
        }
    });
}
