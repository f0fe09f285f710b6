//! The packets that were sent and may have to be sent again (GDB manual, node "Packet Acknowledgment").

use std::collections::VecDeque;

/// Packets to the client, in order. With acknowledgements on, a packet is sent only after the packet before it was
/// acknowledged. Otherwise a client that missed a packet would receive the packets in the wrong order.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    mode: Mode,
    /// Packets without an acknowledgement. The first one has been sent.
    unacknowledged: VecDeque<Vec<u8>>,
    /// Bytes to write now.
    ready: Vec<u8>,
    /// The packets since the last [`Outbox::take_counts`].
    counts: PacketCounts,
}

/// How many packets went each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PacketCounts {
    /// Packets of the client, intact or damaged.
    pub received: u64,
    /// Packets to the client, each time they were sent.
    pub sent: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Mode {
    #[default]
    Acks,
    NoAcks,
}

impl Outbox {
    /// Takes the bytes to write now. May be empty.
    pub(crate) fn take_ready(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.ready)
    }

    /// The packets since the last call.
    pub(crate) fn take_counts(&mut self) -> PacketCounts {
        std::mem::take(&mut self.counts)
    }

    /// Sends a complete packet.
    pub(crate) fn packet(&mut self, packet: Vec<u8>) {
        if self.mode == Mode::NoAcks {
            return self.write(packet);
        }
        if self.unacknowledged.is_empty() {
            self.write(packet.clone());
        }
        self.unacknowledged.push_back(packet);
    }

    /// Sends a complete notification. It may come between any two packets.
    pub(crate) fn notification(&mut self, notification: &[u8]) {
        self.counts.sent += 1;
        self.ready.extend_from_slice(notification);
    }

    /// Handles a packet from the client, intact or damaged. Without acknowledgements, the caller has to reply to a
    /// damaged packet.
    pub(crate) fn received(&mut self, intact: bool) {
        // A client that sends its next packet will not acknowledge earlier packets any more.
        self.send_all();
        self.counts.received += 1;
        if self.mode == Mode::Acks {
            self.ready.push(if intact { b'+' } else { b'-' });
        }
    }

    /// Handles a packet that the client has sent before, and whose answer stays the answer.
    pub(crate) fn received_again(&mut self) {
        self.counts.received += 1;
        if self.mode == Mode::Acks {
            self.ready.push(b'+');
        }
    }

    /// Sends all remaining packets, acknowledged or not, because the connection is about to be closed.
    pub(crate) fn send_all(&mut self) {
        let unsent: Vec<_> = self.unacknowledged.drain(..).skip(1).collect();
        for packet in unsent {
            self.write(packet);
        }
    }

    /// Handles a `+` from the client.
    pub(crate) fn acknowledged(&mut self) {
        self.unacknowledged.pop_front();
        self.send_front();
    }

    /// Handles a `-` from the client: sends the last packet again.
    pub(crate) fn send_again(&mut self) {
        self.send_front();
    }

    /// Turns acknowledgements off from the client's next packet on. The reply `OK` is still acknowledged, and the
    /// client may ask for it again.
    pub(crate) fn stop_acks(&mut self) {
        self.packet(super::PacketWriter::text("OK"));
        self.mode = Mode::NoAcks;
    }

    /// Whether acknowledgements are on, so that `-` reports a damaged packet.
    pub(crate) fn has_acks(&self) -> bool {
        self.mode == Mode::Acks
    }

    fn send_front(&mut self) {
        if let Some(front) = self.unacknowledged.front().cloned() {
            self.write(front);
        }
    }

    fn write(&mut self, packet: Vec<u8>) {
        self.counts.sent += 1;
        if self.ready.is_empty() {
            self.ready = packet;
        } else {
            self.ready.extend_from_slice(&packet);
        }
    }
}
