//! What a client pays from one hit of a breakpoint to the next, by the kind of breakpoint and by the packets with which it moves on.

use super::report::Report;
use super::rsp::Client;
use super::servers::Server;
use super::stops;
use super::stops::Breakpoint;
use super::stops::Packets;
use super::stops::Spinning;

/// Both kinds, as in the names of measures.
const KINDS: [(&str, Breakpoint); 2] = [
    ("software", Breakpoint::Software),
    ("hardware", Breakpoint::Hardware),
];

/// The name of the measure, and of what it is compared with: QEMU's stub reports the same hit again and again, so its clients have to step away from it.
pub(super) fn names() -> impl Iterator<Item = (String, String)> {
    KINDS.into_iter().flat_map(|(kind, _)| {
        let theirs = name(kind, Packets::LikeGdb);
        [Packets::LikeGdb, Packets::Continue].map(|packets| (name(kind, packets), theirs.clone()))
    })
}

fn name(kind: &str, packets: Packets) -> String {
    match packets {
        Packets::LikeGdb => format!("{kind} breakpoint: z s Z c"),
        Packets::Continue => format!("{kind} breakpoint: c"),
    }
}

fn false_conditions(kind: &str) -> String {
    format!("{kind} breakpoint: false condition")
}

/// How many times more conditions our server evaluates in a second than a client of QEMU, by kind of breakpoint. A client needs one `z s Z c` for each, and the packets that
/// read what the condition asks for, which are left out here.
pub(super) fn conditions_of_qemu(report: &Report) -> impl Iterator<Item = (String, Option<f64>)> {
    KINDS.into_iter().map(|(kind, _)| {
        let ours = report.median(&false_conditions(kind), super::OURS);
        let theirs = report.median(&name(kind, Packets::LikeGdb), super::QEMU);
        let what = format!("{kind}: false conditions a second, times QEMU's z s Z c");
        (
            what,
            ours.zip(theirs).map(|(ours, theirs)| ours * theirs / 1e6),
        )
    })
}

/// The round trips of the floor, for both kinds.
pub(super) fn floors(report: &mut Report, floor: &mut Client) -> anyhow::Result<()> {
    for (kind, _) in KINDS {
        floors_of(report, floor, kind)?;
    }
    Ok(())
}

fn floors_of(report: &mut Report, floor: &mut Client, kind: &str) -> anyhow::Result<()> {
    for packets in [Packets::LikeGdb, Packets::Continue] {
        let trip = stops::floor(floor, packets)?;
        report.add(&name(kind, packets), "us", "echo", trip);
    }
    Ok(())
}

/// Those of a guest, for both kinds.
pub(super) fn of(report: &mut Report, guest: &mut Spinning<'_>) -> anyhow::Result<()> {
    for (kind, breakpoint) in KINDS {
        of_kind(report, guest, kind, breakpoint)?;
    }
    Ok(())
}

fn of_kind(
    report: &mut Report,
    guest: &mut Spinning<'_>,
    kind: &str,
    breakpoint: Breakpoint,
) -> anyhow::Result<()> {
    let server = guest.name;
    let trip = guest.hits(breakpoint, Packets::LikeGdb)?;
    report.add(&name(kind, Packets::LikeGdb), "us", server, trip);
    if server != super::QEMU {
        let trip = guest.hits(breakpoint, Packets::Continue)?;
        report.add(&name(kind, Packets::Continue), "us", server, trip);
    }
    // The other servers leave conditions to the client.
    if server == super::OURS {
        let rate = guest.false_conditions(breakpoint)?;
        report.add(&false_conditions(kind), "1/s", server, rate);
    }
    Ok(())
}

/// Those of guests on this machine, in interleaved rounds. A server that fails at one kind (QEMU where KVM does not trap `INT3`) fails alone, and `start` starts anew for
/// each kind.
pub(super) fn here(
    report: &mut Report,
    rounds: u32,
    start: impl Fn() -> anyhow::Result<Vec<Server>>,
) -> anyhow::Result<()> {
    let echo = Server::echo()?;
    let mut floor = echo.client()?;
    for (kind, breakpoint) in KINDS {
        let servers = start()?;
        let mut guests: Vec<Result<Spinning<'_>, &'static str>> = Vec::new();
        for server in &servers {
            guests.push(match Spinning::start(server) {
                Ok(guest) => Ok(guest),
                Err(error) => {
                    report.missing(&missing(kind, server.name), &format!("{error:#}"));
                    Err(server.name)
                }
            });
        }
        for _ in 0..rounds {
            guests.reverse();
            floors_of(report, &mut floor, kind)?;
            for guest in &mut guests {
                let Ok(spinning) = guest else { continue };
                if let Err(error) = of_kind(report, spinning, kind, breakpoint) {
                    let name = spinning.name;
                    report.missing(&missing(kind, name), &format!("{error:#}"));
                    *guest = Err(name);
                }
            }
        }
    }
    Ok(())
}

fn missing(kind: &str, server: &str) -> String {
    format!("round trips of a {kind} breakpoint of {server}")
}
