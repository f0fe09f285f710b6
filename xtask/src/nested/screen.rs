//! Shows the output of test programs. With one program at a time, output appears as it is written. With several, the output of each appears in one piece at its end.

use super::boot::Sink;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

/// The sinks. The threads that run the programs share them.
pub(super) struct Screen<'a> {
    /// Makes new sinks for standard output and standard error.
    sinks: &'a (dyn Fn() -> (Sink, Sink) + Sync),
    /// Whether programs run one after the other.
    live: bool,
    /// Held during output that must not be interrupted.
    turn: Mutex<()>,
}

/// How a program ended.
pub(super) enum Verdict<'a> {
    /// The program ended with this exit status.
    Exited(i32),
    /// The bed failed.
    BedFailed(&'a anyhow::Error),
}

impl<'a> Screen<'a> {
    /// Shows output in `sinks`. `live` is for programs that run one after the other.
    pub(super) fn new(sinks: &'a (dyn Fn() -> (Sink, Sink) + Sync), live: bool) -> Self {
        Self {
            sinks,
            live,
            turn: Mutex::new(()),
        }
    }

    /// Announces a program. `place` is its number, and the number of all programs.
    pub(super) fn begin(
        &'a self,
        name: &'a str,
        path: &'a Path,
        place: (usize, usize),
    ) -> std::io::Result<Shown<'a>> {
        let (number, count) = place;
        let shown = Shown {
            screen: self,
            name,
            path,
            kept: Kept::default(),
        };
        if self.live {
            self.line(&shown.title())?;
        } else {
            self.line(&format!("nested: {name} started, {number} of {count}"))?;
        }
        Ok(shown)
    }

    fn line(&self, text: &str) -> std::io::Result<()> {
        let _turn = self.turn.lock().expect("no holder of this lock panics");
        let (mut stdout, _) = (self.sinks)();
        writeln!(stdout, "{text}")?;
        stdout.flush()
    }
}

/// A program that runs.
pub(super) struct Shown<'a> {
    screen: &'a Screen<'a>,
    name: &'a str,
    path: &'a Path,
    kept: Kept,
}

impl Shown<'_> {
    /// The sinks for its standard output and standard error.
    pub(super) fn sinks(&self) -> (Sink, Sink) {
        if self.screen.live {
            (self.screen.sinks)()
        } else {
            (self.kept.sink(Stream::Out), self.kept.sink(Stream::Error))
        }
    }

    /// The program has ended, and the sinks have all its output.
    pub(super) fn end(self, verdict: &Verdict<'_>, took: Duration) -> std::io::Result<()> {
        let seconds = took.as_secs_f64();
        let last = match verdict {
            Verdict::Exited(0) => format!("passed (status 0, {seconds:.1} s)"),
            Verdict::Exited(code) => format!("FAILED (status {code}, {seconds:.1} s)"),
            Verdict::BedFailed(error) => format!(
                "has no result ({seconds:.1} s): {error:#}; no other program is started any more"
            ),
        };
        if !self.screen.live {
            let _turn = self
                .screen
                .turn
                .lock()
                .expect("no holder of this lock panics");
            let (mut stdout, mut stderr) = (self.screen.sinks)();
            writeln!(stdout, "{}", self.title())?;
            self.kept.replay(&mut stdout, &mut stderr)?;
            writeln!(stdout, "nested: {} {last}", self.name)?;
            return stdout.flush();
        }
        self.screen.line(&format!("nested: {} {last}", self.name))
    }

    fn title(&self) -> String {
        format!("nested: {} ({})", self.name, self.path.display())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Stream {
    Out,
    Error,
}

/// A piece of output that came on one stream, between pieces of the other.
struct Piece {
    stream: Stream,
    bytes: Vec<u8>,
}

/// The output so far, in the order of its arrival.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Piece>>>);

impl Kept {
    fn sink(&self, stream: Stream) -> Sink {
        Box::new(KeptStream {
            kept: self.clone(),
            stream,
        })
    }

    /// Writes all output. Later output begins on a new line.
    fn replay(&self, stdout: &mut dyn Write, stderr: &mut dyn Write) -> std::io::Result<()> {
        let pieces = std::mem::take(&mut *self.0.lock().expect("no holder of this lock panics"));
        let mut line_ended = true;
        for Piece { stream, bytes } in pieces {
            let to: &mut dyn Write = match stream {
                Stream::Out => stdout,
                Stream::Error => stderr,
            };
            to.write_all(&bytes)?;
            // Both streams may be the same terminal.
            to.flush()?;
            line_ended = bytes.ends_with(b"\n");
        }
        if !line_ended {
            writeln!(stdout)?;
        }
        Ok(())
    }
}

struct KeptStream {
    kept: Kept,
    stream: Stream,
}

impl Write for KeptStream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut pieces = self.kept.0.lock().expect("no holder of this lock panics");
        match pieces.last_mut() {
            Some(last) if last.stream == self.stream => last.bytes.extend(bytes),
            _ => pieces.push(Piece {
                stream: self.stream,
                bytes: bytes.to_vec(),
            }),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nested::Collected;

    /// Both streams on one terminal, with standard error in brackets.
    fn terminal(collected: &Collected) -> (Sink, Sink) {
        struct Bracketed(Collected);
        impl Write for Bracketed {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                let text = String::from_utf8_lossy(bytes);
                self.0.write_all(format!("<{text}>").as_bytes())?;
                Ok(bytes.len())
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        (
            Box::new(collected.clone()),
            Box::new(Bracketed(collected.clone())),
        )
    }

    fn seen(collected: &Collected) -> String {
        String::from_utf8(collected.take()).unwrap()
    }

    #[test]
    fn programs_side_by_side_are_shown_one_after_the_other_with_their_streams_in_order() {
        let collected = Collected::default();
        let sinks = || terminal(&collected);
        let screen = Screen::new(&sinks, false);
        let first = screen.begin("a/x", Path::new("/t/x"), (1, 2)).unwrap();
        let second = screen.begin("a/y", Path::new("/t/y"), (2, 2)).unwrap();
        assert_eq!(
            seen(&collected),
            "nested: a/x started, 1 of 2\nnested: a/y started, 2 of 2\n"
        );
        let ((mut out, mut error), (mut other, _)) = (first.sinks(), second.sinks());
        out.write_all(b"test one ... ").unwrap();
        other.write_all(b"running\n").unwrap();
        error.write_all(b"trace").unwrap();
        error.write_all(b"d").unwrap();
        other.write_all(b"no end of line").unwrap();
        out.write_all(b"ok\n").unwrap();
        assert_eq!(seen(&collected), "");
        second
            .end(&Verdict::Exited(101), Duration::from_millis(2500))
            .unwrap();
        assert_eq!(
            seen(&collected),
            "nested: a/y (/t/y)\nrunning\nno end of line\nnested: a/y FAILED (status 101, 2.5 s)\n"
        );
        first
            .end(&Verdict::Exited(0), Duration::from_secs(61))
            .unwrap();
        assert_eq!(
            seen(&collected),
            "nested: a/x (/t/x)\ntest one ... <traced>ok\nnested: a/x passed (status 0, 61.0 s)\n"
        );
    }

    #[test]
    fn a_second_boots_output_follows_the_firsts() {
        let collected = Collected::default();
        let sinks = || terminal(&collected);
        let screen = Screen::new(&sinks, false);
        let shown = screen.begin("a/x", Path::new("/t/x"), (1, 2)).unwrap();
        shown.sinks().0.write_all(b"one\n").unwrap();
        shown
            .sinks()
            .1
            .write_all(b"nested: a/x: retry 1 of 2\n")
            .unwrap();
        shown.sinks().0.write_all(b"two\n").unwrap();
        let error = anyhow::anyhow!("no QEMU");
        shown
            .end(&Verdict::BedFailed(&error), Duration::ZERO)
            .unwrap();
        let text = seen(&collected);
        assert!(
            text.contains("\none\n<nested: a/x: retry 1 of 2\n>two\nnested: a/x has no result"),
            "{text}"
        );
        assert!(text.contains(" s): no QEMU; "), "{text}");
    }

    #[test]
    fn a_program_alone_is_seen_as_it_runs() {
        let collected = Collected::default();
        let sinks = || terminal(&collected);
        let screen = Screen::new(&sinks, true);
        let shown = screen.begin("a/x", Path::new("/t/x"), (1, 1)).unwrap();
        let (mut out, mut error) = shown.sinks();
        out.write_all(b"one\n").unwrap();
        error.write_all(b"two").unwrap();
        assert_eq!(seen(&collected), "nested: a/x (/t/x)\none\n<two>");
        shown
            .end(&Verdict::Exited(0), Duration::from_secs(1))
            .unwrap();
        assert_eq!(seen(&collected), "nested: a/x passed (status 0, 1.0 s)\n");
    }
}
