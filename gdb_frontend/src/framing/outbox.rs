//! Acknowledgements: what has been sent and may have to be sent again (GDB manual, node "Packet Acknowledgment").

use std::collections::VecDeque;

/// Packets for the client, in order. With acknowledgements on, a packet goes out only when the one before it was acknowledged: a
/// client that missed one would else get them in the wrong order.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    mode: Mode,
    /// The first one has been sent.
    unacknowledged: VecDeque<Vec<u8>>,
    /// Ready to be written.
    ready: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mode {
    #[default]
    Acks,
    NoAcks,
}

impl Outbox {
    /// What is to be written now; empty when there is nothing.
    pub(crate) fn take_ready(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.ready)
    }

    /// Sends a packet, framed.
    pub(crate) fn packet(&mut self, packet: Vec<u8>) {
        if self.mode == Mode::NoAcks {
            return self.write(packet);
        }
        if self.unacknowledged.is_empty() {
            self.write(packet.clone());
        }
        self.unacknowledged.push_back(packet);
    }

    /// The client's packet was received, well or not; the reply to a bad one without acknowledgements is the caller's.
    pub(crate) fn received(&mut self, intact: bool) {
        // Whoever sends the next packet has given up on acknowledging what came before.
        self.send_all();
        if self.mode == Mode::Acks {
            self.ready.push(if intact { b'+' } else { b'-' });
        }
    }

    /// Sends everything that is left, acknowledged or not: the connection is about to be closed.
    pub(crate) fn send_all(&mut self) {
        let unsent: Vec<_> = self.unacknowledged.drain(..).skip(1).collect();
        for packet in unsent {
            self.write(packet);
        }
    }

    /// The client sent `+`.
    pub(crate) fn acknowledged(&mut self) {
        self.unacknowledged.pop_front();
        self.send_front();
    }

    /// The client sent `-`: the last packet goes out again.
    pub(crate) fn send_again(&mut self) {
        self.send_front();
    }

    /// From the next packet of the client on there are no acknowledgements. The reply in between, `OK`, still has one, and may
    /// still be asked for again.
    pub(crate) fn stop_acks(&mut self) {
        self.packet(super::PacketWriter::text("OK"));
        self.mode = Mode::NoAcks;
    }

    /// Whether the client is told of bad packets by `-`.
    pub(crate) fn has_acks(&self) -> bool {
        self.mode == Mode::Acks
    }

    fn send_front(&mut self) {
        if let Some(front) = self.unacknowledged.front().cloned() {
            self.write(front);
        }
    }

    fn write(&mut self, packet: Vec<u8>) {
        if self.ready.is_empty() {
            self.ready = packet;
        } else {
            self.ready.extend_from_slice(&packet);
        }
    }
}
