//! One boot: the machine, its channels, and the outcome of the command inside.
//!
//! Standard output, standard error and the control messages each have a channel. Kernel messages go to the serial
//! console, which is kept for the case that the outer kernel crashes.
//!
//! The init writes `up`, then `alive` at intervals, and at the end `exit N` to the control channel. So a command that hangs (a defect of the project) differs from an
//! outer kernel that hangs (a failure of the bed). Other text on the channel is ignored. When this process is killed, the channels close, which ends the machine.

use super::channel::Channel;
use super::channel::Kind;
use super::machine::CHANNELS;
use super::machine::Limits;
use super::machine::Machine;
use super::machine::Plan;
use anyhow::Context as _;
use std::collections::VecDeque;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::process::Child;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;
use std::time::Instant;

const CONSOLE_LINES: usize = 60;

/// The longest wall-clock time for which the machine's own clock may stand still. After this time the machine is ended, because even a busy host gives each process some time.
const STANDSTILL: Duration = Duration::from_secs(180);

/// A boot that has ended.
pub(super) struct Ended {
    /// The outcome.
    pub outcome: Outcome,
    /// If the command failed or hung: messages of the outer kernel that may give the reason.
    pub complaint: Option<String>,
    /// The number of instructions, if the machine counts them.
    pub instructions: Option<u64>,
    /// The last lines of the console.
    pub console: String,
}

/// The outcome of one boot.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The command ended with this exit status.
    Exited(i32),
    /// The command still ran at its time limit, and the outer kernel was healthy.
    TimedOut,
    /// The outer kernel or the machine failed, so the boot says nothing about the command.
    BedFailed {
        /// The outcome in one line.
        why: String,
    },
}

enum Event {
    /// A word of the init, without its mark.
    Control(String),
    MachineEnded,
}

/// The destination of the command's output.
pub(crate) type Sink = Box<dyn Write + Send>;

/// A sink that collects its input.
#[derive(Clone, Default)]
pub(crate) struct Collected(Arc<Mutex<Vec<u8>>>);

impl Collected {
    /// Takes the collected output.
    pub(crate) fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().expect("no holder of this lock panics"))
    }
}

impl Write for Collected {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .expect("no holder of this lock panics")
            .extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Boots `plan` on `machine`, copies both outputs as they arrive, and waits for the end.
pub(super) fn boot(
    machine: &dyn Machine,
    plan: &Plan<'_>,
    stdout: Sink,
    stderr: Sink,
) -> anyhow::Result<Ended> {
    let (events, received) = mpsc::channel();
    let console = Arc::new(Mutex::new(VecDeque::new()));
    let whole_lines = machine.channels() == Kind::Pipe;
    let mut servers: [Option<Server>; CHANNELS.len()] = [
        Some({
            let console = Arc::clone(&console);
            Box::new(move |stream| keep_last_lines(stream, &console))
        }),
        Some(Box::new(move |stream| copy(stream, stdout, whole_lines))),
        Some(Box::new(move |stream| copy(stream, stderr, whole_lines))),
        Some({
            let events = events.clone();
            let mark = plan.mark.clone();
            Box::new(move |stream| {
                // The command may write to this channel too, also bytes that are no text.
                for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                    if let Some(word) = mark.word(&String::from_utf8_lossy(&line)) {
                        let _ = events.send(Event::Control(word.to_owned()));
                    }
                }
            })
        }),
    ];
    let mut channels = Vec::new();
    for (name, server) in CHANNELS.iter().zip(&mut servers) {
        let path = plan.scratch.join(name);
        let server = server.take().expect("each is taken once");
        channels.push(Channel::open(machine.channels(), &path, server)?);
    }

    let mut child = machine
        .command(plan)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", machine.name()))?;
    let mut pipe = child.stdout.take().expect("standard output is a pipe");
    let ended = std::thread::spawn(move || {
        // The output of the machine is not for users; only its end is awaited.
        let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        let _ = events.send(Event::MachineEnded);
    });
    let limits = machine.limits(plan);
    let started = Instant::now();
    let mut verdict = watch(&received, &limits, STANDSTILL, || {
        machine.elapsed(&child, started.elapsed())
    });
    let status = end(&mut child, &received, &verdict, limits.off)?;
    let _ = ended.join();
    for channel in channels {
        channel.finish();
    }
    // All threads have ended, so the queue contains every word, also a last word that came after the end of the machine was noticed.
    if matches!(verdict, Verdict::Gone) {
        let last_word = received.try_iter().find_map(|event| match event {
            Event::Control(line) => word(&line).filter(|word| *word != Word::Alive),
            Event::MachineEnded => None,
        });
        verdict = last_word.and_then(Word::verdict).unwrap_or(Verdict::Gone);
    }

    let console = {
        let lines = console
            .lock()
            .expect("the console thread does not panic while it holds the lock");
        lines.iter().cloned().collect::<Vec<_>>().join("\n")
    };
    let heard = match verdict {
        Verdict::Exit(1..) | Verdict::TimedOut => complaint(&console).map(str::to_owned),
        Verdict::Exit(_) | Verdict::Stalled(_) | Verdict::Gone => None,
    };
    let last_words = machine.last_words(plan);
    let outcome = match verdict {
        Verdict::Exit(code) => Outcome::Exited(code),
        Verdict::TimedOut => Outcome::TimedOut,
        Verdict::Stalled(why) => Outcome::BedFailed { why },
        Verdict::Gone => {
            let name = machine.name();
            let why = match (complaint(&console), &last_words.reason) {
                (Some(line), _) => format!("the outer kernel crashed: {line}"),
                (None, Some(reason)) => {
                    format!("{name} ended ({status}) before the command did: {reason}")
                }
                (None, None) => format!("{name} ended ({status}) before the command did"),
            };
            Outcome::BedFailed { why }
        }
    };
    Ok(Ended {
        outcome,
        complaint: heard,
        instructions: last_words.instructions,
        console,
    })
}

type Server = Box<dyn FnOnce(&mut dyn Read) + Send>;

/// Waits until the command has ended, or the limits have been exceeded by the clock `elapsed`.
fn watch(
    received: &mpsc::Receiver<Event>,
    limits: &Limits,
    standstill: Duration,
    elapsed: impl Fn() -> Duration,
) -> Verdict {
    let mut deadline = limits.up;
    let mut up = false;
    let mut command_deadline = None;
    let mut pulse = Pulse::new(standstill);
    loop {
        let now = elapsed();
        if pulse.has_stopped(now, Instant::now()) {
            return Verdict::Stalled(format!(
                "the machine did nothing for {} s, waiting for something that does not come",
                standstill.as_secs()
            ));
        }
        let next = command_deadline.map_or(deadline, |limit: Duration| limit.min(deadline));
        if now >= next {
            let stalled = |what: &str, limit: Duration| {
                Verdict::Stalled(format!(
                    "the outer kernel {what} {} {}",
                    limit.as_secs(),
                    limits.unit
                ))
            };
            return match command_deadline {
                Some(limit) if limit <= deadline => Verdict::TimedOut,
                _ if up => stalled("gave no sign of life for", limits.alive),
                _ => stalled("was not up after", limits.up),
            };
        }
        // The machine's clock may be slower than ours. It is faster by at most the number of its threads.
        match received.recv_timeout((next - now).min(standstill)) {
            Ok(Event::Control(line)) => match word(&line).and_then(Word::verdict) {
                Some(verdict) => return verdict,
                None => {
                    let now = elapsed();
                    deadline = now + limits.alive;
                    if !up {
                        up = true;
                        command_deadline = limits.command.map(|limit| now + limit);
                    }
                }
            },
            Ok(Event::MachineEnded) | Err(RecvTimeoutError::Disconnected) => return Verdict::Gone,
            // The machine's clock decides whether the time is over.
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Detects a machine whose clock stands still.
struct Pulse {
    standstill: Duration,
    /// The last value of the machine's clock, and when it was first seen.
    last: Option<(Duration, Instant)>,
}

impl Pulse {
    fn new(standstill: Duration) -> Self {
        Self {
            standstill,
            last: None,
        }
    }

    fn has_stopped(&mut self, clock: Duration, now: Instant) -> bool {
        match self.last {
            Some((last, since)) if last == clock => now.duration_since(since) >= self.standstill,
            _ => {
                self.last = Some((clock, now));
                false
            }
        }
    }
}

#[derive(Debug)]
enum Verdict {
    Exit(i32),
    TimedOut,
    Stalled(String),
    Gone,
}

/// A word of the init on the control channel.
#[derive(Debug, PartialEq)]
enum Word {
    Alive,
    Exit(i32),
    TimedOut,
    Broken(String),
}

impl Word {
    fn verdict(self) -> Option<Verdict> {
        match self {
            Self::Alive => None,
            Self::Exit(code) => Some(Verdict::Exit(code)),
            Self::TimedOut => Some(Verdict::TimedOut),
            Self::Broken(why) => Some(Verdict::Stalled(why)),
        }
    }
}

fn word(line: &str) -> Option<Word> {
    match line {
        "up" | "alive" => Some(Word::Alive),
        "timeout" => Some(Word::TimedOut),
        line => match line.split_once(' ')? {
            ("exit", code) => code.parse().ok().map(Word::Exit),
            ("broken", why) => Some(Word::Broken(why.to_owned())),
            _ => None,
        },
    }
}

/// The first console line by which a kernel reports that it is no longer reliable, without its time stamp.
fn complaint(console: &str) -> Option<&str> {
    const WORDS: &[&str] = &[
        "Kernel panic",
        "Oops",
        "BUG: ",
        "corrupted stack end",
        "general protection fault",
        "detected stall",
    ];
    let line = console
        .lines()
        .find(|line| WORDS.iter().any(|word| line.contains(word)))?;
    Some(line.split_once("] ").map_or(line, |(_, text)| text))
}

/// Waits for a machine that powers off, and kills any other machine.
fn end(
    child: &mut Child,
    received: &mpsc::Receiver<Event>,
    verdict: &Verdict,
    limit: Duration,
) -> anyhow::Result<std::process::ExitStatus> {
    if matches!(verdict, Verdict::Exit(_)) {
        let deadline = Instant::now() + limit;
        while let Ok(Event::Control(_)) =
            received.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {}
    }
    // It is no error to kill a machine that has ended already.
    let _ = child.kill();
    child.wait().context("cannot wait for the machine")
}

/// Copies output as it arrives, or in whole lines. Two ports that each bring some bytes at a time would otherwise mix their lines.
fn copy(stream: &mut dyn Read, mut sink: Sink, whole_lines: bool) {
    let mut buffer = [0; 16 << 10];
    let mut held = Vec::new();
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        held.extend(&buffer[..length]);
        let ready = match held.iter().rposition(|byte| *byte == b'\n') {
            Some(end) if whole_lines => end + 1,
            None if whole_lines => continue,
            _ => held.len(),
        };
        if sink.write_all(&held[..ready]).is_err() || sink.flush().is_err() {
            return;
        }
        held.drain(..ready);
    }
    let _ = sink.write_all(&held).and_then(|()| sink.flush());
}

fn keep_last_lines(stream: &mut dyn Read, lines: &Mutex<VecDeque<String>>) {
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let mut lines = lines.lock().expect("no holder of this lock panics");
        if lines.len() == CONSOLE_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

#[cfg(test)]
mod tests;
