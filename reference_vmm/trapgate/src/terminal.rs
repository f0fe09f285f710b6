//! The terminal as the guest's serial line. Every key goes to the guest except a few keys of Trapgate.

use crate::devices::serial::Com1;
use rustix::termios;
use rustix::termios::LocalModes;
use rustix::termios::OptionalActions;
use rustix::termios::Termios;
use std::io;
use std::io::IsTerminal as _;
use std::io::Read as _;
use std::io::Write;
use std::thread;

/// The text about the keys.
pub(crate) const KEYS: &str =
    "Ctrl-C ends Trapgate; Ctrl-A then c sends a Ctrl-C to the guest, Ctrl-A twice a Ctrl-A";

const CTRL_A: u8 = 1;
const CTRL_C: u8 = 3;

/// The terminal in raw mode. Dropping it restores the previous mode.
pub(crate) struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Enters raw mode, in which keys arrive at once and are not echoed. `None` if standard input is not a terminal, or
    /// if this is a background job, which may not change the terminal.
    pub(crate) fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal()
            || termios::tcgetpgrp(&stdin).ok() != Some(rustix::process::getpgrp())
        {
            return Ok(None);
        }
        let before = termios::tcgetattr(&stdin)?;
        let mut raw = before.clone();
        // Output processing stays on, because this program's own output needs it.
        raw.local_modes
            .remove(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN);
        raw.input_modes
            .remove(termios::InputModes::ICRNL | termios::InputModes::IXON);
        termios::tcsetattr(&stdin, OptionalActions::Now, &raw)?;
        Ok(Some(Self { before }))
    }

    /// Restores the previous mode.
    pub(crate) fn restore(&self) {
        if let Err(error) = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.before) {
            tracing::warn!(%error, "the terminal stays in raw mode; type `reset`");
        }
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        self.restore();
    }
}

/// The meaning of a typed byte.
#[derive(Debug, PartialEq, Eq)]
enum Key {
    /// The byte goes to the guest.
    Guest(u8),
    /// The prefix key; the next byte decides.
    Prefix,
    /// The user wants to end the program.
    End,
}

/// Whether the last key was the prefix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Keys {
    #[default]
    Plain,
    AfterPrefix,
}

impl Keys {
    fn press(&mut self, byte: u8) -> Key {
        let (next, key) = match (*self, byte) {
            (Self::Plain, CTRL_A) => (Self::AfterPrefix, Key::Prefix),
            (Self::Plain, CTRL_C) => (Self::Plain, Key::End),
            (Self::AfterPrefix, b'c') => (Self::Plain, Key::Guest(CTRL_C)),
            (Self::AfterPrefix, b'x' | CTRL_C) => (Self::Plain, Key::End),
            (_, byte) => (Self::Plain, Key::Guest(byte)),
        };
        *self = next;
        key
    }
}

/// Forwards standard input to the guest, on a thread that ends with the input or with the program.
///
/// On a terminal, `end` is called when the user wants to end the program. All bytes of a pipe or a file go to the
/// guest.
pub(crate) fn forward_input<W: Write + Clone + Send + 'static>(
    serial: Com1<W>,
    is_terminal: bool,
    end: impl Fn() + Send + 'static,
) -> io::Result<()> {
    let forward = move || {
        let mut keys = Keys::default();
        let mut buffer = [0; 256];
        let mut stdin = io::stdin().lock();
        loop {
            let count = match stdin.read(&mut buffer) {
                Ok(count @ 1..) => count,
                // A signal that does not end the program interrupted the read.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => break,
            };
            if !is_terminal {
                serial.receive(&buffer[..count]);
                continue;
            }
            for &byte in &buffer[..count] {
                match keys.press(byte) {
                    Key::Guest(byte) => serial.receive(&[byte]),
                    Key::Prefix => {}
                    Key::End => end(),
                }
            }
        }
    };
    thread::Builder::new()
        .name("serial input".to_owned())
        .spawn(forward)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press_all(bytes: &[u8]) -> Vec<Key> {
        let mut keys = Keys::default();
        bytes.iter().map(|&byte| keys.press(byte)).collect()
    }

    #[test]
    fn ctrl_c_ends_and_the_prefix_sends_it_to_the_guest() {
        assert_eq!(press_all(b"l\x03"), [Key::Guest(b'l'), Key::End]);
        assert_eq!(press_all(b"\x01c"), [Key::Prefix, Key::Guest(CTRL_C)]);
        assert_eq!(press_all(b"\x01x"), [Key::Prefix, Key::End]);
        assert_eq!(
            press_all(b"\x01\x01a"),
            [Key::Prefix, Key::Guest(CTRL_A), Key::Guest(b'a')]
        );
    }
}
