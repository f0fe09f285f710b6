//! The cost of passing a breakpoint byte while other VPs run, for an instruction that the runner carries out in place of the VP and for one that the VP executes while
//! every other VP is stopped.
//!
//! Prints JSON lines:
//! - from one reported hit to the next, with a continue in between, medians in microseconds. A reported hit stops every VP, whichever way the byte is passed, so the two
//!   figures are alike. With four VPs on two processors they are about one tick of the host's scheduler, 4 ms: the VP that is to hit waits for its turn behind the VPs that spin.
//! - passes that nobody is told of, by one VP whose code is mapped at another address than the breakpoint's, while a second VP counts: passes and counts in a second.

use test_machine::machine;

use futures::executor::block_on;
use futures::future::join;
use machine::guest::Mode;
use machine::software::software_at;
use machine::*;
use mesh::rpc::RpcSend;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use vmm_core_defs::addr::GuestAddress;
use vmm_core_defs::addr::Gva;
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
    // `nop`, which is carried out, and `clc`, which is not.
    for (first, how) in [(0x90, "carried_out"), (0xf8, "executed")] {
        if let Some((passes, counts)) = silent_passes(first) {
            println!(
                "{{\"how\":\"{how}\",\"passes_per_s\":{passes:.0},\"others_counts_per_s\":{counts:.0}}}"
            );
        }
    }
}

/// How long the silent passes are counted.
const COUNTING_TIME: Duration = Duration::from_secs(1);
/// The function that the second mapping of the guest's page at 2 MiB makes visible at [`FUNCTION`] + 2 MiB.
const FUNCTION: u64 = 0x1800;

/// Passes of the first VP and counts of the second. The function begins with `first`, which may be carried out or not.
fn silent_passes(first: u8) -> Option<(f64, f64)> {
    // VP 0: `mov eax, 201800h; call rax; inc rbx; jmp`; VP 1: `inc rbx; jmp`.
    let mut code = vec![
        0xb8, 0x00, 0x18, 0x20, 0x00, 0xff, 0xd0, 0x48, 0xff, 0xc3, 0xeb, 0xf9,
    ];
    let counting = ENTRY + code.len() as u64;
    code.extend([0x48, 0xff, 0xc3, 0xeb, 0xfb]);
    code.resize(0x800, 0x90);
    code.extend([first, 0xc3]);
    let parts = Parts::new(Setup::new(Mode::Long, &code).vps(2)).ok()?;
    let mut counts = None;
    block_on(join(parts.controller.run(), async {
        let attach = Debug::attach(&parts.debug, DetachAction::Resume);
        let debug = attach.await.unwrap().session;
        let map = GuestAddress::Gva {
            vp: VpIndex::BSP,
            gva: Gva::new(0x1_2008),
        };
        let page = 0x83_u64.to_le_bytes().to_vec();
        let mapped = debug.call_failable(DebugRequest::WriteMemory, (map, page));
        mapped.await.unwrap();
        move_to(&debug, VpIndex::new(1), counting).await;
        change(&debug, BreakpointChange::Insert(software_at(FUNCTION))).await;
        let running = debug.call_failable(DebugRequest::Resume, every(VpAction::Run));
        let stop = async {
            pass(COUNTING_TIME).await;
            let broken = debug.call_failable(DebugRequest::Break, ());
            broken.await.unwrap();
        };
        let begun = Instant::now();
        let (stopped, ()) = join(running, stop).await;
        stopped.unwrap();
        let seconds = begun.elapsed().as_secs_f64();
        let mut count = Vec::new();
        for vp in 0..2 {
            let state = debug.call_failable(DebugRequest::GetVpState, VpIndex::new(vp));
            if let DebuggerVpState::X86_64(state) = &*state.await.unwrap() {
                count.push(state.gp[3] as f64 / seconds);
            }
        }
        counts = Some((count[0], count[1]));
        parts.handle.stop();
    }));
    counts
}

async fn pass(time: Duration) {
    let (send, over) = mesh::oneshot();
    thread::spawn(move || {
        thread::sleep(time);
        send.send(());
    });
    over.await.unwrap();
}

async fn move_to(debug: &Debug, vp: VpIndex, rip: u64) {
    let state = debug.call_failable(DebugRequest::GetVpState, vp);
    let mut state = state.await.unwrap();
    if let DebuggerVpState::X86_64(state) = &mut *state {
        state.rip = rip;
    }
    let set = debug.call_failable(DebugRequest::SetVpState, (vp, state));
    set.await.unwrap();
}

async fn measure(debug: &Debug, vps: u32) -> (f64, f64) {
    for vp in (1..vps).map(VpIndex::new) {
        move_to(debug, vp, ELSEWHERE).await;
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
