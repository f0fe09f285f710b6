//! Reads the output of test programs on its way to the user: skips, failures and counts.
//!
//! A test that cannot run here prints a line `SKIP: reason` and returns. libtest counts it as passed; the summary counts it as skipped.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::mpsc::Sender;

const SKIP_MARK: &str = "SKIP: ";

/// The beginning of the line in which cargo says how a test program ended.
const ENDED_BADLY: &str = "  process didn't exit successfully: ";

/// The meaning of a line.
#[derive(Debug, PartialEq)]
pub(crate) enum Note {
    /// A test was skipped, for this reason.
    Skip(String),
    /// A test failed. This note comes before the counts of the program.
    Failure {
        /// The name in libtest's output.
        test: String,
        /// The first lines of the panic. Empty if libtest has not captured the test's output.
        panic: Vec<String>,
    },
    /// The last line of a test program that no signal has ended.
    Counts {
        /// The number of tests that passed, including skipped tests.
        passed: u32,
        /// The number of tests that failed, including tests that panicked.
        failed: u32,
    },
}

/// Passes all bytes on, and sends a note for each line with a meaning.
pub(crate) struct Watch<W: Write> {
    inner: W,
    notes: Sender<Note>,
    line: Vec<u8>,
    failures: Failures,
}

impl<W: Write> Watch<W> {
    /// A watch that passes the bytes on to `inner`.
    pub(crate) fn new(inner: W, notes: Sender<Note>) -> Self {
        Self {
            inner,
            notes,
            line: Vec::new(),
            failures: Failures::default(),
        }
    }

    fn end_of_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        for note in self.failures.line(&line).into_iter().chain(note(&line)) {
            // It is no error if the receiver has gone.
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

/// The number of a panic's lines that are kept.
const PANIC_LINES: usize = 12;

/// libtest prints `failures:` twice: first with the output of each test that failed, then with the names.
#[derive(Default)]
struct Failures {
    /// Whether the last heading was `failures:`.
    inside: bool,
    /// The test whose output is printed, and whether its panic message has begun and continues.
    current: Option<(String, bool)>,
    panics: BTreeMap<String, Vec<String>>,
}

impl Failures {
    /// A failure, if `line` is a name in the second list.
    fn line(&mut self, line: &str) -> Option<Note> {
        if matches!(line, "failures:" | "successes:") {
            (self.inside, self.current) = (line == "failures:", None);
        } else if line.starts_with("test result: ") {
            *self = Self::default();
        } else if !self.inside {
            return None;
        } else if let Some(name) = line.strip_prefix("---- ") {
            let name = name.strip_suffix(" stdout ----")?;
            self.current = Some((name.to_owned(), false));
        } else if let Some((test, panics)) = &mut self.current {
            *panics |= line.starts_with("thread '") && line.contains(" panicked at ");
            // The backtrace, or the note about it, follows the message.
            *panics &= !line.starts_with("stack backtrace:") && !line.starts_with("note: run with");
            let kept = self.panics.entry(test.clone()).or_default();
            if *panics && kept.len() < PANIC_LINES {
                kept.push(line.to_owned());
            }
        } else if let Some(test) = line.strip_prefix("    ") {
            return Some(Note::Failure {
                test: test.to_owned(),
                panic: self.panics.remove(test).unwrap_or_default(),
            });
        }
        None
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
    // cargo's line. A test program that ends in this way has not named the test that ended it.
    if let Some(how) = line.strip_prefix(ENDED_BADLY)
        && how.contains(" (signal: ")
    {
        return Some(Note::Failure {
            test: "a test program".to_owned(),
            panic: vec![how.to_owned()],
        });
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

    #[test]
    fn a_test_program_that_a_signal_ended_is_named_and_one_with_an_exit_status_is_not() {
        let text = "error: test failed, to rerun pass `-p a --test b`\n\n\
            Caused by:\n\
            \x20 process didn't exit successfully: `/t/b-1 --show-output` (signal: 31, SIGSYS: bad system call)\n\
            \x20 process didn't exit successfully: `/t/c-2` (exit status: 101)\n";
        let (sender, notes) = std::sync::mpsc::channel();
        let mut watch = Watch::new(Vec::new(), sender);
        watch.write_all(text.as_bytes()).unwrap();
        drop(watch);
        assert_eq!(
            notes.into_iter().collect::<Vec<_>>(),
            [Note::Failure {
                test: "a test program".to_owned(),
                panic: vec![
                    "`/t/b-1 --show-output` (signal: 31, SIGSYS: bad system call)".to_owned()
                ],
            }]
        );
    }

    #[test]
    fn a_test_that_failed_is_named_with_its_panic_and_without_the_backtrace() {
        let text = "running 3 tests\n\
            test a ... FAILED\n\
            test b ... ok\n\
            successes:\n\n\
            ---- b stdout ----\n\
            thread 'x' panicked at b.rs: meant\n\n\
            successes:\n    b\n\n\
            failures:\n\n\
            ---- a stdout ----\n\
            many words\n\
            thread 'a' (7) panicked at a.rs:1:2:\n\
            2 of 3 cells failed:\none\n\
            stack backtrace:\n   0: main\n\n\
            ---- c stdout ----\n\
            Error: \"c\"\n\n\
            failures:\n    a\n    c\n\n\
            test result: FAILED. 1 passed; 2 failed; 0 ignored\n    d\n";
        let (sender, notes) = std::sync::mpsc::channel();
        let mut watch = Watch::new(Vec::new(), sender);
        watch.write_all(text.as_bytes()).unwrap();
        drop(watch);
        let failure = |test: &str, panic: &[&str]| Note::Failure {
            test: test.to_owned(),
            panic: panic.iter().map(|&line| line.to_owned()).collect(),
        };
        assert_eq!(
            notes.into_iter().collect::<Vec<_>>(),
            [
                failure(
                    "a",
                    &[
                        "thread 'a' (7) panicked at a.rs:1:2:",
                        "2 of 3 cells failed:",
                        "one"
                    ]
                ),
                failure("c", &[]),
                Note::Counts {
                    passed: 1,
                    failed: 2
                },
            ]
        );
    }
}
