//! How much longer requests take over a socket than over a channel: `cargo run --release --package trapgate-debug-wire --example latency`.
//!
//! The VM answers at once on a thread of its own, as the VMM of a debugger in another process does, so the times are those of the transport.

use mesh::Receiver;
use mesh::rpc::RpcSend as _;
use pal_async::DefaultPool;
use pal_async::task::Spawn as _;
use std::error::Error;
use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::time::Instant;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::GuestAddress;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugMessage;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::regs::DebuggerVpState;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::session::DebugSession;
use vmm_core_defs::target::Target;

async fn vm(mut requests: Receiver<DebugMessage>) {
    while let Ok(message) = requests.recv().await {
        match message {
            DebugMessage::InSession(_, DebugRequest::GetVpState(rpc)) => {
                let state = X86VpState::default();
                rpc.complete(Ok(Box::new(DebuggerVpState::X86_64(state))));
            }
            DebugMessage::InSession(_, DebugRequest::ReadMemory(rpc)) => {
                rpc.handle_sync(|(_, len)| Ok(vec![0; len]));
            }
            other => other.refuse(vmm_core_defs::debug_rpc::DebugError::NotAttached),
        }
    }
}

/// The median of the times of many requests.
async fn median(
    session: &DebugSession,
    rounds: usize,
    len: Option<usize>,
) -> Result<Duration, Box<dyn Error>> {
    let mut times = Vec::new();
    for _ in 0..rounds {
        let begun = Instant::now();
        match len {
            None => drop(
                session
                    .call_failable(DebugRequest::GetVpState, VpIndex::BSP)
                    .await?,
            ),
            Some(len) => {
                let input = (GuestAddress::Gpa(Gpa::new(0)), len);
                drop(
                    session
                        .call_failable(DebugRequest::ReadMemory, input)
                        .await?,
                );
            }
        }
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

fn main() -> Result<(), Box<dyn Error>> {
    let (vmm_thread, vmm) = DefaultPool::spawn_on_thread("vmm");
    let (requests, receiver) = mesh::channel();
    vmm.spawn("vm", vm(receiver)).detach();
    let (ours, theirs) = UnixStream::pair()?;
    let of_vmm = vmm.clone();
    let behind_socket = requests.clone();
    vmm.spawn("serve", async move {
        debug_wire::serve(&of_vmm, theirs, behind_socket).await
    })
    .detach();
    DefaultPool::run_with(async |driver| -> Result<(), Box<dyn Error>> {
        let (remote, connection) = debug_wire::connect(&driver, ours)?;
        driver.spawn("connection", connection.run()).detach();
        let channel = DebugSession::begin(Target::from(requests));
        let wire = DebugSession::begin(remote);
        println!("request            channel       socket   ratio");
        for (name, rounds, len) in [
            ("GetVpState", 20_000, None),
            ("ReadMemory 8 B", 20_000, Some(8)),
            ("ReadMemory 1 MiB", 500, Some(1 << 20)),
        ] {
            let mut best = [Duration::MAX; 2];
            // In turns, because a busy machine has slow times.
            for _ in 0..5 {
                for (best, session) in best.iter_mut().zip([&channel, &wire]) {
                    *best = (*best).min(median(session, rounds / 5, len).await?);
                }
            }
            let micros = best.map(|time| time.as_secs_f64() * 1e6);
            println!(
                "{name:<16} {:>8.1} us {:>9.1} us {:>7.2}",
                micros[0],
                micros[1],
                micros[1] / micros[0]
            );
        }
        Ok(())
    })?;
    drop(vmm);
    vmm_thread.join().expect("the VMM's thread");
    Ok(())
}
