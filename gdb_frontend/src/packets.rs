//! The list of all packets of GDB's manual, of LLDB's document "GDB Remote Protocol Extensions", and of QEMU.
//!
//! Each row says by which tests a packet is shown, or why the server does not support the packet. The reply to `qSupported` and the Guide's page
//! [Packets](../../Guide/src/packets.md) are made from the list. The tests send each packet of the list to a session.

mod gdb;
mod lldb;
#[cfg(test)]
mod markdown;
mod tracepoints;

use crate::command::ClientFeatures;
use crate::framing::PACKET_SIZE;

/// A part of the list.
struct Section {
    #[cfg(test)]
    title: &'static str,
    packets: &'static [Packet],
}

/// The list, in the order of the Guide's page.
const SECTIONS: &[Section] = &[
    Section {
        #[cfg(test)]
        title: "Packets (GDB's manual)",
        packets: gdb::PACKETS,
    },
    Section {
        #[cfg(test)]
        title: "General query packets (GDB's manual)",
        packets: gdb::QUERIES,
    },
    Section {
        #[cfg(test)]
        title: "Tracepoint packets (GDB's manual)",
        packets: tracepoints::PACKETS,
    },
    Section {
        #[cfg(test)]
        title: "Host I/O packets (GDB's manual)",
        packets: gdb::HOST_IO,
    },
    Section {
        #[cfg(test)]
        title: "Stop replies, notifications and features without a packet of their own (GDB's manual)",
        packets: gdb::REPLIES,
    },
    Section {
        #[cfg(test)]
        title: "LLDB's extensions",
        packets: lldb::PACKETS,
    },
    Section {
        #[cfg(test)]
        title: "LLDB's packets for platforms, programs and files",
        packets: lldb::PLATFORM,
    },
    Section {
        #[cfg(test)]
        title: "QEMU's packets",
        packets: gdb::QEMU,
    },
];

/// A row of the list.
#[derive(Debug, Clone, Copy)]
struct Packet {
    /// The name in the manual. What the client sends begins with this name.
    #[cfg(test)]
    name: &'static str,
    /// The packet in its plain form. Empty if the row is about something that the server sends.
    #[cfg(test)]
    plain: &'static str,
    #[cfg(test)]
    support: Support,
    /// What the reply to `qSupported` says because of this row.
    announced: Announced,
}

#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Support {
    /// These tests show the packet: names of test functions, and of transcripts.
    Yes(&'static [&'static str]),
    /// The reason why the packet is not supported.
    No(&'static str),
}

#[derive(Debug, Clone, Copy)]
enum Announced {
    Nothing,
    Always(&'static str),
    /// Only to a client that has named the feature too.
    ErrorMessage(&'static str),
    /// Only if there is a file with the symbols of the guest.
    WithSymbols(&'static str),
}

/// A packet that is supported. Without tests the arguments are unused, so the list takes no place in a program except for what is announced.
#[cfg_attr(
    not(test),
    expect(unused_variables, reason = "for the tests and the Guide")
)]
const fn yes(name: &'static str, plain: &'static str, tests: &'static [&'static str]) -> Packet {
    Packet {
        #[cfg(test)]
        name,
        #[cfg(test)]
        plain,
        #[cfg(test)]
        support: Support::Yes(tests),
        announced: Announced::Nothing,
    }
}

/// A packet that is not supported: the reply is empty, or an error.
#[cfg_attr(
    not(test),
    expect(unused_variables, reason = "for the tests and the Guide")
)]
const fn no(name: &'static str, plain: &'static str, why: &'static str) -> Packet {
    Packet {
        #[cfg(test)]
        name,
        #[cfg(test)]
        plain,
        #[cfg(test)]
        support: Support::No(why),
        announced: Announced::Nothing,
    }
}

impl Packet {
    /// The row with a feature that `qSupported` announces.
    const fn announced(mut self, feature: &'static str) -> Self {
        self.announced = Announced::Always(feature);
        self
    }

    /// The row with a feature that `qSupported` announces to a client that accepts error texts.
    const fn announced_with_error_message(mut self, feature: &'static str) -> Self {
        self.announced = Announced::ErrorMessage(feature);
        self
    }

    /// The row with a feature that `qSupported` announces if there is a file with the symbols of the guest.
    const fn announced_with_symbols(mut self, feature: &'static str) -> Self {
        self.announced = Announced::WithSymbols(feature);
        self
    }
}

fn all() -> impl Iterator<Item = &'static Packet> {
    SECTIONS.iter().flat_map(|section| section.packets)
}

/// The reply to `qSupported`: `PacketSize` and the announced features of the list.
pub(crate) fn supported(client: ClientFeatures, has_symbols: bool) -> String {
    let mut reply = format!("PacketSize={PACKET_SIZE:x}");
    for packet in all() {
        let feature = match packet.announced {
            Announced::Always(feature) => feature,
            Announced::ErrorMessage(feature) if client.error_message => feature,
            Announced::WithSymbols(feature) if has_symbols => feature,
            Announced::ErrorMessage(_) | Announced::WithSymbols(_) | Announced::Nothing => continue,
        };
        reply.push(';');
        reply.push_str(feature);
    }
    reply
}

#[cfg(test)]
mod tests;
