//! What test programs print, read on its way to the user: skips and counts.
//!
//! A test that cannot run here prints a line `SKIP: reason` and returns. libtest counts it as passed; the summary counts it as skipped.

use std::io::Write;
use std::sync::mpsc::Sender;

const SKIP_MARK: &str = "SKIP: ";

/// What a line said.
#[derive(Debug, PartialEq)]
pub(crate) enum Note {
    /// A test did not do its work, for this reason.
    Skip(String),
    /// A test program's last line.
    Counts {
        /// Including those that skipped.
        passed: u32,
        /// Including those that panicked.
        failed: u32,
    },
}

/// Passes everything on and sends what it noticed.
pub(crate) struct Watch<W: Write> {
    inner: W,
    notes: Sender<Note>,
    line: Vec<u8>,
}

impl<W: Write> Watch<W> {
    /// Passes on to `inner`.
    pub(crate) fn new(inner: W, notes: Sender<Note>) -> Self {
        Self {
            inner,
            notes,
            line: Vec::new(),
        }
    }

    fn end_of_line(&mut self) {
        if let Some(note) = note(&String::from_utf8_lossy(&self.line)) {
            // Nobody listening any more is no reason to fail.
            let _ = self.notes.send(note);
        }
        self.line.clear();
    }
}

impl<W: Write> Write for Watch<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        for byte in bytes {
            match byte {
                b'\n' => self.end_of_line(),
                byte => self.line.push(*byte),
            }
        }
        self.inner.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

impl<W: Write> Drop for Watch<W> {
    fn drop(&mut self) {
        self.end_of_line();
    }
}

fn note(line: &str) -> Option<Note> {
    // With one test at a time, libtest writes `test name ... ` without a line end before what the test prints.
    let text = match line.split_once(" ... ") {
        Some((before, text)) if before.starts_with("test ") => text,
        _ => line,
    };
    if let Some(reason) = text.strip_prefix(SKIP_MARK) {
        return Some(Note::Skip(reason.trim_end().to_owned()));
    }
    // test result: ok. 3 passed; 0 failed; 0 ignored; ...
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |word: &str| {
        counts
            .split("; ")
            .find_map(|part| part.strip_suffix(word)?.trim().parse().ok())
    };
    Some(Note::Counts {
        passed: count("passed")?,
        failed: count("failed")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips_and_counts_are_found_across_writes_and_behind_libtests_own_words() {
        let (sender, notes) = std::sync::mpsc::channel();
        let mut output = Vec::new();
        let mut watch = Watch::new(&mut output, sender);
        for part in [
            "test a ... SK",
            "IP: no watchpoints here\nok\nSKIP: no gdb\n",
            "note: SKIP: not this\n",
            "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n",
            "SKIP: last",
        ] {
            watch.write_all(part.as_bytes()).unwrap();
        }
        drop(watch);
        let notes: Vec<Note> = notes.into_iter().collect();
        let skip = |reason: &str| Note::Skip(reason.to_owned());
        assert_eq!(
            notes,
            [
                skip("no watchpoints here"),
                skip("no gdb"),
                Note::Counts {
                    passed: 3,
                    failed: 1
                },
                skip("last")
            ]
        );
        assert!(output.starts_with(b"test a ... SKIP: no watch"));
    }
}
