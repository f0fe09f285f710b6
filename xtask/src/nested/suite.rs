//! The tests that run in the nested bed: the tests that run on this machine's /dev/kvm, built once and copied.

use super::Bed;
use super::Job;
use super::MEMORY_MIB;
use super::boot::Sink;
use super::machine::Kvm;
use super::other_vmms;
use super::places;
use super::queue;
use super::quoted;
use super::screen::Screen;
use super::screen::Verdict;
use super::sources;
use crate::process;
use crate::soak;
use crate::test_output::Note;
use crate::test_output::Watch;
use anyhow::Context as _;
use cargo_metadata::Message;
use cargo_metadata::Target;
use cargo_metadata::TargetKind;
use std::ffi::OsString;
use std::io::BufReader;
use std::num::NonZeroUsize;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

/// The packages whose tests open /dev/kvm.
const PACKAGES: &[&str] = &[
    "conformance",
    "own_run_loop",
    "trapgate-preload",
    "trapgate-vp-runner",
    "trapgate",
];

/// The programs of these packages whose tests do not open /dev/kvm.
const WITHOUT_KVM: [&str; 1] = ["preload/unit"];

/// The packages that also have tests of races.
const WITH_RACES: &[&str] = &["trapgate-debug-worker", "trapgate-gdb-frontend"];

/// Long tests that never open /dev/kvm, and that have run on this machine. The list names the tests to leave out, so a test with a new name runs.
const PURE: &[&str] = &["step_effects::class::", "control::", "controller::tests::"];

/// The time limit for all tests of one program. Most programs take seconds, and several times as long on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(600);

/// This text precedes the name of a failed program in the output of a [batch](Suite::batch).
pub(super) const FAILED: &str = "hunt: failed: ";

/// Test programs that cargo has built, and the programs that they start.
#[derive(Clone)]
pub(crate) struct Suite {
    tests: Vec<TestProgram>,
    programs: Vec<PathBuf>,
    /// More files for the [tests of other VMMs](other_vmms).
    for_other_vmms: Vec<PathBuf>,
    /// Only the tests whose name contains this text run.
    filter: Option<String>,
    /// See [`Job::seed`].
    seed: u64,
    /// See [`Job::twice`].
    twice: bool,
}

/// A test program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TestProgram {
    name: String,
    /// The folder of the package. cargo runs a test in this folder.
    folder: PathBuf,
    path: PathBuf,
}

impl TestProgram {
    /// A target of the package in this folder. `path` is the path of the program, or of its source.
    pub(super) fn new(folder: &Path, target: &Target, path: PathBuf) -> Self {
        let package = folder.file_name().unwrap_or_default().to_string_lossy();
        let kind = if target.kind.contains(&TargetKind::Test) {
            target.name.as_str()
        } else {
            "unit"
        };
        Self {
            name: format!("{package}/{kind}"),
            folder: folder.to_owned(),
            path,
        }
    }

    /// The names of the package and of the program, such as `vp_runner/races`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The path of the program.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The package's.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Suite {
    /// The tests that open /dev/kvm, not yet built. The path of each program is that of its source.
    pub(crate) fn unbuilt() -> anyhow::Result<Self> {
        let mut tests = sources::programs(PACKAGES)?;
        tests.retain(|test| !WITHOUT_KVM.contains(&test.name()));
        Ok(Self::of(tests))
    }

    /// Builds the programs for this KVM.
    pub(crate) fn built(self, kvm: Kvm) -> anyhow::Result<Self> {
        let mut built = Self::built_by(cargo(kvm), PACKAGES.iter())?;
        let wanted = |test: &TestProgram| self.tests.iter().any(|it| it.name == test.name);
        built.tests.retain(wanted);
        Ok(Self {
            tests: built.tests,
            programs: built.programs,
            for_other_vmms: built.for_other_vmms,
            ..self
        })
    }

    /// The suite for many runs. It includes the tests of races between threads, which need no KVM.
    pub(super) fn for_hunts() -> anyhow::Result<Self> {
        Self::built_by(cargo(Kvm::Intel), PACKAGES.iter().chain(WITH_RACES))
    }

    /// Builds the suite of [`Self::for_hunts`].
    pub(super) fn unbuilt_for_hunts() -> anyhow::Result<Self> {
        Ok(Self::of(sources::programs(
            &[PACKAGES, WITH_RACES].concat(),
        )?))
    }

    fn of(tests: Vec<TestProgram>) -> Self {
        Self {
            tests,
            programs: Vec::new(),
            for_other_vmms: Vec::new(),
            filter: None,
            seed: 0,
            twice: false,
        }
    }

    fn built_by<'a>(
        mut command: Command,
        packages: impl Iterator<Item = &'a &'a str>,
    ) -> anyhow::Result<Self> {
        command.args([
            "test",
            "--no-run",
            "--message-format=json-render-diagnostics",
        ]);
        // Unit tests of libraries, integration tests, and the programs that they start.
        command.args(["--lib", "--bins", "--tests"]);
        for package in packages.chain([&other_vmms::STARTED]) {
            command.args(["--package", package]);
        }
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start cargo")?;
        let stdout = child.stdout.take().expect("standard output is a pipe");
        let mut suite = Self::of(Vec::new());
        for message in Message::parse_stream(BufReader::new(stdout)) {
            let Message::CompilerArtifact(artifact) = message? else {
                continue;
            };
            suite.for_other_vmms.extend(other_vmms::library(&artifact));
            let Some(path) = artifact.executable else {
                continue;
            };
            let path = PathBuf::from(path);
            if !artifact.profile.test {
                suite.programs.push(path);
                continue;
            }
            // Its own tests are in no suite.
            if artifact.target.name == other_vmms::STARTED {
                continue;
            }
            let folder = artifact
                .manifest_path
                .parent()
                .context("a manifest lies in a folder")?;
            let folder = folder.as_std_path();
            suite
                .tests
                .push(TestProgram::new(folder, &artifact.target, path));
        }
        let status = child.wait()?;
        if !status.success() {
            anyhow::bail!("the tests do not build (cargo ended with {status})");
        }
        suite.tests.sort_by(|a, b| a.name.cmp(&b.name));
        if suite.tests.iter().any(other_vmms::are_started_by) {
            suite.for_other_vmms.extend(other_vmms::files()?);
        }
        Ok(suite)
    }

    /// Keeps the test programs whose name contains `name`, and of their tests those that `filter` selects.
    pub(crate) fn only(mut self, name: &str, filter: Option<&str>) -> anyhow::Result<Self> {
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

    /// Checks, in an unbuilt suite, that the filter may select a test.
    ///
    /// # Errors
    /// The filter selects no test.
    pub(super) fn check_filter(&self) -> anyhow::Result<()> {
        let Some(filter) = &self.filter else {
            return Ok(());
        };
        for test in &self.tests {
            if sources::may_have(&test.path, filter)? {
                return Ok(());
            }
        }
        anyhow::bail!(
            "no test of {} has a name with `{filter}` in it",
            self.names()
        )
    }

    /// Keeps the test programs that are [meant for](places::of) this KVM.
    pub(crate) fn meant_for(mut self, kvm: Kvm) -> Self {
        self.tests
            .retain(|test| places::of(&test.name).contains(&kvm));
        self
    }

    /// The programs to run in each KVM: all programs in the given KVM, or each program in the KVMs for which it is meant.
    pub(super) fn by_kvm(self, given: Option<Kvm>) -> Vec<(Kvm, Self)> {
        let Some(kvm) = given else {
            let all = places::ALL.map(|kvm| (kvm, self.clone().meant_for(kvm)));
            let some = all.into_iter().filter(|(_, part)| !part.tests.is_empty());
            return some.collect();
        };
        vec![(kvm, self)]
    }

    /// The names of the programs, for messages.
    pub(super) fn names(&self) -> String {
        let names: Vec<&str> = self.tests.iter().map(TestProgram::name).collect();
        names.join(", ")
    }

    /// The only test program whose name contains `name`, or equals `name`.
    ///
    /// # Errors
    /// No program has this name, or several do.
    pub(super) fn program(&self, name: &str) -> anyhow::Result<&TestProgram> {
        if let Some(test) = self.tests.iter().find(|test| test.name == name) {
            return Ok(test);
        }
        let found: Vec<&TestProgram> = self.named_like(name).collect();
        match found.as_slice() {
            [test] => Ok(test),
            [] => {
                let all: Vec<&str> = self.named_like("").map(TestProgram::name).collect();
                anyhow::bail!(
                    "no test program has a name with `{name}` in it; there are {}",
                    all.join(", ")
                )
            }
            several => {
                let names: Vec<&str> = several.iter().map(|test| test.name()).collect();
                anyhow::bail!("`{name}`: name one test program, of {}", names.join(", "))
            }
        }
    }

    fn named_like(&self, name: &str) -> impl Iterator<Item = &TestProgram> {
        self.tests
            .iter()
            .filter(move |test| test.name.contains(name))
    }

    /// Uses this timing inside, and runs each program in two boots that have to be the same; see [`Job::seed`] and [`Job::twice`].
    pub(crate) fn run_as(mut self, seed: u64, twice: bool) -> Self {
        self.seed = seed;
        self.twice = twice;
        self
    }

    /// Runs each test program in a boot of its own, `jobs` of them at a time, or as many as fit on this machine. Returns the number of failures.
    /// `noted` gets the notes of the programs.
    ///
    /// The programs run in the order of their names. With the longest first, two at a time would end 3 % earlier.
    pub(crate) fn run(
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
        let (mut failed, mut tests, mut sum) = (0, 0, Duration::ZERO);
        queue::in_parallel(
            count,
            at_a_time,
            |number| self.run_one(&self.tests[number], (number + 1, count), bed, &screen),
            |ended| {
                failed += u32::from(ended.code != 0);
                tests += tests_run(&ended.notes).unwrap_or(0);
                sum += ended.took;
                ended.notes.into_iter().for_each(&mut *noted);
            },
        )?;
        if let (Some(filter), 0, 0) = (&self.filter, tests, failed) {
            anyhow::bail!("no test has a name with `{filter}` in it");
        }
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
        let notes: Vec<Note> = notes.into_iter().collect();
        let result = result.and_then(|code| {
            let lost = code == 0 && tests_run(&notes).is_none();
            anyhow::ensure!(
                !lost,
                "it ended with status 0, and its last line is missing"
            );
            Ok(code)
        });
        let verdict = match &result {
            Ok(code) => Verdict::Exited(*code),
            Err(error) => Verdict::BedFailed(error),
        };
        shown.end(&verdict, took)?;
        Ok(EndedProgram {
            code: result.with_context(|| test.name.clone())?,
            took,
            notes,
        })
    }

    /// The job of one test program.
    fn job(&self, test: &TestProgram) -> Job {
        let command = command(test, self.filter.as_slice());
        let mut job = Job::new(command, test.folder.clone(), self.files([test]));
        job.name.clone_from(&test.name);
        job.timeout = TIMEOUT + soak::share();
        job.seed = self.seed;
        job.twice = self.twice;
        job
    }

    /// The job of several test programs, which run one after the other in one boot. Each has its own time limit. A failure of one does not prevent the next one.
    pub(super) fn batch(&self, batch: &[Chosen<'_>], seed: u64) -> Job {
        let script = script(batch, TIMEOUT);
        let programs = batch.iter().map(|chosen| chosen.program);
        let mut job = Job::new(
            vec!["sh".into(), "-c".into(), script.into()],
            process::workspace_root(),
            self.files(programs),
        );
        job.name = "hunt".to_owned();
        job.timeout = TIMEOUT * u32::try_from(batch.len()).unwrap_or(u32::MAX);
        job.seed = seed;
        job
    }

    fn files<'a>(&self, tests: impl IntoIterator<Item = &'a TestProgram>) -> Vec<PathBuf> {
        let mut files = self.programs.clone();
        for test in tests {
            files.push(test.path.clone());
            if other_vmms::are_started_by(test) {
                files.extend(self.for_other_vmms.iter().cloned());
            }
        }
        files
    }
}

/// A test program, and those of its tests whose names contain one of `filters`. With no filter, all of its tests.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chosen<'a> {
    pub(super) program: &'a TestProgram,
    pub(super) filters: Vec<String>,
}

/// Builds as `cargo test` does, in the same target folder. For Bochs the build is optimized: a run of `vp_runner/races` takes 2.0 billion instructions instead of more than 4,
/// and `trapgate/ways_to_go` would take a quarter of an hour. Crates of others are those of every build, and are not built again.
fn cargo(kvm: Kvm) -> Command {
    let mut cargo = process::cargo();
    if kvm.repeats() {
        cargo.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
    }
    cargo
}

fn command(test: &TestProgram, filters: &[String]) -> Vec<OsString> {
    let mut command: Vec<OsString> = vec![
        test.path.clone().into(),
        "--nocapture".into(),
        "--test-threads=1".into(),
    ];
    command.extend(PURE.iter().flat_map(|name| ["--skip".into(), name.into()]));
    command.extend(filters.iter().map(OsString::from));
    command
}

/// A script for a shell. Its exit status is that of the last program that failed. The script reports the end of a program only if the program failed. The output before this
/// report shows which test was running.
fn script(batch: &[Chosen<'_>], each: Duration) -> String {
    let mut script = String::from("status=0\n");
    for Chosen { program, filters } in batch {
        let words: Vec<String> = command(program, filters)
            .iter()
            .map(|word| quoted(word))
            .collect();
        script += &format!(
            "cd {} && timeout -s KILL {} {} || {{ status=$?; echo {FAILED}{} with status $status; }}\n",
            quoted(program.folder.as_os_str()),
            each.as_secs(),
            words.join(" "),
            program.name,
        );
    }
    script + "exit $status\n"
}

/// The number of tests that a program has run, by its last line. `None` if there is no such line.
fn tests_run(notes: &[Note]) -> Option<u32> {
    notes.iter().rev().find_map(|note| match note {
        Note::Counts { passed, failed } => Some(passed + failed),
        Note::Skip(_) | Note::Failure { .. } => None,
    })
}

/// A test program that has ended.
struct EndedProgram {
    /// Its exit status.
    code: i32,
    took: Duration,
    notes: Vec<Note>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell script in the place of a test program.
    fn program(folder: &Path, name: &str, script: &str) -> TestProgram {
        use std::os::unix::fs::PermissionsExt as _;
        let path = folder.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        TestProgram {
            name: format!("package/{name}"),
            folder: folder.to_owned(),
            path,
        }
    }

    fn suite(names: &[&str]) -> Suite {
        let program = |name: &&str| TestProgram {
            name: (*name).to_owned(),
            folder: PathBuf::new(),
            path: PathBuf::new(),
        };
        Suite::of(names.iter().map(program).collect())
    }

    #[test]
    fn a_program_that_fails_or_hangs_keeps_no_other_from_running_and_is_named() {
        let folder = std::env::temp_dir().join(format!("xtask-batch-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let programs = [
            program(&folder, "fails", "exit 101"),
            program(&folder, "hangs", "exec sleep 1000"),
            program(&folder, "passes", "pwd; echo $*"),
        ];
        let filters = || vec!["it's".to_owned(), "two".to_owned()];
        let batch: Vec<Chosen<'_>> = programs
            .iter()
            .map(|program| Chosen {
                program,
                filters: filters(),
            })
            .collect();
        let output = Command::new("sh")
            .arg("-c")
            .arg(script(&batch, Duration::from_secs(1)))
            .output()
            .unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "hunt: failed: package/fails with status 101");
        assert_eq!(lines[1], "hunt: failed: package/hangs with status 137");
        assert_eq!(lines[2], folder.to_str().unwrap());
        assert!(lines[3].ends_with("controller::tests:: it's two"), "{text}");
        assert_eq!(output.status.code(), Some(137));
    }

    #[test]
    fn a_program_without_its_last_line_has_run_no_known_number_of_tests() {
        let skip = || Note::Skip("no KVM".to_owned());
        let counts = |passed, failed| Note::Counts { passed, failed };
        assert_eq!(tests_run(&[]), None);
        assert_eq!(tests_run(&[skip()]), None);
        assert_eq!(tests_run(&[counts(0, 0)]), Some(0));
        assert_eq!(tests_run(&[skip(), counts(3, 1), skip()]), Some(4));
    }

    #[test]
    fn each_program_runs_where_it_is_meant_to_or_in_the_kvm_that_is_given() {
        let parts = |names: &[&str], given| {
            let parts = suite(names).by_kvm(given).into_iter();
            parts
                .map(|(kvm, part)| (kvm, part.names()))
                .collect::<Vec<_>>()
        };
        let both = ["trapgate/linux", "vp_runner/stepping"];
        let all = || "trapgate/linux, vp_runner/stepping".to_owned();
        assert_eq!(
            parts(&both, None),
            [
                (Kvm::Amd, all()),
                (Kvm::Intel, "vp_runner/stepping".to_owned())
            ]
        );
        assert_eq!(parts(&both, Some(Kvm::Intel)), [(Kvm::Intel, all())]);
        let alone = "trapgate/linux".to_owned();
        assert_eq!(parts(&both[..1], None), [(Kvm::Amd, alone)]);
    }
}
