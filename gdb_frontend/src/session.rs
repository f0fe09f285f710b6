//! The session of one client: takes bytes and returns actions. It begins with a [`FirstPacket`], which waits for the first packet.
//!
//! ```text
//!                         push                                    poll_action
//!   client ---- bytes ----------> Decoder -- Frame --> Command ----------------> Action::Send ----> client
//!                                                         |
//!                                                         +--------------------> Action::Target --> guest
//!                                                                                                     |
//!                          reply <---- Pending <-------------------------------- complete <-----------+
//! ```
//! The session handles all input in order. One operation is in progress at a time, and later input waits. Ctrl-C waits too, so it never
//! overtakes the `c` before it.
//!
//! A Ctrl-C stays pending until the guest has stopped for it, or until the client has shown another stop. GDB does not show every stop (a condition that is
//! false, an ignore count, `dprintf`), and a Ctrl-C during a stop that is not shown has to end the next resume. After a stop that GDB shows, it reads the list of
//! threads; after other stops it never does. A Ctrl-C from before such a stop has crossed with it, and the user has the stop that they wanted.

mod complete;
mod execute;
mod expedited;
mod extended;
mod files;
mod first_packet;
mod lldb;
mod non_stop;
mod pending;
mod refusals;
mod stop_info;
mod stop_reply;
mod tables;
mod threads;
mod trace;
mod transfer;

use crate::command::ClientFeatures;
use crate::command::Command;
use crate::command::ThreadSelector;
use crate::command::thread_suffix;
use crate::framing::Decoder;
use crate::framing::Frame;
use crate::framing::Outbox;
use crate::framing::PACKET_SIZE;
use crate::framing::PacketCounts;
use crate::framing::PacketWriter;
use crate::target::Stop;
use crate::target::StopReason;
use crate::target::TargetError;
use crate::target::TargetInfo;
use crate::target::TargetOp;
use crate::target::TargetReply;
use crate::target::Tid;
use files::OpenFiles;
use non_stop::NonStop;
use pending::Pending;
use pending::Reply;
use refusals::Refusals;
use threads::Threads;

pub use first_packet::FirstPacket;
pub use first_packet::NotADebugger;
pub use first_packet::Progress;

/// An action of the session, for the driver to carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Write these bytes to the client, in one write.
    Send(Vec<u8>),
    /// Carry out this operation and call [`Session::complete`].
    Target(TargetOp),
    /// Close the connection after all earlier bytes were sent.
    Close,
}

/// The session of one client.
#[derive(Debug)]
pub struct Session {
    decoder: Decoder,
    // A separate struct, so that a packet in the decoder's buffer can be borrowed while the session executes it.
    core: Core,
}

/// A session without its decoder.
#[derive(Debug)]
struct Core {
    info: TargetInfo,
    /// The threads at the last stop.
    threads: Threads,
    outbox: Outbox,
    client: ClientFeatures,
    operation: Operation,
    guest: Guest,
    connection: Connection,
    /// The thread of `g`, `m` and similar packets: selected by `Hg` or by the last stop.
    current: Tid,
    /// The thread in the stop reply of a stop that concerns no single thread, such as an interrupt. The last resume has
    /// run this thread.
    interrupt_thread: Tid,
    /// The threads of `c` and `s`, selected by `Hc`.
    resumed: ThreadSelector,

    /// The list of threads at the time when the client began to read it.
    thread_list: Vec<u8>,
    /// The table of `info os` at the time when the client began to read it.
    table: Vec<u8>,
    /// Whether memory packets use physical addresses (`Qqemu.PhyMemMode`). Breakpoints always use virtual addresses.
    physical_memory: bool,
    /// Whether the user has asked for a stop, and no stop has been shown since.
    interrupt_wanted: bool,
    /// The byte which shows that the client is no debugger.
    foreign: Option<u8>,
    /// The refused breakpoints that the user is told of as soon as the protocol allows it.
    refusals: Refusals,
    open_files: OpenFiles,
    /// Whether the connection outlives `vKill`.
    extended: bool,
    /// Whether the client has no process, since its `vKill`.
    killed: bool,
    /// Whether the client has detached in extended mode: the guest runs, and the client may read the file with the symbols.
    detached: bool,
    first_exchange: FirstExchange,
}

/// GDB sends a packet again that nobody has acknowledged for 2 s (`set remotetimeout`). A client that connects while no server is there yet does so with its
/// first packet. It waits for one answer, and would take a second answer for that of its next packet.
#[derive(Debug)]
enum FirstExchange {
    Expected,
    /// This packet was answered, and the client has not acknowledged the answer.
    Answered(Vec<u8>),
    Over,
}

/// The operation in progress, if there is one.
#[derive(Debug)]
enum Operation {
    None,
    /// `poll_action` has not returned the operation yet.
    Asked(TargetOp, Pending),
    Out(Pending),
}

/// The state of the guest, as the client knows it.
#[derive(Debug)]
enum Guest {
    /// The guest is stopped, for this reason.
    Stopped(Stop),
    /// The guest runs, and the client waits for a stop reply. A stop that came during an operation waits for the end of
    /// the operation.
    Running(Option<(Stop, Option<String>)>),
    /// Each thread is stopped or runs by itself.
    NonStop(NonStop),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Connection {
    Open,
    /// The connection will be closed after all bytes were sent.
    Closing,
    Closed,
}

impl Session {
    /// A session with a client that has just connected. The guest is stopped.
    pub fn new(mut info: TargetInfo) -> Self {
        // From here on, `threads` is the only list.
        let threads = Threads::new(std::mem::take(&mut info.threads));
        let first = threads.first();
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

                threads,
                thread_list: Vec::new(),
                table: Vec::new(),
                physical_memory: false,
                interrupt_wanted: false,
                foreign: None,
                refusals: Refusals::default(),
                open_files: OpenFiles::default(),
                extended: false,
                killed: false,
                detached: false,
                first_exchange: FirstExchange::Expected,
                info,
            },
        }
    }

    /// Takes bytes from the client, in parts of any length. Never fails: bad input gets an error reply.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.core.connection == Connection::Open {
            self.decoder.push(bytes);
        }
    }

    /// Whether the session can take more input. While it cannot, leave further bytes in the socket: a client that does
    /// not wait for replies would otherwise exhaust the memory.
    pub fn wants_input(&self) -> bool {
        self.decoder.buffered() <= PACKET_SIZE
    }

    /// The first byte of the client that no debugger sends before its first packet. After [`Action::Close`] it is the
    /// reason for closing.
    pub fn foreign_byte(&self) -> Option<u8> {
        self.core.foreign
    }

    /// Returns the next action. `None` if the session needs more input. During an operation, further packets wait, but
    /// bytes that are ready are returned. A Ctrl-C while the guest runs results in [`TargetOp::Interrupt`].
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

    /// How many packets the session has received and sent since the last call.
    pub fn take_packet_counts(&mut self) -> PacketCounts {
        self.core.outbox.take_counts()
    }

    /// Completes the operation in progress. Has no effect if there is none.
    pub fn complete(&mut self, reply: TargetReply) {
        match std::mem::replace(&mut self.core.operation, Operation::None) {
            Operation::Out(pending) => self.core.complete(pending, reply),
            other => self.core.operation = other,
        }
        self.core.report_stop();
    }

    /// The guest has these threads from the stop on that [`stopped`](Self::stopped) reports next.
    pub fn set_threads(&mut self, threads: Vec<Tid>) {
        self.core.set_threads(threads);
    }

    /// Shows what a command of a breakpoint has printed. Text that comes while the client does not wait for a stop is dropped, because the protocol has no place for it.
    pub fn print(&mut self, text: &[u8]) {
        if let Guest::Running(_) = &self.core.guest {
            self.core.console_bytes(text);
        }
    }

    /// Whether the client has still to say that it has seen the end of the guest, in non-stop mode. Then the session closes.
    pub fn end_is_unseen(&self) -> bool {
        matches!(&self.core.guest, Guest::NonStop(non_stop) if non_stop.end_is_unseen())
    }

    /// Shows text while a `monitor` command is in progress. Returns the bytes to write at once.
    pub fn show_progress(&mut self, text: &str) -> Vec<u8> {
        if let Operation::Out(Pending::Monitor) = self.core.operation {
            self.core.console(text);
        }
        self.core.outbox.take_ready()
    }

    /// Reports that the guest has stopped after a [`TargetOp::Resume`] that was answered with [`TargetReply::Done`].
    /// `console` is text that the user sees before the stop reply. A stop without a preceding resume is dropped. A stop
    /// which says that the guest has ended ends the session. In non-stop mode the stop is that of its thread, or of all threads that run if the stop has no thread or is
    /// an event of the whole guest. `console` is dropped then, because the protocol has no place for it.
    pub fn stopped(&mut self, stop: Stop, console: Option<&str>) {
        match &mut self.core.guest {
            Guest::Running(waiting @ None) => {
                *waiting = Some((stop, console.map(str::to_owned)));
                self.core.report_stop();
            }
            Guest::NonStop(_) => self.core.threads_stopped(stop),
            Guest::Running(Some(_)) | Guest::Stopped(_) => {}
        }
    }
}

impl Core {
    fn frame(&mut self, frame: Frame<'_>) {
        match frame {
            Frame::Packet(packet) if self.is_sent_again(packet) => self.outbox.received_again(),
            Frame::Packet(packet) => {
                self.outbox.received(true);
                let parsed = match self.client.lldb {
                    true => thread_suffix(packet),
                    false => Ok((packet, None)),
                };
                let parsed =
                    parsed.and_then(|(packet, thread)| Ok((Command::parse(packet)?, thread)));
                match parsed {
                    Ok((command, None)) => self.execute(command),
                    Ok((command, Some(thread))) => self.execute_for(thread, command),
                    Err(error) => self.error(&TargetError {
                        errno: 22,
                        text: error.to_string(),
                    }),
                }
            }
            Frame::Ack => {
                if let FirstExchange::Answered(_) = self.first_exchange {
                    self.first_exchange = FirstExchange::Over;
                }
                self.outbox.acknowledged();
            }
            Frame::Nack => self.outbox.send_again(),
            Frame::Interrupt => self.interrupt(Pending::Interrupt),
            Frame::BadChecksum => {
                self.outbox.received(false);
                // With acknowledgements, `-` asks for the packet again. Without them, the client waits for a reply.
                if !self.outbox.has_acks() {
                    self.error(&TargetError {
                        errno: 22,
                        text: "the packet came with a wrong checksum; send it again".to_owned(),
                    });
                }
            }
            // An answer would only tell a web page that a debug server is here.
            Frame::Foreign(byte) => {
                self.foreign = Some(byte);
                self.close();
            }
            Frame::Oversized => {
                self.outbox.received(true);
                self.error(&TargetError {
                    errno: 22,
                    text: format!(
                        "the packet is longer than the announced size of {PACKET_SIZE:#x} bytes; send shorter packets"
                    ),
                });
            }
        }
    }

    /// Whether this is the client's first packet again, whose answer the client has not seen yet.
    fn is_sent_again(&mut self, packet: &[u8]) -> bool {
        match &self.first_exchange {
            FirstExchange::Answered(first) if first == packet => return true,
            FirstExchange::Expected if packet.starts_with(b"qSupported") => {
                self.first_exchange = FirstExchange::Answered(packet.to_vec());
            }
            _ => self.first_exchange = FirstExchange::Over,
        }
        false
    }

    /// Stops a running guest. If the guest is stopped, the next resume ends at once.
    fn interrupt(&mut self, pending: Pending) {
        if let Guest::NonStop(_) = self.guest {
            return self.stop_one_thread(match pending {
                Pending::Ok => Reply::Ok,
                _ => Reply::None,
            });
        }
        self.interrupt_wanted = true;
        match (&self.guest, pending) {
            (Guest::Running(_), pending) => self.ask(TargetOp::Interrupt, pending),
            (Guest::Stopped(_), Pending::Ok) => self.ok(),
            (Guest::Stopped(_) | Guest::NonStop(_), _) => {}
        }
    }

    /// Sends the pending stop reply, if no operation is in progress.
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

    /// Sends a stop reply and makes its thread the current thread, as the client does.
    fn send_stop(&mut self, stop: Stop) {
        self.current = stop.thread.unwrap_or(self.interrupt_thread);
        if self.client.lldb {
            return self.send_stop_with_registers(stop);
        }
        let packet = stop_reply::packet(stop.reason, self.current, self.client);
        self.outbox.packet(packet.finish());
    }

    fn ask(&mut self, op: TargetOp, pending: Pending) {
        self.operation = Operation::Asked(op, pending);
    }

    fn ok(&mut self) {
        self.text("OK");
    }

    fn text(&mut self, text: &str) {
        self.outbox.packet(PacketWriter::text(text));
    }

    /// `E NN`, `E NN;` and a text in hex, or `E.` and a text, as the client accepts texts.
    fn error(&mut self, error: &TargetError) {
        let mut packet = PacketWriter::default();
        if self.client.error_message {
            packet.str("E.");
            packet.message(&error.text);
        } else {
            packet.str("E");
            packet.hex(&[error.errno]);
            if self.client.error_strings {
                packet.str(";");
                packet.hex(error.text.as_bytes());
            }
        }
        self.outbox.packet(packet.finish());
    }

    /// Shows the pending texts. The client waits for a stop or for the answer to a `monitor` command, so the protocol
    /// allows text.
    fn tell_waiting(&mut self) {
        if let Some(text) = self.info.explanation.take() {
            self.console(&text);
        }
        if let Some(text) = self.refusals.take() {
            self.console(&text);
        }
    }

    /// Shows text to the user, in as many `O` packets as necessary.
    fn console(&mut self, text: &str) {
        self.console_bytes(text.as_bytes());
    }

    /// As [`console`](Self::console), for text in the encoding of the guest.
    fn console_bytes(&mut self, text: &[u8]) {
        for chunk in text.chunks((PACKET_SIZE - 1) / 2) {
            let mut packet = PacketWriter::with_capacity(1 + 2 * chunk.len());
            packet.str("O");
            packet.hex(chunk);
            self.outbox.packet(packet.finish());
        }
    }
}

#[cfg(test)]
mod properties;
