//! How many false conditions a VP evaluates in a second, beside a bare loop of ioctls that does no more than pass the breakpoint: an exit at the breakpoint, a step with the
//! breakpoint disarmed, and the entry with the breakpoint armed again.
//!
//! Prints one JSON line for each kind of breakpoint, and for an instruction that the runner carries out in place of the VP and for one that it does not. Both loops execute the
//! same guest. They take turns, and the ratio is the median of those of the turns. A case with "recorded" has a tracepoint in place of the condition. A kind that does not trap on this
//! host is left out, with the reason on standard error.

use test_machine::machine;

use agent_expr::Expr;
use agent_expr::Limits;
use futures::executor::block_on;
use futures::future::join;
use kvm_bindings::KVM_GUESTDBG_ENABLE;
use kvm_bindings::KVM_GUESTDBG_SINGLESTEP;
use kvm_bindings::KVM_GUESTDBG_USE_HW_BP;
use kvm_bindings::KVM_GUESTDBG_USE_SW_BP;
use kvm_bindings::kvm_guest_debug;
use kvm_ioctls::VcpuExit;
use machine::guest::Mode;
use machine::software::software_at;
use machine::*;
use mesh::rpc::RpcSend;
use std::error::Error;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use vmm_core_defs::breakpoint::Arming;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointChange;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::condition::BreakpointConditions;
use vmm_core_defs::condition::Condition;
use vmm_core_defs::condition::ConditionRegister;
use vmm_core_defs::debug_rpc::*;
use vmm_core_defs::regs::x86_64::Gp;
use vmm_core_defs::session::DebugSession;
use vmm_core_defs::trace::TraceStart;
use vmm_core_defs::trace::Tracepoint;
use vp_runner::kvm::x86_64::ScratchVm;
use vp_runner::kvm::x86_64::StartIn;
use vp_runner::probe::open_kvm;

/// The number of turns, and the time of each loop in a turn.
const TURNS: usize = 5;
const TIME: Duration = Duration::from_millis(500);
/// `nop`, which the runner carries out; `bswap eax`, which it does not; `inc rbx`; and `jmp` back.
const LOOP: [u8; 8] = [0x90, 0x0f, 0xc8, 0x48, 0xff, 0xc3, 0xeb, 0xf8];
const INT3: u8 = 0xcc;
/// The address of the loop for the bare ioctls.
const BARE: u64 = 0x800;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() {
    for kind in [BreakpointKind::Software, BreakpointKind::Execute] {
        for (how, offset) in [("carried out", 0), ("executed", 1)] {
            let name = match kind {
                BreakpointKind::Software => "software",
                _ => "hardware",
            };
            for at_hit in [AtHit::Condition, AtHit::Tracepoint] {
                let what = match at_hit {
                    AtHit::Condition => format!("{name}, {how}"),
                    AtHit::Tracepoint => format!("{name}, {how}, recorded"),
                };
                // A tracepoint is armed as a software breakpoint.
                if (kind, at_hit) == (BreakpointKind::Execute, AtHit::Tracepoint) {
                    continue;
                }
                // With an argument, only the cases whose names contain it.
                if std::env::args()
                    .nth(1)
                    .is_some_and(|only| !what.contains(&only))
                {
                    continue;
                }
                match turns(kind, offset, at_hit) {
                    Ok((bare, evaluated, ratio)) => println!(
                        "{{\"what\":\"{what}\",\"bare_per_s\":{bare:.0},\"conditions_per_s\":{evaluated:.0},\"ratio\":{ratio:.3}}}"
                    ),
                    Err(error) => eprintln!("{what}: {error}"),
                }
            }
        }
    }
}

/// What happens at each hit.
#[derive(Clone, Copy, PartialEq)]
enum AtHit {
    /// A condition that reads a register does not hold.
    Condition,
    /// A tracepoint records 16 registers and 16 bytes of memory, in a circular buffer.
    Tracepoint,
}

/// The medians of both rates and of their ratio. `offset`: that of the instruction in the loop.
fn turns(kind: BreakpointKind, offset: usize, at_hit: AtHit) -> Result<(f64, f64, f64)> {
    let mut bare = Bare::new(kind, offset)?;
    let parts = Parts::new(Setup::new(Mode::Long, &LOOP)).map_err(|why| why.to_string())?;
    let (mut rates, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let breakpoint = Breakpoint {
        kind,
        ..software_at(ENTRY + offset as u64)
    };
    let measured = block_on(async {
        let measure = async {
            let attach = DebugSession::attach(&parts.debug, DetachAction::Resume);
            let debug = attach.await.expect("the first client").session;
            let result = async {
                match at_hit {
                    AtHit::Condition => arm(&debug, breakpoint).await?,
                    AtHit::Tracepoint => trace(&debug, breakpoint).await?,
                }
                for _ in 0..TURNS {
                    let of_bare = bare.rate()?;
                    let of_ours = evaluations(&debug).await?;
                    rates.push(of_bare);
                    ours.push(of_ours);
                    ratios.push(of_ours / of_bare);
                }
                Ok(())
            };
            let result = result.await;
            parts.handle.stop();
            result
        };
        join(parts.controller.run(), measure).await.1
    });
    measured.map(|()| (median(rates), median(ours), median(ratios)))
}

/// Sets the breakpoint, with a condition that reads a register and never holds.
async fn arm(debug: &DebugSession, breakpoint: Breakpoint) -> Result<()> {
    let insert = vec![BreakpointChange::Insert(breakpoint)];
    debug
        .call_failable(DebugRequest::SetDebugState, insert)
        .await?;
    let list = debug.call_failable(DebugRequest::Breakpoints, ()).await?;
    let in_memory = matches!(list[0].arming, Arming::Memory { .. });
    if in_memory != (breakpoint.kind == BreakpointKind::Software) {
        return Err("the breakpoint is armed in another way; see `trapgate doctor`".into());
    }
    let rax = Expr::register(ConditionRegister::General(Gp::Rax).number());
    let never = rax.equals(Expr::constant(u64::MAX));
    let code = never.assemble(Limits::default())?.code().to_vec();
    let conditions = BreakpointConditions {
        breakpoint,
        conditions: vec![Condition { code }],
        commands: Vec::new(),
    };
    debug
        .call_failable(DebugRequest::SetConditions, conditions)
        .await?;
    Ok(())
}

async fn trace(debug: &DebugSession, breakpoint: Breakpoint) -> Result<()> {
    // `const16 address; const8 16; trace; end`.
    let [high, low] = u16::try_from(ENTRY)?.to_be_bytes();
    let code = vec![0x23, high, low, 0x22, 16, 0x0c, 0x27];
    let start = TraceStart {
        tracepoints: vec![Tracepoint {
            number: 1,
            address: breakpoint.address,
            enabled: true,
            pass_count: 0,
            condition: None,
            registers: (0..16).collect(),
            expressions: vec![Condition { code }],
        }],
        buffer: 5 << 20,
        circular: true,
        client: String::new(),
    };
    debug.call_failable(DebugRequest::StartTrace, start).await?;
    Ok(())
}

/// Passes in a second.
async fn evaluations(debug: &DebugSession) -> Result<f64> {
    let before = evaluated(debug).await?;
    let begun = Instant::now();
    let running = debug.call_failable(DebugRequest::Resume, every(VpAction::Run));
    let stop = async {
        pass(TIME).await;
        let broken = debug.call_failable(DebugRequest::Break, ());
        broken.await.expect("a running guest can be stopped");
    };
    let (stopped, ()) = join(running, stop).await;
    stopped?;
    let seconds = begun.elapsed().as_secs_f64();
    Ok((evaluated(debug).await? - before) as f64 / seconds)
}

async fn evaluated(debug: &DebugSession) -> Result<u64> {
    let hits = debug
        .call_failable(DebugRequest::BreakpointHits, ())
        .await?;
    Ok(hits.first().map_or(0, |hits| hits.passes))
}

async fn pass(time: Duration) {
    let (send, over) = mesh::oneshot();
    thread::spawn(move || {
        thread::sleep(time);
        send.send(());
    });
    over.await.expect("the thread has slept");
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A guest in the loop, and the ioctls that pass the breakpoint.
struct Bare {
    scratch: ScratchVm,
    kind: BreakpointKind,
    offset: usize,
    armed: kvm_guest_debug,
    step: kvm_guest_debug,
}

impl Bare {
    fn new(kind: BreakpointKind, offset: usize) -> Result<Self> {
        let scratch = ScratchVm::new(&open_kvm()?, 0x1000)?;
        scratch.load(&LOOP, BARE)?;
        scratch.start(StartIn::Long, BARE, 0xf00)?;
        let mut armed = kvm_guest_debug {
            control: KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP,
            ..Default::default()
        };
        if kind == BreakpointKind::Execute {
            armed.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
            armed.arch.debugreg[0] = BARE + offset as u64;
            // G0, and GE with the bit that is always 1.
            armed.arch.debugreg[7] = 0x602;
        }
        let step = kvm_guest_debug {
            control: KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP,
            ..Default::default()
        };
        Ok(Self {
            scratch,
            kind,
            offset,
            armed,
            step,
        })
    }

    /// Passes in a second.
    fn rate(&mut self) -> Result<f64> {
        let (mut passes, begun) = (0_u32, Instant::now());
        while begun.elapsed() < TIME {
            self.scratch.vcpu().set_guest_debug(&self.armed)?;
            self.byte(INT3)?;
            self.run()?;
            self.scratch.vcpu().set_guest_debug(&self.step)?;
            self.byte(LOOP[self.offset])?;
            self.run()?;
            passes += 1;
        }
        Ok(f64::from(passes) / begun.elapsed().as_secs_f64())
    }

    fn byte(&mut self, byte: u8) -> Result<()> {
        match self.kind {
            BreakpointKind::Software => {
                Ok(self.scratch.load(&[byte], BARE + self.offset as u64)?)
            }
            _ => Ok(()),
        }
    }

    fn run(&mut self) -> Result<()> {
        match self.scratch.vcpu_mut().run()? {
            VcpuExit::Debug(_) => Ok(()),
            other => Err(format!(
                "the bare loop ended with {other:?}; see what `trapgate doctor` says of breakpoints"
            )
            .into()),
        }
    }
}
