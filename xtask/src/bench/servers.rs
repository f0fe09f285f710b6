//! The servers that are measured: started, awaited until they listen, and ended.

use super::rsp::Client;
use crate::nested;
use crate::process;
use anyhow::Context as _;
use anyhow::bail;
use std::fs::File;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Write as _;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::path::Path;
use std::process::Child;
use std::process::ChildStdin;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;

/// Guest memory in MiB, of both.
const MEMORY_MIB: u32 = 64;

/// The first command of QEMU's monitor protocol.
const QMP_HELLO: &[u8] = b"{\"execute\":\"qmp_capabilities\"}\n";

/// How `trapgate` says where it listens.
const LISTENING: &str = "gdb: listening on ";

/// A server process, ended when dropped.
pub(super) struct Server {
    /// As in the report.
    pub name: &'static str,
    child: Child,
    /// Held open: a server that logs to a closed pipe would die, and QEMU's monitor sits on both.
    _stdin: Option<ChildStdin>,
    _stdout: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Server {
    /// This program again, as the echo server.
    pub(super) fn echo() -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bench-echo");
        Self::start("echo", &mut command, |line| {
            let port: u16 = line.trim().parse().ok()?;
            Some(SocketAddr::from(([127, 0, 0, 1], port)))
        })
    }

    /// QEMU with its gdbstub, the guest held at its first instruction.
    pub(super) fn qemu(
        qemu: &nested::Qemu,
        kernel: &Path,
        cpus: u32,
        logs: &Path,
    ) -> anyhow::Result<Self> {
        // QEMU does not say which port it got, so it is told one that was free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = qemu.command();
        command
            .args(["-accel", "kvm", "-nodefaults"])
            .args(["-display", "none", "-serial", "null", "-no-reboot"])
            .args(["-smp", &cpus.to_string(), "-m", &format!("{MEMORY_MIB}M")])
            .arg("-kernel")
            .arg(kernel)
            .args(["-S", "-gdb", &format!("tcp:{address}")])
            .args(["-qmp", "stdio"])
            .stdin(Stdio::piped())
            .stderr(File::create(logs.join("qemu.log"))?);
        // Commands are answered in the main loop, when everything is set up; the greeting comes too early.
        Self::start_with("qemu", &mut command, QMP_HELLO, |line| {
            line.contains("\"return\"").then_some(address)
        })
    }

    /// A build of our own server, called `name` in the report, with the same guest.
    pub(super) fn trapgate(
        name: &'static str,
        program: &Path,
        kernel: &Path,
        cpus: u32,
        logs: &Path,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command
            .arg("run")
            .arg("--kernel")
            .arg(kernel)
            .args(["--cpus", &cpus.to_string()])
            .args(["--memory", &format!("{MEMORY_MIB}M")])
            .args(["--serial", "off", "--gdb", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stderr(File::create(logs.join(format!("{name}.log")))?);
        Self::start(name, &mut command, |line| {
            line.split_once(LISTENING)?.1.trim().parse().ok()
        })
    }

    fn start(
        name: &'static str,
        command: &mut Command,
        ready: impl Fn(&str) -> Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        Self::start_with(name, command, b"", ready)
    }

    fn start_with(
        name: &'static str,
        command: &mut Command,
        hello: &[u8],
        ready: impl Fn(&str) -> Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start `{}`", process::shown(command)))?;
        let mut stdin = child.stdin.take();
        if let Some(stdin) = &mut stdin {
            stdin.write_all(hello)?;
        }
        let mut stdout = BufReader::new(child.stdout.take().expect("standard output is a pipe"));
        let address = loop {
            let mut line = String::new();
            if stdout.read_line(&mut line)? == 0 {
                let status = child.wait()?;
                bail!(
                    "`{}` ended with {status} before it listened; its messages are in {name}.log in the target folder's bench",
                    process::shown(command)
                );
            }
            if let Some(address) = ready(&line) {
                break address;
            }
        };
        Ok(Self {
            name,
            child,
            _stdin: stdin,
            _stdout: stdout,
            address,
        })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A new connection with features agreed on.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        Client::connect(self.address).with_context(|| format!("no session with {}", self.name))
    }

    /// CPU time that the process has used, in clock ticks of 10 ms (proc(5), `/proc/pid/stat`, fields 14 and 15).
    pub(super) fn cpu_ticks(&self) -> anyhow::Result<u64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name in parentheses may have spaces; field 3 follows it.
        let (_, fields) = stat
            .rsplit_once(") ")
            .context("no name in /proc/pid/stat")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let ticks = |number: usize| -> anyhow::Result<u64> {
            Ok(fields
                .get(number - 3)
                .context("/proc/pid/stat is too short")?
                .parse()?)
        };
        Ok(ticks(14)? + ticks(15)?)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Builds `trapgate` for release and returns the program.
pub(super) fn build_trapgate() -> anyhow::Result<std::path::PathBuf> {
    process::run(process::cargo().args(["build", "--release", "--package", "trapgate"]))?;
    Ok(process::target_dir().join("release/trapgate"))
}
