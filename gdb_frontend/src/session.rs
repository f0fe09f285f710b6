//! One client's session: bytes in, actions out. It begins with an [`Opening`], which ends with the first packet.
//!
//! ```text
//!                         push                                    poll_action
//!   client ---- bytes ----------> Decoder -- Frame --> Command ----------------> Action::Send ----> client
//!                                                         |
//!                                                         +--------------------> Action::Target --> guest
//!                                                                                                     |
//!                          reply <---- Pending <-------------------------------- complete <-----------+
//! ```
//! Everything is done in the order in which it came. One operation is out at a time, and what comes in meanwhile waits; that
//! includes Ctrl-C, which so never overtakes the `c` before it.
//!
//! A Ctrl-C stands until the guest has stopped for it or the client has shown another stop. GDB keeps many stops to itself (a condition that is
//! false, an ignore count, `dprintf`), and a Ctrl-C from the middle of one has to end the resume that follows. A stop that GDB shows is one
//! after which it reads the list of threads, which it never does for the others; a Ctrl-C from before that crossed with the stop, and the user has what they wanted.

mod complete;
mod execute;
mod opening;
mod pending;
mod refusals;
mod stop_info;
mod stop_reply;
mod transfer;

use crate::command::ClientFeatures;
use crate::command::Command;
use crate::command::ThreadSelector;
use crate::framing::Decoder;
use crate::framing::Frame;
use crate::framing::Outbox;
use crate::framing::PACKET_SIZE;
use crate::framing::PacketWriter;
use crate::target::Stop;
use crate::target::StopReason;
use crate::target::TargetError;
use crate::target::TargetInfo;
use crate::target::TargetOp;
use crate::target::TargetReply;
use crate::target::Tid;
use pending::Pending;
use refusals::Refusals;

pub use opening::NoDebugger;
pub use opening::Opening;
pub use opening::Progress;

/// What the driver has to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write these bytes to the client, in one write.
    Send(Vec<u8>),
    /// Carry this out and call [`Session::complete`].
    Target(TargetOp),
    /// Close the connection, after what was sent before has gone out.
    Close,
}

/// One client's session.
#[derive(Debug)]
pub struct Session {
    decoder: Decoder,
    // Apart from the decoder, so that a packet can be looked at where it lies.
    core: Core,
}

/// A session without its input.
#[derive(Debug)]
struct Core {
    info: TargetInfo,
    outbox: Outbox,
    client: ClientFeatures,
    operation: Operation,
    guest: Guest,
    connection: Connection,
    /// The thread of `g`, `m` and the like, chosen by `Hg` or by the last stop.
    current: Tid,
    /// The thread that the stop reply names where the stop concerns no single thread, as an interrupt does. The last resume let this thread go.
    interrupt_thread: Tid,
    /// The threads of `c` and `s`, chosen by `Hc`.
    resumed: ThreadSelector,
    /// A buffer that the driver is done with.
    spare: Vec<u8>,
    /// The list of threads as it was when the client began to read it.
    threads: Vec<u8>,
    /// Memory is read and written by physical addresses (`Qqemu.PhyMemMode`). Breakpoints are not concerned.
    physical_memory: bool,
    /// The user wants a stop, and has not been shown one since.
    interrupt_wanted: bool,
    /// The byte that showed that the client is no debugger.
    foreign: Option<u8>,
    /// What the user is to be told of breakpoints as soon as the protocol allows it.
    refusals: Refusals,
}

/// The operation that the driver has been asked for, or is about to be.
#[derive(Debug)]
enum Operation {
    None,
    /// `poll_action` has not handed it out yet.
    Asked(TargetOp, Pending),
    Out(Pending),
}

/// What the guest does.
#[derive(Debug)]
enum Guest {
    /// It stands still, for this reason.
    Stopped(Stop),
    /// It runs, and the client waits for a stop reply. A stop that came while an operation was out waits for its end.
    Running(Option<(Stop, Option<String>)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connection {
    Open,
    /// To be closed once everything has been sent.
    Closing,
    Closed,
}

impl Session {
    /// A session with a client that has just connected. The guest is stopped.
    pub fn new(info: TargetInfo) -> Self {
        let first = Tid::new(1).expect("1 is not 0");
        Self {
            decoder: Decoder::default(),
            core: Core {
                outbox: Outbox::default(),
                client: ClientFeatures::default(),
                operation: Operation::None,
                guest: Guest::Stopped(info.stop),
                connection: Connection::Open,
                current: info.stop.thread.unwrap_or(first),
                interrupt_thread: info.stop.thread.unwrap_or(first),
                resumed: ThreadSelector::Any,
                spare: Vec::new(),
                threads: Vec::new(),
                physical_memory: false,
                interrupt_wanted: false,
                foreign: None,
                refusals: Refusals::default(),
                info,
            },
        }
    }

    /// Takes bytes from the client, in whatever pieces they come. Never fails: bad input gets an error reply.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.core.connection == Connection::Open {
            self.decoder.push(bytes);
        }
    }

    /// Whether there is room for more input. While this says no, leave what comes in the socket: a client that does not wait for
    /// replies would else fill the memory.
    pub fn wants_input(&self) -> bool {
        self.decoder.buffered() <= PACKET_SIZE
    }

    /// The first byte of the client that no debugger sends before its first packet; after [`Action::Close`], the reason for it.
    pub fn foreign_byte(&self) -> Option<u8> {
        self.core.foreign
    }

    /// Takes back the buffer of an [`Action::Send`] that has been written. Not a must; but a fresh quarter of a mebibyte costs more
    /// in page faults than it takes to fill.
    pub fn recycle(&mut self, buffer: Vec<u8>) {
        if self.core.spare.capacity() < buffer.capacity() && buffer.capacity() <= 2 * PACKET_SIZE {
            self.core.spare = buffer;
        }
    }

    /// The next thing to do; `None` until more comes in. While an operation is out, everything the client sends waits, except that
    /// what is ready is sent. A Ctrl-C while the guest runs yields [`TargetOp::Interrupt`].
    pub fn poll_action(&mut self) -> Option<Action> {
        loop {
            let ready = self.core.outbox.take_ready();
            if !ready.is_empty() {
                return Some(Action::Send(ready));
            }
            match self.core.connection {
                Connection::Open => {}
                Connection::Closing => {
                    self.core.connection = Connection::Closed;
                    return Some(Action::Close);
                }
                Connection::Closed => return None,
            }
            match std::mem::replace(&mut self.core.operation, Operation::None) {
                Operation::None => {}
                Operation::Asked(op, pending) => {
                    self.core.operation = Operation::Out(pending);
                    return Some(Action::Target(op));
                }
                Operation::Out(pending) => {
                    self.core.operation = Operation::Out(pending);
                    return None;
                }
            }
            let frame = self.decoder.next_frame()?;
            self.core.frame(frame);
        }
    }

    /// Answers the operation that is out. Without one that is out, nothing happens.
    pub fn complete(&mut self, reply: TargetReply) {
        match std::mem::replace(&mut self.core.operation, Operation::None) {
            Operation::Out(pending) => self.core.complete(pending, reply),
            other => self.core.operation = other,
        }
        self.core.report_stop();
    }

    /// The guest has stopped, after a [`TargetOp::Resume`] that was answered with [`TargetReply::Done`]. `console` is text to
    /// show the user before the stop reply, where there is some. A stop that nothing led to is dropped. One that says that there is no guest any more
    /// ends the session.
    pub fn stopped(&mut self, stop: Stop, console: Option<&str>) {
        if let Guest::Running(waiting @ None) = &mut self.core.guest {
            *waiting = Some((stop, console.map(str::to_owned)));
            self.core.report_stop();
        }
    }
}

impl Core {
    fn frame(&mut self, frame: Frame<'_>) {
        match frame {
            Frame::Packet(packet) => {
                self.outbox.received(true);
                match Command::parse(packet) {
                    Ok(command) => self.execute(command),
                    Err(error) => self.error(&TargetError {
                        errno: 22,
                        text: error.to_string(),
                    }),
                }
            }
            Frame::Ack => self.outbox.acknowledged(),
            Frame::Nack => self.outbox.send_again(),
            Frame::Interrupt => self.interrupt(Pending::Interrupt),
            Frame::BadChecksum => {
                self.outbox.received(false);
                // With acknowledgements the `-` asks for the packet again; without, somebody waits for a reply.
                if !self.outbox.has_acks() {
                    self.error(&TargetError {
                        errno: 22,
                        text: "the packet came with a wrong checksum; send it again".to_owned(),
                    });
                }
            }
            // An answer would only tell a web page what is here.
            Frame::Foreign(byte) => {
                self.foreign = Some(byte);
                self.close();
            }
            Frame::Oversized => {
                self.outbox.received(true);
                self.error(&TargetError {
                    errno: 22,
                    text: format!("the packet is longer than {PACKET_SIZE:#x} bytes, the size that was announced"),
                });
            }
        }
    }

    /// Stops a guest that runs; where it stands still, the resume that follows.
    fn interrupt(&mut self, pending: Pending) {
        self.interrupt_wanted = true;
        match (&self.guest, pending) {
            (Guest::Running(_), pending) => self.ask(TargetOp::Interrupt, pending),
            (Guest::Stopped(_), Pending::Ok) => self.ok(),
            (Guest::Stopped(_), _) => {}
        }
    }

    /// Sends the stop reply that is due, once no operation is out.
    fn report_stop(&mut self) {
        if !matches!(self.operation, Operation::None) || self.connection != Connection::Open {
            return;
        }
        let Guest::Running(waiting) = &mut self.guest else {
            return;
        };
        let Some((stop, console)) = waiting.take() else {
            return;
        };
        self.tell_waiting();
        if let Some(text) = console {
            self.console(&text);
        }
        self.guest = Guest::Stopped(stop);
        if stop.reason == StopReason::Interrupt {
            self.interrupt_wanted = false;
        }
        match stop_reply::ending(stop.reason) {
            Some(packet) => {
                self.outbox.packet(packet);
                self.close();
            }
            None => self.send_stop(stop),
        }
    }

    /// Tells of a stop and makes its thread the current one, as the client does for itself.
    fn send_stop(&mut self, stop: Stop) {
        self.current = stop.thread.unwrap_or(self.interrupt_thread);
        let packet = stop_reply::packet(stop.reason, self.current, self.client);
        self.outbox.packet(packet);
    }

    fn ask(&mut self, op: TargetOp, pending: Pending) {
        self.operation = Operation::Asked(op, pending);
    }

    /// A packet for a reply of some size.
    fn large_packet(&mut self, payload: usize) -> PacketWriter {
        PacketWriter::in_buffer(std::mem::take(&mut self.spare), payload)
    }

    fn ok(&mut self) {
        self.text("OK");
    }

    fn text(&mut self, text: &str) {
        self.outbox.packet(PacketWriter::text(text));
    }

    /// `E NN`, or `E.` and words for clients that take them.
    fn error(&mut self, error: &TargetError) {
        let mut packet = PacketWriter::default();
        if self.client.error_message {
            packet.str("E.");
            packet.message(&error.text);
        } else {
            packet.str("E");
            packet.hex(&[error.errno]);
        }
        self.outbox.packet(packet.finish());
    }

    /// The client waits for a stop or for the answer to a `monitor` command: the user can be told.
    fn tell_waiting(&mut self) {
        if let Some(text) = self.info.explanation.take() {
            self.console(&text);
        }
        if let Some(text) = self.refusals.take() {
            self.console(&text);
        }
    }

    /// Shows text to the user, in as many `O` packets as it takes.
    fn console(&mut self, text: &str) {
        for chunk in text.as_bytes().chunks((PACKET_SIZE - 1) / 2) {
            let mut packet = PacketWriter::with_capacity(1 + 2 * chunk.len());
            packet.str("O");
            packet.hex(chunk);
            self.outbox.packet(packet.finish());
        }
    }
}
