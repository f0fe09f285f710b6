//! The commands of the VMM's user, one on each line of standard input.

use crate::vmm::Command;
use crate::vmm::Event;
use std::io;
use std::sync::mpsc::Sender;
use std::thread;

/// The commands, for the user.
pub const HELP: &str = "pause, resume, snapshot FOLDER, keys TEXT, quit";

/// Reads commands on a thread of its own until the input ends.
///
/// # Errors
/// The host has no thread left.
pub fn read(events: Sender<Event>) -> io::Result<()> {
    let reads = move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            let Some(command) = parse(&line) else {
                println!("vmm: `{line}` is no command; there are {HELP}");
                continue;
            };
            if events.send(Event::Command(command)).is_err() {
                // The main thread has ended.
                return;
            }
        }
    };
    thread::Builder::new()
        .name("console".to_owned())
        .spawn(reads)?;
    Ok(())
}

fn parse(line: &str) -> Option<Command> {
    match line.trim().split_once(' ') {
        Some(("snapshot", folder)) => Some(Command::Snapshot(folder.into())),
        Some(("keys", text)) => Some(Command::Keys(text.to_owned())),
        Some(_) => None,
        None => match line.trim() {
            "pause" => Some(Command::Pause),
            "resume" => Some(Command::Resume),
            "quit" => Some(Command::Quit),
            _ => None,
        },
    }
}
