//! The end of a test run: one line for each step, the reasons of skipped tests, and the counts.

use crate::test_output::Note;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The outcome of a step.
pub(super) enum Verdict {
    /// The step passed.
    Passed,
    /// The step failed, with this error.
    Failed(String),
    /// This machine lacks something, which the text names.
    CouldNotRun(String),
}

/// The results of the steps, printed at the end.
#[derive(Default)]
pub(super) struct Summary {
    steps: Vec<(String, Verdict, Duration)>,
    /// The number of times that a reason was given, by place and reason.
    skips: BTreeMap<(String, String), u32>,
    tests_passed: u32,
    tests_failed: u32,
    /// The text that is printed about each failed test.
    failures: Vec<String>,
}

impl Summary {
    /// Records the end of a step.
    pub(super) fn step(&mut self, name: &str, verdict: Verdict, took: Duration) {
        self.steps.push((name.to_owned(), verdict, took));
    }

    /// Records a note of a test program.
    pub(super) fn note(&mut self, place: &str, note: Note) {
        match note {
            Note::Skip(reason) => {
                *self.skips.entry((place.to_owned(), reason)).or_default() += 1;
            }
            Note::Failure { test, panic } => {
                let lines = [format!("{test} on {place}")].into_iter().chain(panic);
                self.failures.push(lines.collect::<Vec<_>>().join("\n    "));
            }
            Note::Counts { passed, failed } => {
                self.tests_passed += passed;
                self.tests_failed += failed;
            }
        }
    }

    /// Whether a step has failed.
    pub(super) fn failed(&self) -> bool {
        self.tests_failed > 0
            || self
                .steps
                .iter()
                .any(|(_, verdict, _)| matches!(verdict, Verdict::Failed(_)))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "=== summary")?;
        for (name, verdict, took) in &self.steps {
            let (word, why) = match verdict {
                Verdict::Passed => ("passed", ""),
                Verdict::Failed(why) => ("FAILED", why.as_str()),
                Verdict::CouldNotRun(why) => ("could not run", why.as_str()),
            };
            let why = why.lines().next().unwrap_or_default();
            let line = format!("{name:<15} {word:<14} {:>7.1} s  {why}", took.as_secs_f64());
            writeln!(f, "{}", line.trim_end())?;
        }
        if !self.skips.is_empty() {
            writeln!(f, "skipped by tests:")?;
        }
        for ((place, reason), times) in &self.skips {
            writeln!(f, "  {times} x on {place}: {reason}")?;
        }
        let (mut passed, mut failed, mut skipped) = (
            self.tests_passed,
            self.tests_failed,
            self.skips.values().sum(),
        );
        // libtest counts a skipped test as passed.
        passed = passed.saturating_sub(skipped);
        for (_, verdict, _) in &self.steps {
            match verdict {
                Verdict::Passed => passed += 1,
                Verdict::Failed(_) => failed += 1,
                Verdict::CouldNotRun(_) => skipped += 1,
            }
        }
        // The failures come last, for a reader who sees only the end of the output.
        for (name, verdict, _) in &self.steps {
            if let Verdict::Failed(why) = verdict {
                writeln!(f, "FAILED: step `{name}`: {why}")?;
            }
        }
        for failure in &self.failures {
            writeln!(f, "FAILED: {failure}")?;
        }
        writeln!(f, "\nsteps and tests:")?;
        writeln!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_line_counts_steps_and_tests_and_a_skip_is_no_pass() {
        let mut summary = Summary::default();
        let second = Duration::from_secs(1);
        summary.step("format", Verdict::Passed, second);
        summary.step("clippy", Verdict::Failed("no\nmore".to_owned()), second);
        summary.step(
            "nested",
            Verdict::CouldNotRun("no Debian".to_owned()),
            second,
        );
        summary.note(
            "this machine",
            Note::Counts {
                passed: 10,
                failed: 0,
            },
        );
        summary.note(
            "this machine",
            Note::Failure {
                test: "a::b".to_owned(),
                panic: vec!["thread".to_owned(), "why".to_owned()],
            },
        );
        for _ in 0..2 {
            summary.note("this machine", Note::Skip("no watchpoints".to_owned()));
        }
        let text = summary.to_string();
        assert!(
            text.ends_with("\n9 passed, 1 failed, 3 skipped\n"),
            "{text}"
        );
        assert!(text.contains("  2 x on this machine: no watchpoints\n"));
        assert!(text.contains("clippy          FAILED             1.0 s  no\n"));
        assert!(
            text.contains("FAILED: step `clippy`: no\nmore\nFAILED: a::b on this machine\n    thread\n    why\n\nsteps"),
            "{text}"
        );
        assert!(summary.failed());
    }

    #[test]
    fn a_step_that_could_not_run_is_no_failure() {
        let mut summary = Summary::default();
        summary.step(
            "nested",
            Verdict::CouldNotRun("x".to_owned()),
            Duration::ZERO,
        );
        assert!(!summary.failed());
    }
}
