//! Starts the servers that are measured, waits until they listen, and ends them.

use super::rsp::Client;
use crate::debian_qemu::DebianQemu;
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

/// The option for a server in the VMM's process.
pub(super) const IN_PROCESS: &[&str] = &["--isolate=off"];

/// The guest memory of both servers, in MiB.
const MEMORY_MIB: u32 = 64;

/// The first command of QEMU's monitor protocol.
const QMP_HELLO: &[u8] = b"{\"execute\":\"qmp_capabilities\"}\n";

/// The line with which `trapgate` announces its address begins with this text.
const LISTENING: &str = "gdb: listening on ";

/// A server process, which ends when the value is dropped.
pub(super) struct Server {
    /// The name in the report.
    pub name: &'static str,
    child: Child,
    /// These pipes stay open: a server that writes its log to a closed pipe would die, and QEMU's monitor uses both.
    _stdin: Option<ChildStdin>,
    _stdout: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Server {
    /// Starts this program as the echo server.
    pub(super) fn echo() -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("bench-echo");
        Self::start("echo", &mut command, |line| {
            let port: u16 = line.trim().parse().ok()?;
            Some(SocketAddr::from(([127, 0, 0, 1], port)))
        })
    }

    /// Starts QEMU with its gdbstub. QEMU holds the guest before its first instruction.
    pub(super) fn qemu(
        mut command: Command,
        kernel: &Path,
        cpus: u32,
        logs: &Path,
    ) -> anyhow::Result<Self> {
        let address = free_address()?;
        command.args(["-S", "-gdb", &format!("tcp:{address}")]);
        Self::machine_of_qemu(super::QEMU, command, address, kernel, cpus, logs)
    }

    /// `trapgate exec` around QEMU with the same arguments, the guest held at its first instruction.
    pub(super) fn exec(
        program: &Path,
        qemu: &DebianQemu,
        kernel: &Path,
        cpus: u32,
        logs: &Path,
    ) -> anyhow::Result<Self> {
        let address = free_address()?;
        let mut command = Command::new(program);
        command
            .args(["exec", "--wait", "--gdb", &address.to_string(), "--"])
            .args(qemu.words().split(' '));
        Self::machine_of_qemu(super::EXEC, command, address, kernel, cpus, logs)
    }

    fn machine_of_qemu(
        name: &'static str,
        mut command: Command,
        address: SocketAddr,
        kernel: &Path,
        cpus: u32,
        logs: &Path,
    ) -> anyhow::Result<Self> {
        command
            .args(["-accel", "kvm", "-nodefaults"])
            .args(["-display", "none", "-serial", "null", "-no-reboot"])
            .args(["-smp", &cpus.to_string(), "-m", &format!("{MEMORY_MIB}M")])
            .arg("-kernel")
            .arg(kernel)
            .args(["-qmp", "stdio"])
            .stdin(Stdio::piped())
            .stderr(File::create(logs.join(format!("{name}.log")))?);
        // QEMU's main loop answers commands when everything is set up. The greeting comes earlier.
        Self::start_with(name, &mut command, QMP_HELLO, |line| {
            line.contains("\"return\"").then_some(address)
        })
    }

    /// Starts another build of our own server in the VMM's process, as this tree's is measured. An older build knows no `--isolate`, and has no other process.
    pub(super) fn before(
        program: &Path,
        kernel: &Path,
        cpus: u32,
        logs: &Path,
    ) -> anyhow::Result<Self> {
        let help = process::capture(Command::new(program).args(["run", "--help"]))?;
        let options: &[&str] = match help.contains("--isolate") {
            true => IN_PROCESS,
            false => &[],
        };
        Self::trapgate(super::BEFORE, program, options, kernel, cpus, logs)
    }

    /// Starts a build of our own server with the same guest and these further options. The report calls the server `name`.
    pub(super) fn trapgate(
        name: &'static str,
        program: &Path,
        options: &[&str],
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
            .args(options)
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

    /// The address of the server.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connects and exchanges features.
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        Client::connect(self.address).with_context(|| format!("no session with {}", self.name))
    }

    /// The CPU time of the process and of its children, such as the worker of an isolated server, in clock ticks of 10 ms.
    pub(super) fn cpu_ticks(&self) -> anyhow::Result<u64> {
        let pid = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let mut ticks = cpu_ticks_of(&pid.to_string())?;
        for child in children.split_whitespace() {
            ticks += cpu_ticks_of(child)?;
        }
        Ok(ticks)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The CPU time of one process, in clock ticks of 10 ms (proc(5), `/proc/pid/stat`, fields 14 and 15).
fn cpu_ticks_of(pid: &str) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in parentheses may contain spaces. Field 3 follows the name.
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

/// An address whose port was free just before: QEMU does not print its port, and a VMM under `trapgate exec` has its standard output to itself.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Builds `trapgate` for release, with the library beside it, and returns the program.
pub(super) fn build_trapgate() -> anyhow::Result<std::path::PathBuf> {
    let packages = ["--package", "trapgate", "--package", "trapgate-preload"];
    process::run(process::cargo().args(["build", "--release"]).args(packages))?;
    Ok(process::target_dir().join("release/trapgate"))
}
