//! The outcome of each test, read from libtest's output with `--show-output --test-threads=1`.

use std::collections::BTreeMap;

/// The outcome of one test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The whole test passed.
    Passed,
    /// The test passed, but skipped a part, for this reason.
    PassedInPart(String),
    /// The test failed, with the message of the panic.
    Failed(String),
    /// The test was skipped, for this reason.
    Skipped(String),
}

/// The outcomes, by the names of the tests.
pub(super) type Outcomes = BTreeMap<String, Outcome>;

/// Reads the output of several test programs that ran one after the other.
///
/// # Errors
/// Fewer than `programs` programs have printed their last line.
pub(super) fn read(output: &str, programs: usize) -> anyhow::Result<Outcomes> {
    let ends = output
        .lines()
        .filter(|line| line.starts_with("test result: "))
        .count();
    anyhow::ensure!(
        ends == programs,
        "{ends} of {programs} test programs printed their last line; the end of the output:\n{}",
        end_of(output)
    );
    let mut outcomes: Outcomes = output.lines().filter_map(verdict).collect();
    for (name, printed) in output.split("\n---- ").filter_map(section) {
        match outcomes.get_mut(name) {
            Some(Outcome::Failed(why)) => *why = message(printed),
            Some(outcome) => *outcome = without_failure(printed),
            None => anyhow::bail!("`{name}` has output, but no result"),
        }
    }
    // Unit tests of the test programs.
    outcomes.retain(|name, _| !name.contains("::"));
    Ok(outcomes)
}

/// The outcome of a test that did not fail, by its output. A test that cannot run prints the reason and nothing else.
fn without_failure(printed: &str) -> Outcome {
    let own = printed.split("\n\n").next().unwrap_or_default();
    let Some(reason) = own.lines().find_map(|line| line.strip_prefix(SKIP)) else {
        return Outcome::Passed;
    };
    match own.lines().all(|line| line.starts_with(SKIP)) {
        true => Outcome::Skipped(reason.to_owned()),
        false => Outcome::PassedInPart(reason.to_owned()),
    }
}

const SKIP: &str = "SKIP: ";

/// The number of lines of a message that are kept: an assertion's own line, and both values.
const LINES: usize = 3;

/// The message of a panic, which follows the line with the place of the panic.
fn message(printed: &str) -> String {
    let lines = printed.lines();
    let behind = lines
        .skip_while(|line| !line.contains(" panicked at "))
        .skip(1);
    let lines = behind.take_while(|line| !line.is_empty() && !line.starts_with("note: "));
    let lines = lines
        .take(LINES)
        .map(|line| line.trim().trim_end_matches(':'));
    lines.collect::<Vec<&str>>().join("; ")
}

/// `test NAME ... ok`
fn verdict(line: &str) -> Option<(String, Outcome)> {
    let (name, word) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let outcome = match word {
        "ok" => Outcome::Passed,
        "FAILED" => Outcome::Failed(String::new()),
        _ => return None,
    };
    Some((name.to_owned(), outcome))
}

/// Matches `NAME stdout ----`. The output of the test follows.
fn section(text: &str) -> Option<(&str, &str)> {
    text.split_once(" stdout ----\n")
}

fn end_of(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 5 tests
test four ... ok
test one ... ok
test table::of_pairs ... ok
test three ... FAILED
test two ... ok

successes:

---- four stdout ----
SKIP: gdb-18 software: it loses track
gdb-13 software: 13 rounds

---- one stdout ----
5000 continues

---- two stdout ----
SKIP: no gdb; install it


failures:

---- three stdout ----

thread 'three' (2762) panicked at test_support/conformance/tests/packets.rs:60:9:
assertion `left == right` failed: continue 1
  left: 1
 right: 2
note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace


failures:
    three

test result: FAILED. 4 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 44.29s
";

    #[test]
    fn each_test_has_its_outcome_with_its_reason() {
        let outcomes = read(OUTPUT, 1).unwrap();
        let expected = [
            (
                "four",
                Outcome::PassedInPart("gdb-18 software: it loses track".to_owned()),
            ),
            ("one", Outcome::Passed),
            (
                "three",
                Outcome::Failed(
                    "assertion `left == right` failed: continue 1; left: 1; right: 2".to_owned(),
                ),
            ),
            ("two", Outcome::Skipped("no gdb; install it".to_owned())),
        ];
        let expected = expected.map(|(name, outcome)| (name.to_owned(), outcome));
        assert_eq!(outcomes, Outcomes::from(expected));
    }

    #[test]
    fn a_program_without_an_end_is_an_error() {
        let (cut, _) = OUTPUT.split_once("\ntest result").unwrap();
        let error = read(cut, 1).unwrap_err().to_string();
        assert!(error.starts_with("0 of 1 test programs"), "{error}");
        assert!(read(OUTPUT, 2).is_err());
        assert!(read(&OUTPUT.repeat(2), 2).is_ok());
    }
}
