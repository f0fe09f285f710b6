//! The tests that run in the bed: the same ones that run on this machine's /dev/kvm, built once and copied in.

use super::Bed;
use super::Job;
use super::MEMORY_MIB;
use super::boot::Sink;
use super::queue;
use super::screen::Screen;
use super::screen::Verdict;
use crate::process;
use crate::soak;
use crate::test_output::Note;
use crate::test_output::Watch;
use anyhow::Context as _;
use cargo_metadata::Message;
use cargo_metadata::TargetKind;
use std::ffi::OsString;
use std::io::BufReader;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

/// The packages whose tests open /dev/kvm.
const PACKAGES: &[&str] = &["conformance", "vp_runner", "trapgate"];

/// Long tests that never open /dev/kvm: they have run on this machine. Named by what to leave out, so that a new name costs time and no test.
const PURE: &[&str] = &["run_state::", "controller::tests::"];

/// For one test program, all of its tests: most take seconds, and a busy machine several times as long as a quiet one.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Test programs that cargo built, with the programs that they start.
pub struct Suite {
    tests: Vec<TestProgram>,
    programs: Vec<PathBuf>,
    /// For the test programs: only the tests whose name contains it.
    filter: Option<String>,
    /// See [`Job::seed`].
    seed: u64,
    /// See [`Job::twice`].
    twice: bool,
}

/// One of them.
pub(super) struct TestProgram {
    name: String,
    /// The package's folder: cargo's promise to a test is to run there.
    folder: PathBuf,
    path: PathBuf,
}

impl TestProgram {
    /// The package's and the program's, as in `vp_runner/races`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Suite {
    /// Builds them as `cargo test` does, in the same target folder.
    pub fn build() -> anyhow::Result<Self> {
        let mut command = process::cargo();
        command.args([
            "test",
            "--no-run",
            "--message-format=json-render-diagnostics",
        ]);
        // Libraries' unit tests and integration tests, and the programs those start.
        command.args(["--lib", "--bins", "--tests"]);
        for package in PACKAGES {
            command.args(["--package", package]);
        }
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start cargo")?;
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let mut suite = Self {
            tests: Vec::new(),
            programs: Vec::new(),
            filter: None,
            seed: 0,
            twice: false,
        };
        for message in Message::parse_stream(BufReader::new(stdout)) {
            let Message::CompilerArtifact(artifact) = message? else {
                continue;
            };
            let Some(path) = artifact.executable else {
                continue;
            };
            let path = PathBuf::from(path);
            if !artifact.profile.test {
                suite.programs.push(path);
                continue;
            }
            let folder = artifact
                .manifest_path
                .parent()
                .context("a manifest lies in a folder")?;
            let package = folder.file_name().unwrap_or_default();
            let kind = if artifact.target.kind.contains(&TargetKind::Test) {
                artifact.target.name.as_str()
            } else {
                "unit"
            };
            suite.tests.push(TestProgram {
                name: format!("{package}/{kind}"),
                folder: folder.into(),
                path,
            });
        }
        let status = child.wait()?;
        if !status.success() {
            anyhow::bail!("the tests do not build (cargo ended with {status})");
        }
        suite.tests.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(suite)
    }

    /// Leaves the test programs whose name contains `name`, and of their tests those that `filter` selects.
    pub fn only(mut self, name: &str, filter: Option<&str>) -> anyhow::Result<Self> {
        let all: Vec<String> = self.tests.iter().map(|test| test.name.clone()).collect();
        self.tests.retain(|test| test.name.contains(name));
        self.filter = filter.map(str::to_owned);
        anyhow::ensure!(
            !self.tests.is_empty(),
            "no test program has a name with `{name}` in it; there are {}",
            all.join(", ")
        );
        Ok(self)
    }

    /// Leaves the test programs of these names.
    pub fn named(mut self, names: &[&str]) -> anyhow::Result<Self> {
        for name in names {
            anyhow::ensure!(
                self.tests.iter().any(|test| test.name == *name),
                "there is no test program {name}"
            );
        }
        self.tests
            .retain(|test| names.contains(&test.name.as_str()));
        Ok(self)
    }

    /// The one test program that is left.
    ///
    /// # Errors
    /// There are several.
    pub(super) fn single(&self) -> anyhow::Result<&TestProgram> {
        match self.tests.as_slice() {
            [test] => Ok(test),
            several => {
                let names: Vec<&str> = several.iter().map(TestProgram::name).collect();
                anyhow::bail!("name one test program, of {}", names.join(", "))
            }
        }
    }

    /// With this timing inside, and each program in two boots that have to be the same; see [`Job::seed`] and [`Job::twice`].
    pub fn run_as(mut self, seed: u64, twice: bool) -> Self {
        self.seed = seed;
        self.twice = twice;
        self
    }

    /// Runs each test program in a boot of its own, `jobs` of them at a time or as many as this machine has room for; returns how many failed.
    /// `noted` gets what they say.
    ///
    /// They run in the order of their names: with the longest first, two at a time would be done 3 % earlier.
    pub fn run(
        &self,
        bed: &Bed,
        jobs: Option<NonZeroUsize>,
        noted: &mut dyn FnMut(Note),
    ) -> anyhow::Result<u32> {
        let count = self.tests.len();
        let room = jobs.unwrap_or_else(|| queue::room(MEMORY_MIB));
        let at_a_time = room.min(NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN));
        let started = Instant::now();
        let terminal =
            || -> (Sink, Sink) { (Box::new(std::io::stdout()), Box::new(std::io::stderr())) };
        let screen = Screen::new(&terminal, at_a_time.get() == 1);
        let (mut failed, mut sum) = (0, Duration::ZERO);
        queue::in_parallel(
            count,
            at_a_time,
            |number| self.run_one(&self.tests[number], (number + 1, count), bed, &screen),
            |ended| {
                failed += u32::from(ended.code != 0);
                sum += ended.took;
                ended.notes.into_iter().for_each(&mut *noted);
            },
        )?;
        println!(
            "nested: {count} programs, {failed} failed; {:.1} s, {:.1} s in sum with {at_a_time} at a time",
            started.elapsed().as_secs_f64(),
            sum.as_secs_f64()
        );
        Ok(failed)
    }

    fn run_one(
        &self,
        test: &TestProgram,
        place: (usize, usize),
        bed: &Bed,
        screen: &Screen<'_>,
    ) -> anyhow::Result<EndedProgram> {
        let shown = screen.begin(&test.name, &test.path, place)?;
        let started = Instant::now();
        let (sender, notes) = std::sync::mpsc::channel();
        let result = bed.run(&self.job(test), &|| {
            let watch = |sink: Sink| -> Sink { Box::new(Watch::new(sink, sender.clone())) };
            let (stdout, stderr) = shown.sinks();
            (watch(stdout), watch(stderr))
        });
        drop(sender);
        let took = started.elapsed();
        let verdict = match &result {
            Ok(code) => Verdict::Exited(*code),
            Err(error) => Verdict::BedFailed(error),
        };
        shown.end(&verdict, took)?;
        Ok(EndedProgram {
            code: result.with_context(|| test.name.clone())?,
            took,
            notes: notes.into_iter().collect(),
        })
    }

    /// A run of it in the bed.
    pub(super) fn job(&self, test: &TestProgram) -> Job {
        let mut files = vec![test.path.clone()];
        files.extend(self.programs.iter().cloned());
        let mut command: Vec<OsString> = vec![
            test.path.clone().into(),
            "--nocapture".into(),
            "--test-threads=1".into(),
        ];
        command.extend(PURE.iter().flat_map(|name| ["--skip".into(), name.into()]));
        command.extend(self.filter.iter().map(OsString::from));
        let mut job = Job::new(command, test.folder.clone(), files);
        job.name.clone_from(&test.name);
        job.timeout = TIMEOUT + soak::share();
        job.seed = self.seed;
        job.twice = self.twice;
        job
    }
}

/// A test program that ran to its end.
struct EndedProgram {
    /// Its exit status.
    code: i32,
    took: Duration,
    notes: Vec<Note>,
}
