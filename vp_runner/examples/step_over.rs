//! The cost of passing a breakpoint byte without letting another VP pass it: the time from one hit to the next, with a
//! continue between them. One instruction is carried out by the runner, and the other has to be executed while the
//! other VPs are held.
//!
//! Prints JSON lines with medians in microseconds. The other VPs spin elsewhere. With one VP both cases are the same,
//! because there is no VP to hold.

use conformance::machine;

use futures::executor::block_on;
use futures::future::join;
use machine::guest::Mode;
use machine::software::software_at;
use machine::*;
use mesh::rpc::RpcSend;
use std::time::Instant;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::BreakpointChange;
use vmm_core_defs::debug_rpc::*;
use vmm_core_defs::regs::DebuggerVpState;
use vmm_core_defs::session::DebugSession;
use vmm_core_defs::stop::DebugStopReason;

const TIMES: usize = 100;
/// `nop`, which the runner carries out; `bswap eax`, which it does not; `jmp` back; and for the other VPs a `jmp` to
/// itself.
const CODE: [u8; 7] = [0x90, 0x0f, 0xc8, 0xeb, 0xfb, 0xeb, 0xfe];
const CARRIED_OUT: u64 = ENTRY;
const EXECUTED: u64 = ENTRY + 1;
const ELSEWHERE: u64 = ENTRY + 5;

type Debug = DebugSession;

fn main() {
    for vps in [1, 2, 4] {
        let parts = match Parts::new(Setup::new(Mode::Long, &CODE).vps(vps)) {
            Ok(parts) => parts,
            Err(why) => return println!("SKIP: {why}"),
        };
        block_on(join(parts.controller.run(), async {
            let attach = Debug::attach(&parts.debug, DetachAction::Resume);
            let debug = attach.await.unwrap().session;
            let (carried_out, executed) = measure(&debug, vps).await;
            println!(
                "{{\"vps\":{vps},\"carried_out_us\":{carried_out:.1},\"executed_us\":{executed:.1}}}"
            );
            parts.handle.stop();
        }));
    }
}

async fn measure(debug: &Debug, vps: u32) -> (f64, f64) {
    for vp in (1..vps).map(VpIndex::new) {
        let mut state = debug
            .call_failable(DebugRequest::GetVpState, vp)
            .await
            .unwrap();
        if let DebuggerVpState::X86_64(state) = &mut *state {
            state.rip = ELSEWHERE;
        }
        let set = debug.call_failable(DebugRequest::SetVpState, (vp, state));
        set.await.unwrap();
    }
    (hits(debug, CARRIED_OUT).await, hits(debug, EXECUTED).await)
}

async fn hits(debug: &Debug, address: u64) -> f64 {
    let breakpoint = software_at(address);
    change(debug, BreakpointChange::Insert(breakpoint)).await;
    resume(debug).await;
    let mut took = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let begun = Instant::now();
        resume(debug).await;
        took.push(begun.elapsed());
    }
    change(debug, BreakpointChange::Remove(breakpoint)).await;
    took.sort_unstable();
    took[TIMES / 2].as_secs_f64() * 1e6
}

async fn resume(debug: &Debug) {
    let stop = debug.call_failable(DebugRequest::Resume, every(VpAction::Run));
    let reason = stop.await.unwrap().reason;
    assert!(
        matches!(reason, DebugStopReason::Breakpoint { .. }),
        "{reason:?}"
    );
}

async fn change(debug: &Debug, change: BreakpointChange) {
    let changed = debug.call_failable(DebugRequest::SetDebugState, vec![change]);
    changed.await.unwrap();
}
