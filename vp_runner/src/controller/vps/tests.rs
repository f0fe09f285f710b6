use super::*;
use crate::control::run_gate::Kick;
use futures::executor::block_on;
use vmm_core_defs::debug_rpc::VpActivity;

const VP: VpIndex = VpIndex::BSP;

/// A thread that has ended, or that ends as soon as it has a command.
struct EndedThread {
    takes_a_command: bool,
}

impl VpLink for EndedThread {
    /// The command is dropped, as by a thread that panics.
    fn command(&self, _: Command) -> Result<(), NotTaken> {
        match self.takes_a_command {
            true => Ok(()),
            false => Err(NotTaken::Gone),
        }
    }

    fn wait_briefly(&self, _: &mut dyn FnMut() -> bool) {}

    fn kick(&self, _: Kick) {}

    fn join(&mut self) {}
}

fn ended(takes_a_command: bool) -> Vps {
    let link = Box::new(EndedThread { takes_a_command });
    let gate = Arc::new(RunGate::new());
    Vps::of(vec![VpThread::new(gate, link, Snapshots::default())])
}

#[test]
fn a_vp_thread_that_has_ended_is_an_error_of_its_own() {
    let gone = DebugError::VpThreadEnded { vp: VP };
    for takes_a_command in [false, true] {
        let mut vps = ended(takes_a_command);
        let activity: Result<VpActivity, _> = block_on(vps.call(VP, |vp| vp.activity()));
        assert_eq!(activity, Err(gone.clone()));
        assert_eq!(block_on(vps.registers(VP)).map(drop), Err(gone.clone()));
        let all = block_on(vps.call_all(|vp| vp.restart_counter()));
        assert_eq!(all, Err(gone.clone()));
    }
}
