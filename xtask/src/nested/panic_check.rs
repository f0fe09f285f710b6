//! A kernel panic inside is told at once, with the console: tried with a real one.

use super::Bed;
use super::Job;
use super::boot::Outcome;
use super::boot::Sink;
use super::scratch::Scratch;

/// In the console's words.
const PANIC: &str = "Kernel panic - not syncing: sysrq triggered crash";

impl Bed {
    /// Boots once, lets the outer kernel panic, and looks at what the bed says of it.
    pub(crate) fn check_panic(&self) -> anyhow::Result<()> {
        let script = "echo c >/proc/sysrq-trigger; sleep 1000";
        let command = ["sh", "-c", script].map(Into::into).to_vec();
        let job = Job::new(command, "/".into(), Vec::new());
        let scratch = Scratch::new()?;
        let plan = self.prepared(&job, &scratch)?;
        let nowhere = || -> Sink { Box::new(std::io::sink()) };
        let (outcome, _, shown) = self.boot(&plan, (nowhere(), nowhere()))?;
        let name = self.machine.name();
        match &outcome {
            Outcome::BedFailed { why } if *why == format!("the outer kernel crashed: {PANIC}") => {}
            other => anyhow::bail!("a panic of the outer kernel in {name} ended as {other:?}"),
        }
        let end = shown.console.split_once(PANIC);
        anyhow::ensure!(
            end.is_some_and(|(_, rest)| rest.contains("Call Trace:")),
            "{name}'s console does not show the panic's call trace:\n{}",
            shown.console
        );
        println!("nested: a panic of the outer kernel in {name} is told at once");
        Ok(())
    }
}
