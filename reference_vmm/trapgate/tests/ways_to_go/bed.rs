//! A real guest, its runner and a debug server on one thread, as in the program.

use debug_worker::DebugListener;
use debug_worker::DebuggerParameters;
use futures::FutureExt as _;
use mesh::rpc::RpcSend as _;
use mesh::worker::WorkerRpc;
use pal_async::DefaultPool;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::thread::JoinHandle;
use std::time::Instant;
use test_machine::machine::Handle;
use test_machine::machine::Parts;
use test_machine::machine::Setup;
use test_machine::machine::TestMachine;
use test_machine::machine::answer;
use test_machine::machine::guest::Mode;
use test_machine::machine::guest::telling_loop;
use test_machine::machine::wait;
use test_machine::running::DEADLINE;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DebugMessage;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::debug_rpc::ResumeRequest;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::regs::DebuggerVpState;
use vmm_core_defs::session::Attached;
use vmm_core_defs::session::DebugSession;
use vmm_core_defs::stop::DebugStopReason;
use vmm_core_defs::stop::GuestEnd;

/// The number of VPs.
pub(crate) const VPS: u32 = 2;

/// Several guests that spin on two cores would delay each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub(crate) struct Bed {
    /// Released after the guest's end.
    _alone: MutexGuard<'static, ()>,
    machine: Arc<TestMachine>,
    pub address: String,
    untouched: Vec<u8>,
    debug: mesh::Sender<DebugMessage>,
    /// A session that has ended.
    stale: DebugSession,
    owner: mesh::Sender<WorkerRpc>,
    drop_server: Option<mesh::OneshotSender<()>>,
    ended: bool,
    handle: Handle,
    thread: Option<JoinHandle<GuestEnd>>,
}

impl Bed {
    /// Starts the guest, which runs. `None`, with the reason printed, if there is no KVM.
    pub(crate) fn new(on_disconnect: DetachAction) -> Option<Self> {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let code = telling_loop(Mode::Long);
        let setup = Setup::new(Mode::Long, &code).vps(VPS).running();
        let parts = match Parts::new(setup) {
            Ok(parts) => parts,
            Err(why) => {
                println!("SKIP: {why}");
                return None;
            }
        };
        let any_port = "127.0.0.1:0".parse().expect("an address");
        let listener = DebugListener::bind(&any_port, Default::default()).expect("a free port");
        let address = listener.local_addr().to_string();
        let (owner, for_server) = mesh::channel();
        let (drop_server, dropped) = mesh::oneshot::<()>();
        let mut parameters = DebuggerParameters::new(listener, parts.debug.clone());
        parameters.settings.on_disconnect = on_disconnect;
        let controller = parts.controller;
        let stop = owner.clone();
        let thread = thread::spawn(move || {
            DefaultPool::run_with(async |driver| {
                let server = async {
                    let serve = debug_worker::serve(driver, parameters, for_server);
                    let mut serve = Box::pin(serve.fuse());
                    let mut dropped = dropped.fuse();
                    // race: the server is dropped on purpose
                    futures::select! {
                        served = serve => served.expect("a socket that can be polled"),
                        told = dropped => if told.is_err() {
                            serve.await.expect("a socket that can be polled");
                        },
                    }
                };
                let guest = async {
                    let end = controller.run().await;
                    stop.send(WorkerRpc::Stop);
                    end
                };
                futures::join!(guest, server).0
            })
        });
        let attach = DebugSession::attach(&parts.debug, DetachAction::Resume);
        let stale = answer(attach).expect("attached").session;
        answer(stale.call_failable(DebugRequest::Detach, DetachAction::Resume)).expect("detached");
        Some(Self {
            _alone: alone,
            stale,
            untouched: parts.machine.raw_memory(),
            machine: parts.machine,
            address,
            debug: parts.debug,
            owner,
            drop_server: Some(drop_server),
            ended: false,
            handle: parts.handle,
            thread: Some(thread),
        })
    }

    pub(crate) fn stop_server(&mut self) {
        self.ended = true;
        self.owner.send(WorkerRpc::Stop);
    }

    pub(crate) fn drop_server(&mut self) {
        self.ended = true;
        let signal = self.drop_server.take().expect("dropped once");
        signal.send(());
    }

    /// Whether the server was not asked to end.
    pub(crate) fn has_server(&self) -> bool {
        !self.ended
    }

    /// Waits until the session has ended and the guest is detached.
    pub(crate) fn wait_detached(&self, what: &str) {
        let end = Instant::now() + DEADLINE;
        // A server that is gone does not answer. All its messages are in the channel before this request.
        while let Ok(seen) = wait(self.owner.call(|rpc| WorkerRpc::Inspect(rpc.into()), ())) {
            match seen.get("state") {
                Some("listening") => break,
                state => assert!(Instant::now() < end, "{what}: still {state:?}"),
            }
        }
        // A request of an ended session gets one error while another session lasts, and another error while no debugger
        // is attached.
        while self.status() != Err(DebugError::NotAttached) {
            assert!(Instant::now() < end, "{what}: not detached");
        }
    }

    /// Waits until `count` clients are connected that have sent no packet.
    pub(crate) fn wait_silent(&self, count: usize) {
        let end = Instant::now() + DEADLINE;
        loop {
            let seen = wait(self.owner.call(|rpc| WorkerRpc::Inspect(rpc.into()), ()));
            let seen = seen.expect("the server lives");
            match seen.get("silent") {
                Some(silent) if silent == count.to_string() => return,
                silent => assert!(Instant::now() < end, "still {silent:?}"),
            }
        }
    }

    fn status(&self) -> Result<(), DebugError> {
        answer(self.stale.call_failable(DebugRequest::Status, ())).map(drop)
    }

    /// The number of reports of the VPs so far.
    pub(crate) fn told(&self) -> usize {
        self.machine.wait_until("now", |_| true).told.len()
    }

    /// Asserts that every VP goes round its loop through the former breakpoints.
    pub(crate) fn assert_runs(&self, what: &str) {
        let since = self.told();
        self.machine.wait_until(what, |seen| {
            let told = |vp| {
                let by = seen.told[since..].iter();
                by.filter(|(by, _)| by.index() == vp).count() > 20
            };
            (0..VPS).all(told)
        });
    }

    /// Asserts that no trace of a debugger is left in memory, in the registers, or in KVM's debug state.
    pub(crate) fn assert_untouched(&self, what: &str) {
        self.assert_memory_untouched(what);
        let attach = DebugSession::attach(&self.debug, DetachAction::Resume);
        let Attached { session, info } = answer(attach).expect("attached");
        assert_eq!(info.stop.reason, DebugStopReason::Break, "{what}");
        let list = answer(session.call_failable(DebugRequest::Breakpoints, ()));
        assert_eq!(list, Ok(vec![]), "{what}");
        for vp in (0..VPS).map(VpIndex::new) {
            let state = answer(session.call_failable(DebugRequest::GetVpState, vp));
            let DebuggerVpState::X86_64(regs) = *state.expect("readable") else {
                panic!("an x86 guest");
            };
            assert_eq!(regs.rflags & 0x100, 0, "{what}: a trap flag of ours");
            assert_eq!(regs.debug.db, [0; 4], "{what}: a debug register of ours");
            assert_eq!(regs.debug.dr7, 0x400, "{what}");
        }
        // Debug state that was left in KVM would stop the guest.
        let all = ResumeRequest::every(VpAction::Run);
        let pending = session.call_failable(DebugRequest::Resume, all);
        self.assert_runs(what);
        answer(session.call_failable(DebugRequest::Break, ())).expect("stopped");
        let stop = answer(pending).expect("a stop");
        assert_eq!(stop.reason, DebugStopReason::Break, "{what}");
        let detach = DetachAction::Resume;
        answer(session.call_failable(DebugRequest::Detach, detach)).expect("detached");
    }

    pub(crate) fn assert_memory_untouched(&self, what: &str) {
        let now = self.machine.raw_memory();
        // Comparing everything at once is a thousand times as fast as comparing byte by byte in an unoptimised test.
        if now == self.untouched {
            return;
        }
        let mut both = now.iter().zip(&self.untouched);
        let different = both.position(|(now, then)| now != then);
        assert_eq!(different, None, "the first byte that differs, {what}");
    }

    /// Waits for the guest's end.
    pub(crate) fn end(&mut self) -> GuestEnd {
        let thread = self.thread.take().expect("ends once");
        let end = Instant::now() + DEADLINE;
        while !thread.is_finished() {
            assert!(Instant::now() < end, "it does not end");
            thread::yield_now();
        }
        thread.join().expect("it ends in order")
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if self.thread.is_some() && !thread::panicking() {
            self.stop_server();
            self.handle.stop();
            self.end();
        }
    }
}
