//! Measures round trips that stop the guest, and the speed of a running guest with and without an attached debugger. The guest never halts meanwhile.

use super::cores::Core;
use super::cores::Pinned;
use super::echo;
use super::elf_symbols;
use super::measures;
use super::measures::request;
use super::rsp::Client;
use super::rsp::unescaped;
use super::servers::Server;
use anyhow::Context as _;
use anyhow::bail;
use std::ops::Range;
use std::time::Duration;
use std::time::Instant;

/// The demo guest calls this function some hundred thousand times a second while it spins.
const FUNCTION: &str = "is_prime";
/// `SCENARIO_SPIN` of the demo guest.
const SPIN: &str = "07000000";
/// The time for which a guest runs with a debugger attached, and without one. The two take turns, because the speed of the machine drifts by more than the difference.
const WINDOW: Duration = Duration::from_millis(500);
/// The demo guest calls [`FUNCTION`] so often in a round: its `NUMBERS_PER_ROUND`.
const CALLS_PER_ROUND: f64 = 10.0;
/// A condition in a packet, in bytecode of agent expressions: the first argument of [`FUNCTION`] is 2^32 - 1.
const NEVER: &str = ";Xa,26000524ffffffff1327";
/// GDB's number of `rdi`, the first argument.
const RDI: &str = "P5";
/// A number that `is_prime` divides a thousand times, 1009 squared, as the value of `rdi` in a packet.
const LONG_LOOP: &str = "e1880f0000000000";
/// A range step of fewer instructions has not stepped the range.
const LEAST_STEPS: u32 = 1000;

/// How the breakpoint stops the guest: with a breakpoint byte or a debug register.
#[derive(Clone, Copy)]
pub(super) enum Breakpoint {
    Software,
    Hardware,
}

impl Breakpoint {
    fn packet(self, letter: char, address: u64) -> String {
        let kind = match self {
            Self::Software => 0,
            Self::Hardware => 1,
        };
        format!("{letter}{kind},{address:x},1")
    }
}

/// A guest that spins, with an attached session.
pub(super) struct Spinning<'a> {
    /// The name in the report.
    pub name: &'static str,
    server: &'a Server,
    client: Option<Client>,
    function: Range<u64>,
    counter: u64,
    /// The number of instructions of the long loop, when they have been counted. Every server runs the same loop.
    pub steps: Option<u32>,
}

impl<'a> Spinning<'a> {
    /// Attaches to a server that holds the guest before its first instruction.
    pub(super) fn start(server: &'a Server) -> anyhow::Result<Self> {
        let symbol = |name| {
            elf_symbols::range(demo_guest::ELF, name)
                .with_context(|| format!("the demo guest has no symbol {name}"))
        };
        let function = symbol(FUNCTION)?;
        let mut client = server.client()?;
        measures::run_to(&mut client, function.start)?;
        request(&format!("M{:x},4:{SPIN}", symbol("scenario")?.start))(&mut client)?;
        Ok(Self {
            name: server.name,
            server,
            client: Some(client),
            function,
            counter: symbol("counter")?.start,
            steps: None,
        })
    }

    /// The session.
    pub(super) fn client(&mut self) -> anyhow::Result<&mut Client> {
        self.client.as_mut().context("the session is over")
    }

    /// The time from one hit to the next, in microseconds: with GDB's four packets (remove, step, insert, continue), and with `continue` alone.
    pub(super) fn hits(&mut self, kind: Breakpoint, packets: Packets) -> anyhow::Result<f64> {
        let address = self.function.start;
        let [insert, remove] = ['Z', 'z'].map(|letter| kind.packet(letter, address));
        let client = self.client()?;
        request(&insert)(client)?;
        trapped(client)?;
        let trip = measures::micros(client, |client| {
            if packets == Packets::LikeGdb {
                request(&remove)(client)?;
                stop("s")(client)?;
                request(&insert)(client)?;
            }
            trapped(client)
        });
        request(&remove)(client)?;
        trip
    }

    /// How many conditions of a breakpoint are evaluated in a second, each of which is false. No stop is reported.
    pub(super) fn false_conditions(&mut self, kind: Breakpoint) -> anyhow::Result<f64> {
        let address = self.function.start;
        let insert = format!("{}{NEVER}", kind.packet('Z', address));
        request(&insert)(self.client()?)?;
        let rounds = self.rounds_attached();
        request(&kind.packet('z', address))(self.client()?)?;
        Ok(rounds? * CALLS_PER_ROUND)
    }

    /// The time from a continue that Ctrl-C follows at once to the stop, in microseconds.
    pub(super) fn interrupt(&mut self) -> anyhow::Result<f64> {
        measures::micros(self.client()?, |client| {
            client.send("c")?;
            client.interrupt()?;
            stopped("Ctrl-C", client.reply()?)
        })
    }

    /// The number of instructions per second of one `vCont;r` over a loop.
    pub(super) fn range_steps(&mut self) -> anyhow::Result<f64> {
        let Range { start, end } = self.function;
        let insert = Breakpoint::Hardware.packet('Z', start);
        let remove = Breakpoint::Hardware.packet('z', start);
        let argument = format!("{RDI}={LONG_LOOP}");
        let known = self.steps;
        let client = self.client()?;
        let arrive = |client: &mut Client| {
            request(&insert)(client)?;
            stop("c")(client)?;
            request(&remove)(client)?;
            request(&argument)(client)
        };
        let mut steps = known.unwrap_or(0);
        if known.is_none() {
            arrive(client)?;
            while (start..end).contains(&program_counter(client)?) {
                stop("s")(client)?;
                steps += 1;
            }
            anyhow::ensure!(steps >= LEAST_STEPS, "the loop has only {steps} steps");
        }
        arrive(client)?;
        let begun = Instant::now();
        stop(&format!("vCont;r{start:x},{end:x}"))(client)?;
        let took = begun.elapsed().as_secs_f64();
        let pc = program_counter(client)?;
        anyhow::ensure!(
            !(start..end).contains(&pc),
            "the range step ended inside its range, at {pc:x}"
        );
        self.steps = Some(steps);
        Ok(f64::from(steps) / took)
    }

    /// The rounds of the guest's loop per second, with an open session without breakpoints and without a session. `turn` decides which one is measured first.
    pub(super) fn rounds(&mut self, turn: u32) -> anyhow::Result<(f64, f64)> {
        Ok(match turn.is_multiple_of(2) {
            true => (self.rounds_attached()?, self.rounds_detached()?),
            false => {
                let detached = self.rounds_detached()?;
                (self.rounds_attached()?, detached)
            }
        })
    }

    fn rounds_attached(&mut self) -> anyhow::Result<f64> {
        let before = self.counted()?;
        let client = self.client()?;
        client.send("c")?;
        let begun = Instant::now();
        anyhow::ensure!(!client.wait(WINDOW)?, "the guest stopped by itself");
        client.interrupt()?;
        stopped("Ctrl-C", client.reply()?)?;
        let took = begun.elapsed();
        Ok(rate(self.counted()?.wrapping_sub(before), took))
    }

    fn rounds_detached(&mut self) -> anyhow::Result<f64> {
        let before = self.counted()?;
        let client = self.client.take().context("the session is over")?;
        let begun = Instant::now();
        client.detach()?;
        std::thread::sleep(WINDOW);
        // The server stops the guest for a new connection.
        self.client = Some(self.server.client()?);
        request("?")(self.client()?)?;
        let took = begun.elapsed();
        Ok(rate(self.counted()?.wrapping_sub(before), took))
    }

    fn counted(&mut self) -> anyhow::Result<u64> {
        let address = self.counter;
        little_endian(self.client()?.request(&format!("m{address:x},8"))?)
    }
}

/// How a client continues from a breakpoint.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Packets {
    /// Remove the breakpoint, step, insert the breakpoint, continue.
    LikeGdb,
    /// Continue only.
    Continue,
}

/// Measures as many round trips to the echo server as [`Spinning::hits`] makes, of the same lengths.
pub(super) fn floor(client: &mut Client, packets: Packets) -> anyhow::Result<f64> {
    let times = match packets {
        Packets::LikeGdb => 4,
        Packets::Continue => 1,
    };
    let _apart = Pinned::to(Core::First)?;
    measures::micros(client, |client| {
        (0..times).try_for_each(|_| request(&echo::request(32))(client))
    })
}

fn stop(packet: &str) -> impl Fn(&mut Client) -> anyhow::Result<()> {
    let packet = packet.to_owned();
    move |client| stopped(&packet, client.request(&packet)?)
}

/// A continue that ends at a breakpoint, with SIGTRAP. A stop with another signal, such as that of a KVM error, would look fast.
fn trapped(client: &mut Client) -> anyhow::Result<()> {
    match client.request("c")? {
        [b'T' | b'S', b'0', b'5', ..] => Ok(()),
        reply => bail!("`c` was answered `{}`", String::from_utf8_lossy(reply)),
    }
}

fn stopped(packet: &str, reply: &[u8]) -> anyhow::Result<()> {
    match reply.first() {
        Some(b'T' | b'S') => Ok(()),
        _ => bail!(
            "`{packet}` was answered `{}`",
            String::from_utf8_lossy(reply)
        ),
    }
}

/// RIP is the 17th register of 8 bytes.
fn program_counter(client: &mut Client) -> anyhow::Result<u64> {
    let registers = unescaped(client.request("g")?);
    little_endian(registers.get(16 * 16..17 * 16).context("a short `g`")?)
}

fn little_endian(hex: &[u8]) -> anyhow::Result<u64> {
    let hex = unescaped(hex);
    let number = u64::from_str_radix(std::str::from_utf8(&hex)?, 16);
    Ok(number.context("not 8 bytes in hex")?.swap_bytes())
}

fn rate(rounds: u64, took: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rounds = rounds as f64;
    rounds / took.as_secs_f64()
}
