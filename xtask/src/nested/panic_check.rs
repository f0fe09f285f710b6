//! Checks with a real panic that a kernel panic is reported at once, together with the console.

use super::Bed;
use super::Job;
use super::boot::Outcome;
use super::boot::Sink;
use super::scratch::Scratch;

/// The text on the console.
const PANIC: &str = "Kernel panic - not syncing: sysrq triggered crash";

impl Bed {
    /// Boots once, makes the outer kernel panic, and checks the report.
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
        println!("nested: a panic of the outer kernel in {name} is reported at once");
        Ok(())
    }
}
