//! The cost of debug requests above the bare ioctls (`bare_step`), without sockets and without the protocol. The client
//! is on the controller's thread, as the debug worker is.
//!
//! Then the same with a TCP connection to a client thread, one byte in each direction, which shows the part that a
//! remote debugger sees. An echo server is the lower bound.
//!
//! Prints JSON lines of medians in microseconds: a `Resume` of one step up to its stop, the same with the whole register file read after it,
//! 8 bytes of memory by virtual address while stopped, and a resume with the break that ends it. Then the number of instructions of a range that the VP steps in a second, and
//! a step while another VM of this process keeps all cores busy.

use test_machine::machine;

use futures::AsyncReadExt;
use futures::AsyncWriteExt;
use futures::executor::block_on;
use futures::future::join;
use machine::guest::Mode;
use machine::guest::counting_loop;
use machine::*;
use mesh::rpc::RpcSend;
use pal_async::local::block_with_io;
use pal_async::socket::PolledSocket;
use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::num::NonZero;
use std::time::Duration;
use std::time::Instant;
use vmm_core_defs::addr::GuestAddress;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::*;
use vmm_core_defs::regs::DebuggerVpState;
use vmm_core_defs::session::DebugSession;

const TIMES: usize = 2000;
/// Of [`counting_loop`].
const INSTRUCTIONS_OF_A_TURN: f64 = 4.0;

type Debug = DebugSession;

fn main() {
    let setup = Setup::new(Mode::Long, &counting_loop(Mode::Long));
    let parts = match Parts::new(setup) {
        Ok(parts) => parts,
        Err(why) => return println!("SKIP: {why}"),
    };
    block_on(join(
        parts.controller.run(),
        measure(parts.debug, parts.handle),
    ));
    over_tcp();
    beside_a_busy_vm();
}

/// A step, while another VM of this process runs a VP on each core.
fn beside_a_busy_vm() {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let setup = || Setup::new(Mode::Long, &counting_loop(Mode::Long));
    let other = setup().vps(u32::try_from(cores).unwrap_or(1));
    let (Ok(parts), Ok(other)) = (Parts::new(setup()), Parts::new(other)) else {
        return;
    };
    let (debug, busy) = (parts.debug, other.debug);
    let controllers = join(parts.controller.run(), other.controller.run());
    block_on(join(controllers, async {
        let attach = async |debug| {
            let attach = Debug::attach(debug, DetachAction::Resume);
            attach.await.unwrap().session
        };
        let (debug, busy) = (attach(&debug).await, attach(&busy).await);
        let running = busy.call_failable(DebugRequest::Resume, every(VpAction::Run));
        let alone = median(Duration::ZERO, async || step(&debug).await).await;
        println!("{{\"beside_a_busy_vm\":{{\"step_us\":{alone:.1}}}}}");
        parts.handle.stop();
        other.handle.stop();
        drop(running);
    }));
}

fn over_tcp() {
    let setup = Setup::new(Mode::Long, &counting_loop(Mode::Long));
    let Ok(parts) = Parts::new(setup) else {
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = std::thread::spawn(move || {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.set_nodelay(true).unwrap();
        let mut ask = |what: &[u8]| {
            let mut took: Vec<_> = (0..TIMES)
                .map(|_| {
                    let begun = Instant::now();
                    for byte in what {
                        socket.write_all(&[*byte]).unwrap();
                        socket.read_exact(&mut [0]).unwrap();
                    }
                    begun.elapsed()
                })
                .collect();
            took.sort_unstable();
            took[TIMES / 2].as_secs_f64() * 1e6
        };
        for _ in 0..3 {
            let (echo, step, both) = (ask(b"e"), ask(b"s"), ask(b"sg"));
            println!(
                "{{\"tcp_echo_us\":{echo:.1},\"tcp_step_us\":{step:.1},\"step_above_floor_us\":{:.1},\"tcp_step_and_registers_us\":{both:.1}}}",
                step - echo
            );
        }
    });
    let (socket, _) = listener.accept().unwrap();
    socket.set_nodelay(true).unwrap();
    block_with_io(async |driver| {
        let socket = PolledSocket::new(&driver, socket).unwrap();
        join(
            parts.controller.run(),
            serve(socket, parts.debug, parts.handle),
        )
        .await
    });
    client.join().unwrap();
}

async fn serve(
    mut socket: PolledSocket<TcpStream>,
    debug: mesh::Sender<DebugMessage>,
    handle: Handle,
) {
    let attach = Debug::attach(&debug, DetachAction::Resume);
    let debug = attach.await.unwrap().session;
    let mut byte = [0];
    while let Ok(()) = AsyncReadExt::read_exact(&mut socket, &mut byte).await {
        match byte {
            [b's'] => step(&debug).await,
            [b'g'] => registers(&debug).await,
            _ => {}
        }
        AsyncWriteExt::write_all(&mut socket, &byte).await.unwrap();
    }
    handle.stop();
}

async fn measure(debug: mesh::Sender<DebugMessage>, handle: Handle) {
    let attach = Debug::attach(&debug, DetachAction::Resume);
    let debug = attach.await.unwrap().session;
    // The time of a client between two packets, which is about the time of a round trip to the client.
    for (name, pause) in [
        ("at once", Duration::ZERO),
        ("after 70 us", Duration::from_micros(70)),
    ] {
        let alone = median(pause, async || step(&debug).await).await;
        let with_registers = median(pause, async || {
            step(&debug).await;
            registers(&debug).await;
        })
        .await;
        let read = median(pause, async || memory(&debug).await).await;
        let break_ = median(pause, async || resume_and_break(&debug).await).await;
        println!(
            "{{\"next\":\"{name}\",\"step_us\":{alone:.1},\"step_and_registers_us\":{with_registers:.1},\"memory_us\":{read:.1},\"break_us\":{break_:.1}}}"
        );
    }
    let per_second = steps_of_a_range(&debug).await;
    println!("{{\"range_steps_per_s\":{per_second:.0}}}");
    handle.stop();
}

/// How many instructions of a range the VP steps in a second.
async fn steps_of_a_range(debug: &Debug) -> f64 {
    let before = count(debug).await;
    let begun = Instant::now();
    let range = VpAction::StepRange {
        start: Gva::new(ENTRY),
        end: Gva::new(ENTRY + 0x100),
    };
    let pending = debug.call_failable(DebugRequest::Resume, every(range));
    let (send, over) = mesh::oneshot();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        send.send(());
    });
    let broken = async {
        over.await.unwrap();
        debug.call_failable(DebugRequest::Break, ()).await.unwrap();
    };
    let (stopped, ()) = join(pending, broken).await;
    stopped.unwrap();
    let took = begun.elapsed().as_secs_f64();
    let turns = count(debug).await.wrapping_sub(before);
    INSTRUCTIONS_OF_A_TURN * turns as f64 / took
}

async fn count(debug: &Debug) -> u64 {
    let state = debug.call_failable(DebugRequest::GetVpState, VpIndex::BSP);
    match &*state.await.unwrap() {
        DebuggerVpState::X86_64(state) => state.gp[3],
        DebuggerVpState::Aarch64(_) => 0,
    }
}

async fn step(debug: &Debug) {
    let request = every(VpAction::Step);
    debug
        .call_failable(DebugRequest::Resume, request)
        .await
        .unwrap();
}

async fn registers(debug: &Debug) {
    debug
        .call_failable(DebugRequest::GetVpState, VpIndex::BSP)
        .await
        .unwrap();
}

async fn memory(debug: &Debug) {
    let vp = VpIndex::BSP;
    let gva = Gva::new(ENTRY);
    let address = GuestAddress::Gva { vp, gva };
    debug
        .call_failable(DebugRequest::ReadMemory, (address, 8))
        .await
        .unwrap();
}

async fn resume_and_break(debug: &Debug) {
    let pending = debug.call_failable(DebugRequest::Resume, every(VpAction::Run));
    debug.call_failable(DebugRequest::Break, ()).await.unwrap();
    pending.await.unwrap();
}

async fn median(pause: Duration, work: impl AsyncFn()) -> f64 {
    let mut took = Vec::with_capacity(TIMES);
    for _ in 0..TIMES {
        let until = Instant::now() + pause;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        let begun = Instant::now();
        work().await;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    took[TIMES / 2].as_secs_f64() * 1e6
}
