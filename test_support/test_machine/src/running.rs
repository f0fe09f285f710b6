//! The program under test as a child process: its output, its end, and a deadline for every wait.

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::process::Child;
use std::process::ChildStdin;
use std::process::Command;
use std::process::Stdio;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::Duration;
use std::time::Instant;

/// Long enough for the slowest bed. No passing test waits this long.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// `trapgate` with its own cache folder.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    _cache: tempfile::TempDir,
}

/// The end of a program.
#[derive(Debug)]
pub struct Ended {
    /// The exit code. `None` if a signal ended the program.
    pub code: Option<i32>,
    /// The whole output.
    pub output: String,
}

/// The program prints nothing and has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silent;

/// Whether guests can run here. If not, the reason is printed. In the nested bed, whose purpose is to run guests, it is
/// a failure.
pub fn kvm_here() -> bool {
    match std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
    {
        Ok(_) => true,
        Err(why) => {
            assert!(
                std::env::var_os("TRAPGATE_NESTED").is_none(),
                "the nested bed has no KVM: {why}"
            );
            println!("SKIP: /dev/kvm cannot be used: {why}");
            false
        }
    }
}

/// The name of the variable that has the value of `--isolate` for each `trapgate run` whose test does not choose one.
const ISOLATE: &str = "TRAPGATE_TEST_ISOLATE";

/// The command `trapgate` with its arguments, not started.
///
/// # Panics
/// See [`program`].
pub fn trapgate(args: &[&str]) -> Command {
    let mut command = program("trapgate");
    command.args(args);
    let runs = args
        .first()
        .is_none_or(|word| *word == "run" || word.starts_with('-'));
    let chosen = args.iter().any(|word| word.starts_with("--isolate"));
    if runs
        && !chosen
        && let Ok(isolate) = std::env::var(ISOLATE)
    {
        command.args(["--isolate", &isolate]);
    }
    command
}

/// A program of the workspace as a command without arguments and input, not started.
///
/// # Panics
/// The program is not built. Cargo puts it one folder above the test programs.
pub fn program(name: &str) -> Command {
    let test = std::env::current_exe().expect("a process knows its program");
    let program = test
        .ancestors()
        .nth(2)
        .expect("a test program lies in `deps`")
        .join(name);
    assert!(
        program.is_file(),
        "no {}: build it first, with `cargo build --package` and the package of the program",
        program.display()
    );
    let mut command = Command::new(program);
    command.stdin(Stdio::null());
    command
}

impl Running {
    /// Starts `trapgate` with these arguments.
    pub fn start(args: &[&str]) -> Self {
        Self::spawn(trapgate(args))
    }

    /// Starts `command`. Its output and its error output are one stream of lines.
    pub fn spawn(mut command: Command) -> Self {
        let cache = tempfile::tempdir().expect("a temporary folder");
        command
            .env("XDG_CACHE_HOME", cache.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let (sender, lines) = mpsc::channel();
        let streams: [Box<dyn Read + Send>; 2] = [
            Box::new(child.stdout.take().expect("piped")),
            Box::new(child.stderr.take().expect("piped")),
        ];
        for stream in streams {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                    let _ = sender.send(String::from_utf8_lossy(&line).trim_end().to_owned());
                }
            });
        }
        Self {
            child,
            lines,
            seen: Vec::new(),
            _cache: cache,
        }
    }

    /// As [`spawn`](Self::spawn), with a pipe for the input.
    pub fn spawn_with_input(mut command: Command) -> (Self, ChildStdin) {
        command.stdin(Stdio::piped());
        let mut running = Self::spawn(command);
        let input = running.child.stdin.take().expect("piped");
        (running, input)
    }

    /// Returns the first line, printed already or in future, that `wanted` accepts.
    #[track_caller]
    pub fn line(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        match self.seen.iter().find(|line| wanted(line)) {
            Some(line) => line.clone(),
            None => self.new_line(what, wanted),
        }
    }

    /// Returns the first line that `wanted` accepts, of those that no call has looked at yet.
    #[track_caller]
    pub fn new_line(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!(
                    "no line with {what}; printed so far:\n{}",
                    self.seen.join("\n")
                );
            };
            self.seen.push(line.clone());
            if wanted(&line) {
                return line;
            }
        }
    }

    /// The lines that no call has looked at yet, up to one that is `end`.
    #[track_caller]
    pub fn text_up_to(&mut self, end: &str) -> String {
        let begin = self.seen.len();
        self.new_line(&format!("`{end}`"), |line| line == end);
        self.seen[begin..self.seen.len() - 1].join("\n")
    }

    /// The next line that was not read yet. `None` at the end of the output. `Err` if the program prints nothing for
    /// `patience`.
    pub fn next_line(&mut self, patience: Duration) -> Result<Option<String>, Silent> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(Silent),
        }
    }

    /// Waits for a line that contains `text`.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) -> String {
        self.line(&format!("`{text}`"), |line| line.contains(text))
    }

    /// The address for GDB.
    pub fn address(&mut self) -> String {
        let line = self.wait_for("gdb: listening on ");
        line.trim_start_matches("gdb: listening on ").to_owned()
    }

    /// The gdb line to paste.
    pub fn gdb_line(&mut self) -> String {
        self.line("the gdb line", |line| {
            line.trim_start().starts_with("gdb -ex ")
        })
        .trim()
        .to_owned()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by the name that `kill` uses.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.pid().to_string()])
            .status()
            .expect("kill runs");
        assert!(status.success(), "kill -s {name}: {status}");
    }

    /// Whether the program has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("a child can be waited for")
            .is_none()
    }

    /// Waits for the end.
    #[track_caller]
    pub fn finish(mut self) -> Ended {
        let deadline = Instant::now() + DEADLINE;
        // Both streams are closed after the program has ended.
        while let Ok(line) = self
            .lines
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.seen.push(line);
        }
        assert!(
            Instant::now() < deadline,
            "still running; printed so far:\n{}",
            self.seen.join("\n")
        );
        let status = self.child.wait().expect("a child can be waited for");
        Ended {
            code: status.code(),
            output: self.seen.join("\n"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Usually the program has already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
