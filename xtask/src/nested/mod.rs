//! The nested bed: a real kvm-amd or kvm-intel on any machine, on a CPU that QEMU or Bochs emulates.
//!
//! `cargo xtask nested` boots a stock Debian 6.12 kernel with kvm-amd or kvm-intel on an emulated CPU, and runs the project's tests or a command in it.
//! The results show our use of KVM, and not the behaviour of AMD's or Intel's hardware.
//!
//! A command inside gets these variables, and the `TRAPGATE_*`, `RUST_*` and `PROPTEST_*` variables of the caller:
//!
//! | variable | value |
//! |---|---|
//! | `TRAPGATE_NESTED` | `1`, so that results can name the bed |
//! | `TRAPGATE_NESTED_KVM` | `amd` or `intel` |
//! | `TRAPGATE_NESTED_MACHINE` | `qemu` or `bochs` |
//! | `TRAPGATE_TEST_LINUX_KERNEL` | a Debian cloud kernel as a bzImage |
//! | `TRAPGATE_TEST_LINUX_INITRD` | an initramfs for the kernel; [`linux_guest`] describes its output |
//! | `TRAPGATE_TEST_LINUX_DISK` | a disk with the root of the same guest; `trapgate.disk` on its command line selects it |
//! | `TRAPGATE_TEST_LINUX_SYMS` | the kernel's symbols in the format of `/proc/kallsyms`, for a boot with `nokaslr` |

mod bochs;
mod boot;
mod channel;
mod cpio;
pub(crate) mod hunt;
mod kernel;
mod linux_guest;
mod machine;
mod other_vmms;
mod panic_check;
pub(crate) mod places;
mod qemu;
mod qemu_machine;
mod queue;
mod repeat;
mod root_image;
mod scratch;
mod screen;
mod source_edit;
mod sources;
mod suite;

use crate::cache::Cache;
use crate::process;
use crate::system_packages;
use crate::system_packages::CannotHere;
use anyhow::bail;
use bochs::BochsMachine;
use bochs::Cpu;
pub(crate) use boot::Collected;
use boot::Outcome;
pub(crate) use boot::Sink;
use kernel::Kernel;
use linux_guest::LinuxGuest;
pub(crate) use machine::Kvm;
use machine::Machine;
use machine::Mark;
use machine::Plan;
use machine::RUN_FILE;
pub(crate) use qemu::Qemu;
use qemu_machine::QemuMachine;
use repeat::Copied;
use repeat::Shown;
use root_image::RootImage;
use scratch::Scratch;
use std::ffi::OsStr;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
pub(crate) use suite::Suite;

/// Programs that tests start besides GDB, and that busybox lacks or has in a reduced form. The shell of busybox prefers its own programs to those in `PATH`.
const PROGRAMS: &[&str] = &["script", "setpriv", "sh", "unshare"];
/// The project's own program. A command may name it without a path.
const OURS: &str = "trapgate";
/// The Debian packages for every run. Packages that only the build of QEMU needs are installed there.
const IMAGE_PACKAGES: &[&str] = &["e2fsprogs", "gcc", "libc-bin", "libc6-dev", "xz-utils"];
const MEMORY_MIB: u32 = 2048;
/// The exit status for a command that still ran at its time limit, the same as that of `timeout(1)`.
const EXIT_TIMED_OUT: i32 = 124;
/// The exit status if the outer kernel or the machine failed, and would fail again.
const EXIT_BED_FAILED: i32 = 125;
/// The exit status if a second boot differed from the first.
const EXIT_NOT_REPEATED: i32 = 126;

/// With two vCPUs, before QEMU's third repair (`qemu.rs`), a boot sometimes ended in a triple fault or a corrupted stack, of a guest or of the outer kernel,
/// also without a debugger: 4 of 22 boots of a Linux guest, fewer of small guests. With one vCPU, no such end was seen. The threads of a test run in any order with one vCPU too.
const OUTER_CPUS: u32 = 1;

/// No test needs more vCPUs. In Bochs, one core of this machine emulates all vCPUs.
const MOST_CPUS: u32 = 8;

/// Arguments of `cargo xtask nested`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The KVM inside. By default, test programs that may behave differently run in both, `amd` and `intel`; other test programs and commands run in `amd`.
    #[arg(long, value_enum)]
    kvm: Option<Kvm>,
    /// In Bochs: selects another timing of interrupts. The same number gives the same run.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// In Bochs: run everything in a second boot as well, and fail if its output, its console or its number of instructions differs.
    #[arg(long)]
    twice: bool,
    /// The time limit of the command inside, in seconds. In Bochs, seconds of the time inside.
    #[arg(long, default_value_t = 300, requires = "command")]
    timeout: u64,
    /// With a command: the number of vCPUs of the outer machine.
    #[arg(long, default_value_t = OUTER_CPUS, value_parser = cpus, requires = "command")]
    cpus: u32,
    /// With a command: copies this file too, to its own path (may be given again).
    #[arg(long, requires = "command")]
    file: Vec<PathBuf>,
    /// Without a command: only the test programs whose name contains this text, such as `trapgate/linux`.
    #[arg(long, default_value = "", conflicts_with = "command")]
    only: String,
    /// Without a command: only the tests whose name contains this text.
    #[arg(long, conflicts_with = "command")]
    filter: Option<String>,
    /// Without a command: the number of test programs that run at a time, each in a boot of its own. The default is the number of cores of this machine, or fewer
    /// if memory is short. With 1, the output appears as it is written; otherwise the output of a program appears when the program ends.
    #[arg(long, conflicts_with = "command")]
    jobs: Option<NonZeroUsize>,
    /// The command to run inside instead of the tests. The command, the files that its arguments name, and their shared libraries are copied.
    #[arg(last = true)]
    command: Vec<OsString>,
}

fn cpus(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(number @ 1..=MOST_CPUS) => Ok(number),
        _ => Err(format!(
            "the outer machine can have 1 to {MOST_CPUS} CPUs; give one of these numbers"
        )),
    }
}

/// The subcommand; the result is the exit status for the process.
pub(crate) fn main(args: &Args) -> anyhow::Result<i32> {
    let repeats = args.kvm.is_some_and(Kvm::repeats);
    anyhow::ensure!(
        args.seed == 0 || repeats,
        "--seed needs --kvm intel or amd-bochs: QEMU's timing is that of this machine"
    );
    anyhow::ensure!(
        !args.twice || repeats,
        "--twice needs --kvm intel or amd-bochs: in QEMU no run is like another"
    );
    if args.command.is_empty() {
        let filter = args.filter.as_deref();
        let suite = Suite::unbuilt()?
            .only(&args.only, filter)?
            .run_as(args.seed, args.twice);
        suite.check_filter()?;
        let mut failed = 0;
        for (kvm, suite) in suite.by_kvm(args.kvm) {
            println!("nested: {} in kvm-{}", suite.names(), kvm.word());
            let suite = suite.built(kvm)?;
            failed += suite.run(&Bed::provide(kvm)?, args.jobs, &mut |_| {})?;
        }
        return Ok(i32::from(failed > 0));
    }
    let bed = Bed::provide(args.kvm.unwrap_or(Kvm::Amd))?;
    let mut job = Job::of_command(&args.command, &built())?;
    job.files.extend(args.file.iter().cloned());
    job.cpus = args.cpus;
    job.timeout = Duration::from_secs(args.timeout);
    job.seed = args.seed;
    job.twice = args.twice;
    bed.run(&job, &|| {
        (
            Box::new(std::io::stdout()) as Sink,
            Box::new(std::io::stderr()) as Sink,
        )
    })
}

/// All parts that a boot needs, built or downloaded.
pub(crate) struct Bed {
    machine: Box<dyn Machine>,
    kernel: Kernel,
    guest: LinuxGuest,
}

/// A command to run inside, and the files that it needs.
pub(crate) struct Job {
    /// The name of the job in messages.
    name: String,
    command: Vec<OsString>,
    /// The current folder of the command.
    folder: PathBuf,
    files: Vec<PathBuf>,
    environment: Vec<(OsString, OsString)>,
    /// The number of vCPUs of the outer machine.
    pub cpus: u32,
    /// The time limit of the command.
    pub timeout: Duration,
    /// The seed of the timing inside; see [`Plan::seed`].
    pub seed: u64,
    /// Whether a second boot must be the same.
    pub twice: bool,
}

impl Job {
    /// A command line as typed on this machine. `built` is the folder of the project's own program.
    fn of_command(command: &[OsString], built: &Path) -> anyhow::Result<Self> {
        let here = std::env::current_dir()?;
        let program = &command[0];
        let ours = built.join(OURS);
        let path = if program == OURS {
            anyhow::ensure!(
                ours.is_file(),
                "there is no program {}; build it with `cargo build`",
                ours.display()
            );
            Some(ours.clone())
        } else if Path::new(program).components().count() > 1 {
            Some(here.join(program))
        } else {
            program.to_str().and_then(process::find_program)
        };
        let mut files = Vec::new();
        let mut command = command.to_vec();
        match path {
            Some(path) if path.is_file() => {
                command[0] = path.clone().into();
                files.push(path);
            }
            // busybox may have an applet with this name.
            None => {}
            Some(path) => bail!("there is no program {}", path.display()),
        }
        files.extend(
            command[1..]
                .iter()
                .map(|argument| here.join(argument))
                .filter(|path| path.is_file()),
        );
        let named = |word: &OsString| word.to_string_lossy().contains(OURS);
        if command.iter().any(named) && ours.is_file() {
            // A shell inside finds the program in `PATH`.
            files.push(ours);
        }
        Ok(Self::new(command, here, files))
    }

    /// A command that runs in `folder`, with `files` at their own paths.
    pub(crate) fn new(command: Vec<OsString>, folder: PathBuf, files: Vec<PathBuf>) -> Self {
        let passed = ["TRAPGATE_", "RUST_", "PROPTEST_"];
        let environment = std::env::vars_os()
            .filter(|(name, _)| {
                name.to_str()
                    .is_some_and(|name| passed.iter().any(|prefix| name.starts_with(prefix)))
            })
            .collect();
        let program = Path::new(command.first().map_or(OsStr::new(""), OsString::as_os_str));
        let name = program.file_name().unwrap_or_default();
        Self {
            name: name.to_string_lossy().into_owned(),
            command,
            folder,
            files,
            environment,
            cpus: OUTER_CPUS,
            timeout: Duration::from_secs(300),
            seed: 0,
            twice: false,
        }
    }

    /// Sets a variable for the command.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.into(), value.into()));
    }
}

impl Bed {
    /// Takes all parts from the cache, and downloads or builds the missing ones.
    pub(crate) fn provide(kvm: Kvm) -> anyhow::Result<Self> {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            return Err(CannotHere("the nested bed runs on x86-64 Linux only".to_owned()).into());
        }
        system_packages::ensure(IMAGE_PACKAGES, "make the nested bed's disk")?;
        if process::find_program("gdb").is_none() {
            println!("nested: this machine has no gdb, so tests inside run without it");
        }
        let cache = Cache::open()?;
        let kernel = Kernel::provide(&cache)?;
        let machine: Box<dyn Machine> = match kvm {
            Kvm::Amd => Box::new(QemuMachine {
                qemu: Qemu::provide(&cache)?,
                kernel: kernel.clone(),
            }),
            Kvm::Intel => Box::new(BochsMachine::provide(&cache, &kernel, Cpu::INTEL)?),
            Kvm::AmdBochs => Box::new(BochsMachine::provide(&cache, &kernel, Cpu::AMD)?),
        };
        let guest = LinuxGuest::provide(&cache, machine.as_ref(), &kernel)?;
        Ok(Self {
            machine,
            kernel,
            guest,
        })
    }

    /// Only the QEMU of the bed, which is also a VMM with KVM.
    pub(crate) fn qemu() -> anyhow::Result<Qemu> {
        Qemu::provide(&Cache::open()?)
    }

    /// Runs one command in a fresh boot and returns its exit status. `sinks` is called for each boot.
    ///
    /// Repeats a boot only after a failure of the bed itself. Each repetition is announced on the standard error of the command.
    pub(crate) fn run(&self, job: &Job, sinks: &dyn Fn() -> (Sink, Sink)) -> anyhow::Result<i32> {
        let scratch = Scratch::new()?;
        let plan = self.prepared(job, &scratch)?;
        let machine = self.machine.as_ref();
        let say = |text: &str| -> anyhow::Result<()> {
            let (_, mut errors) = sinks();
            writeln!(errors, "nested: {}: {text}", job.name)?;
            Ok(errors.flush()?)
        };
        let retries = machine.retries();
        for attempt in 0..=retries {
            let (outcome, complaint, shown) = self.boot(&plan, sinks())?;
            if let Some(count) = shown.instructions {
                say(&format!("{count} instructions"))?;
            }
            if let Some(line) = complaint {
                say(&format!(
                    "the command failed, and the outer kernel complained in the same boot, which may be why: {line}"
                ))?;
            }
            let code = match outcome {
                Outcome::Exited(code) => code,
                Outcome::TimedOut => {
                    say(&format!(
                        "the command was still running after {} s{} and was ended (--timeout gives it more)",
                        job.timeout.as_secs(),
                        machine.whose_time()
                    ))?;
                    EXIT_TIMED_OUT
                }
                Outcome::BedFailed { why } => {
                    say(&format!(
                        "{why}; the end of its console:\n{}",
                        shown.console
                    ))?;
                    if attempt < retries {
                        say(&format!(
                            "retry {} of {retries} (the bed failed, not the command)",
                            attempt + 1
                        ))?;
                        continue;
                    }
                    if retries > 0 {
                        bail!("the nested bed failed {} times: {why}", retries + 1);
                    }
                    EXIT_BED_FAILED
                }
            };
            if job.twice {
                let nowhere = || -> Sink { Box::new(std::io::sink()) };
                let (_, _, again) = self.boot(&plan, (nowhere(), nowhere()))?;
                if let Some(what) = shown.difference(&again) {
                    say(&format!("a second boot was not the same: {what}"))?;
                    return Ok(EXIT_NOT_REPEATED);
                }
                say("a second boot was the same")?;
            }
            return Ok(code);
        }
        unreachable!("the last attempt returns")
    }

    /// The plan of a job's boots, and the files from which they start.
    fn prepared<'a>(&self, job: &Job, scratch: &'a Scratch) -> anyhow::Result<Plan<'a>> {
        let plan = Plan {
            scratch: scratch.path(),
            cmdline: "",
            cpus: job.cpus,
            memory_mib: MEMORY_MIB,
            timeout: job.timeout,
            seed: job.seed,
            mark: Mark::of(job.command.iter().map(OsString::as_os_str), job.seed),
        };
        let root = self.root_image(job, &scratch.path().join("root"))?;
        self.machine.prepare(root, &plan)?;
        Ok(plan)
    }

    fn boot(
        &self,
        plan: &Plan<'_>,
        sinks: (Sink, Sink),
    ) -> anyhow::Result<(Outcome, Option<String>, Shown)> {
        let (stdout, written) = Copied::new(sinks.0);
        let (stderr, complained) = Copied::new(sinks.1);
        let ended = boot::boot(
            self.machine.as_ref(),
            plan,
            Box::new(stdout),
            Box::new(stderr),
        )?;
        let shown = Shown {
            instructions: ended.instructions,
            ending: format!("{:?}", ended.outcome),
            stdout: written.take(),
            stderr: complained.take(),
            console: ended.console,
        };
        Ok((ended.outcome, ended.complaint, shown))
    }

    fn root_image(&self, job: &Job, staging: &Path) -> anyhow::Result<RootImage> {
        let mut image = RootImage::new(staging)?;
        for file in &job.files {
            image.file(file)?;
        }
        for program in PROGRAMS
            .iter()
            .filter_map(|name| process::find_program(name))
        {
            image.file(&program)?;
        }
        image.gdb()?;
        let checkout = process::workspace_root();
        let tracked = process::capture(
            Command::new("git")
                .args(["ls-files", "--cached"])
                .current_dir(&checkout),
        )
        .unwrap_or_default();
        for file in tracked.lines().map(|line| checkout.join(line)) {
            if file.is_file() {
                image.file(&file)?;
            }
        }
        let artefacts = self.guest.environment();
        for (_, path) in &artefacts {
            image.file(path)?;
        }
        image.busybox(&self.kernel.busybox())?;

        let mut script = format!(
            "export PATH=/usr/bin:/bin:/usr/sbin:/sbin:{} HOME=/root LANG=C.UTF-8 TRAPGATE_NESTED=1\n",
            quoted(built().as_os_str())
        );
        writeln!(
            script,
            "export TRAPGATE_NESTED_KVM={}",
            self.machine.kvm().word()
        )?;
        let machine = self.machine.name().to_lowercase();
        writeln!(script, "export TRAPGATE_NESTED_MACHINE={machine}")?;
        for (name, value) in &job.environment {
            writeln!(
                script,
                "export {}={}",
                name.to_string_lossy(),
                quoted(value)
            )?;
        }
        for (name, path) in &artefacts {
            writeln!(script, "export {name}={}", quoted(path.as_os_str()))?;
        }
        let folder = quoted(job.folder.as_os_str());
        writeln!(script, "mkdir -p {folder} && cd {folder} || exit 126")?;
        let words: Vec<String> = job.command.iter().map(|word| quoted(word)).collect();
        writeln!(script, "exec {}", words.join(" "))?;
        image.write(RUN_FILE, &script)?;
        Ok(image)
    }
}

/// The folder of the project's own program, as `cargo build` leaves it.
fn built() -> PathBuf {
    process::target_dir().join("debug")
}

/// Quotes a word for a shell.
fn quoted(word: &OsStr) -> String {
    format!("'{}'", word.to_string_lossy().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        let hard = "it's $HOME `x` \\ \"q\"\n*";
        let output = process::capture(
            Command::new("sh")
                .arg("-c")
                .arg(format!("printf %s {}", quoted(OsStr::new(hard)))),
        );
        assert_eq!(output.unwrap(), hard);
    }

    #[test]
    fn our_own_program_needs_no_path() {
        let folder = Scratch::new().unwrap();
        let job = |words: &[&str]| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            Job::of_command(&words, folder.path())
        };
        let error = job(&[OURS, "doctor"]).err().unwrap().to_string();
        assert!(error.contains("`cargo build`"), "{error}");
        let program = folder.path().join(OURS);
        std::fs::write(&program, "").unwrap();
        let alone = job(&[OURS, "doctor"]).unwrap();
        assert_eq!(alone.command, [program.as_os_str(), OsStr::new("doctor")]);
        let shell = job(&["sh", "-c", "trapgate doctor"]).unwrap();
        assert!(alone.files.contains(&program) && shell.files.contains(&program));
        assert!(!job(&["sh", "-c", "date"]).unwrap().files.contains(&program));
    }

    #[test]
    fn a_machine_without_a_cpu_or_with_options_that_have_no_part_in_the_run_is_refused() {
        use clap::Parser as _;
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        let refused = |line: &str| {
            let words = ["nested"].into_iter().chain(line.split(' '));
            Line::try_parse_from(words).err().map(|err| err.to_string())
        };
        let error = refused("--cpus 0 -- date").unwrap();
        assert!(error.contains("1 to 8 CPUs"), "{error}");
        for line in ["--cpus 9 -- date", "--cpus 2", "--only x -- date"] {
            assert!(refused(line).is_some(), "{line}");
        }
        for line in ["--cpus 2 -- date", "--only x", "--timeout 5 -- date"] {
            assert_eq!(refused(line), None, "{line}");
        }
    }
}
