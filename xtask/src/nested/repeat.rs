//! Compares two boots of one command, which have to be the same, and describes the first difference.

use super::boot::Collected;
use super::boot::Sink;
use std::io::Write;

/// The observations of one boot.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// The number of instructions.
    pub instructions: Option<u64>,
    /// The outcome.
    pub ending: String,
    /// The standard output of the command.
    pub stdout: Vec<u8>,
    /// The standard error of the command.
    pub stderr: Vec<u8>,
    /// The last lines of the outer kernel's console.
    pub console: String,
}

impl Shown {
    /// Describes the first difference of `again`.
    pub(super) fn difference(&self, again: &Self) -> Option<String> {
        let texts = [
            (
                "how it ended",
                self.ending.as_bytes(),
                again.ending.as_bytes(),
            ),
            ("standard output", &self.stdout, &again.stdout),
            ("standard error", &self.stderr, &again.stderr),
            (
                "the console",
                self.console.as_bytes(),
                again.console.as_bytes(),
            ),
        ];
        for (name, first, second) in texts {
            if first != second {
                let at = first.iter().zip(second).take_while(|(a, b)| a == b).count();
                let line = |text: &[u8]| {
                    let from = text[..at]
                        .iter()
                        .rposition(|byte| *byte == b'\n')
                        .map_or(0, |end| end + 1);
                    let text = String::from_utf8_lossy(&text[from..]).into_owned();
                    text.lines().next().unwrap_or_default().to_owned()
                };
                return Some(format!(
                    "{name}: `{}` and then `{}`",
                    line(first),
                    line(second)
                ));
            }
        }
        let told = |count: Option<u64>| count.map_or("no".to_owned(), |count| count.to_string());
        (self.instructions != again.instructions).then(|| {
            format!(
                "{} instructions and then {}",
                told(self.instructions),
                told(again.instructions)
            )
        })
    }
}

/// A sink that keeps a copy of its input.
pub(super) struct Copied {
    to: Sink,
    copy: Collected,
}

impl Copied {
    /// The inner sink, and the copy, which is taken at the end.
    pub(super) fn new(to: Sink) -> (Self, Collected) {
        let copy = Collected::default();
        let kept = copy.clone();
        (Self { to, copy }, kept)
    }
}

impl Write for Copied {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.to.write_all(bytes)?;
        self.copy.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(stdout: &str, instructions: u64) -> Shown {
        Shown {
            instructions: Some(instructions),
            stdout: stdout.into(),
            ..Shown::default()
        }
    }

    #[test]
    fn the_first_line_that_differs_is_told_and_then_the_number_of_instructions() {
        let first = shown("one\ntwo\n", 7);
        assert_eq!(first.difference(&shown("one\ntwo\n", 7)), None);
        assert_eq!(
            first.difference(&shown("one\ntwelve\n", 7)).unwrap(),
            "standard output: `two` and then `twelve`"
        );
        assert_eq!(
            first.difference(&shown("one\n", 7)).unwrap(),
            "standard output: `two` and then ``"
        );
        assert_eq!(
            first.difference(&shown("one\ntwo\n", 8)).unwrap(),
            "7 instructions and then 8"
        );
    }

    #[test]
    fn each_thing_that_a_boot_shows_is_compared() {
        type Change = fn(&mut Shown);
        let other: [(&str, Change); 5] = [
            ("how it ended", |shown| shown.ending.push('x')),
            ("standard output", |shown| shown.stdout.push(b'x')),
            ("standard error", |shown| shown.stderr.push(b'x')),
            ("the console", |shown| shown.console.push('x')),
            ("7 instructions", |shown| shown.instructions = None),
        ];
        for (name, change) in other {
            let mut again = shown("one\n", 7);
            change(&mut again);
            let told = shown("one\n", 7).difference(&again).unwrap();
            assert!(told.starts_with(name), "{told}");
        }
    }
}
