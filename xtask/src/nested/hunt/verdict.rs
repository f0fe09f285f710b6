//! The outcome of a seed's run, read from the output of the test programs.

use super::super::suite::FAILED;
use crate::test_output::Note;

/// The outcome.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// No test failed, and at least one ran.
    Passed,
    /// The tests that failed or were still running at the time limit, and their programs.
    Failed(Vec<String>),
    /// Every selected test skipped itself.
    Skipped(String),
}

impl Verdict {
    /// The outcome of a run that ended with `status` and printed `text`. `notes` are the notes of the bed.
    ///
    /// # Errors
    /// No test ran.
    pub(super) fn of(
        status: i32,
        text: &str,
        notes: impl Iterator<Item = Note>,
    ) -> anyhow::Result<Self> {
        match status {
            0 => of_notes(notes),
            _ => Ok(Self::Failed(failed(text))),
        }
    }
}

/// libtest lists the failed tests before its result. The name of a test that has begun comes before the test's output.
fn failed(text: &str) -> Vec<String> {
    let mut all = Vec::new();
    let (mut begun, mut in_list) = (None, false);
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("test ")
            && let Some((name, _)) = rest.split_once(" ... ")
        {
            begun = Some(name);
        } else if line == "failures:" {
            in_list = true;
        } else if line.starts_with("test result: ") {
            (begun, in_list) = (None, false);
        } else if let Some(name) = line.strip_prefix("    ").filter(|_| in_list) {
            all.push(name.to_owned());
        } else if let Some(program) = line.strip_prefix(FAILED) {
            all.extend(begun.take().map(|name| format!("{name} (did not end)")));
            all.push(program.to_owned());
        }
    }
    // The boot was ended during the test.
    all.extend(begun.map(|name| format!("{name} (did not end)")));
    all
}

fn of_notes(notes: impl Iterator<Item = Note>) -> anyhow::Result<Verdict> {
    let (mut ran, mut skipped) = (0, Vec::new());
    for note in notes {
        match note {
            Note::Skip(why) => skipped.push(why),
            // The names come from the text, together with the names of tests that did not end.
            Note::Failure { .. } => {}
            Note::Counts { passed, failed } => ran += passed + failed,
        }
    }
    anyhow::ensure!(
        ran > 0,
        "no test has such a name; give a part of one, as in `vp_runner/races::a_break`"
    );
    let all_skipped = skipped.len() >= usize::try_from(ran)?;
    Ok(match skipped.pop() {
        Some(why) if all_skipped => Verdict::Skipped(why),
        Some(_) | None => Verdict::Passed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_no_test_is_an_error_and_one_that_only_skips_is_said() {
        let counts = |passed| Note::Counts { passed, failed: 0 };
        let skip = || Note::Skip("no GDB".to_owned());
        assert!(of_notes([].into_iter()).is_err());
        assert!(of_notes([counts(0)].into_iter()).is_err());
        let verdict = |notes: Vec<Note>| of_notes(notes.into_iter()).unwrap();
        assert_eq!(verdict(vec![counts(2)]), Verdict::Passed);
        assert_eq!(verdict(vec![skip(), counts(2)]), Verdict::Passed);
        let skipped = Verdict::Skipped("no GDB".to_owned());
        assert_eq!(verdict(vec![skip(), counts(1)]), skipped);
    }

    #[test]
    fn the_tests_that_failed_are_named_and_so_is_the_one_that_did_not_end() {
        let text = "running 2 tests\n\
                    test a::one ... SKIP: not here\n\
                    ok\n\
                    test a::two ... thread panicked\n    at a.rs\nFAILED\n\n\
                    failures:\n\nfailures:\n    a::two\n\n\
                    test result: FAILED. 1 passed; 1 failed\n\
                    hunt: failed: p/a with status 101\n\
                    test b::one ... ok\n\
                    test b::two ... ready\n\
                    hunt: failed: p/b with status 137\n\
                    test c::one ... ";
        let verdict = Verdict::of(137, text, [].into_iter()).unwrap();
        let expected = [
            "a::two",
            "p/a with status 101",
            "b::two (did not end)",
            "p/b with status 137",
            "c::one (did not end)",
        ];
        let expected = expected.map(str::to_owned).to_vec();
        assert_eq!(verdict, Verdict::Failed(expected));
    }
}
