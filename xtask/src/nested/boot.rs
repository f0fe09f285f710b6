//! One boot of the bed: QEMU, its channels, and what became of the command inside.
//!
//! The command's standard output and error and the control messages each have a virtio-serial port of their own; kernel messages go to the
//! serial console, which is kept for the case that the outer kernel crashes.
//!
//! On the control port the init says `up`, then `alive` every few seconds, and last `exit N`. So a command that hangs (ours to mend) and
//! an outer kernel that hangs (the bed's fault, tried again) are told apart. When this process is killed, the port closes and the machine
//! powers off.

use super::cpio::Archive;
use super::kernel::Kernel;
use super::kernel::MODULES;
use super::qemu::Qemu;
use anyhow::Context as _;
use std::collections::VecDeque;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Child;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

/// A boot takes 3 to 5 s on an idle machine.
const UP_WITHIN: Duration = Duration::from_secs(120);
/// The init says `alive` every 5 s.
const ALIVE_WITHIN: Duration = Duration::from_secs(60);
/// From `exit N` to the end of QEMU.
const OFF_WITHIN: Duration = Duration::from_secs(10);
const CONSOLE_LINES: usize = 60;

/// Where the init looks for the command, in the root image.
pub const RUN_FILE: &str = ".trapgate-run";

/// The init of the outer kernel. Its three ports are numbered in the order of QEMU's options.
///
/// It goes over to the root image and does not only `chroot` there, for in a chroot the kernel makes no user namespaces.
const INIT: &str = r#"#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in /modules/*; do insmod $module || echo "trapgate-bed: $module does not load"; done
chmod 666 /dev/kvm
ifconfig lo 127.0.0.1 up
until [ -e /dev/vport0p3 -a -e /dev/vda ]; do usleep 10000; done
mount -t ext4 /dev/vda /root
for folder in dev proc sys; do mount -o move /$folder /root/$folder; done
exec switch_root /root /usr/bin/busybox sh -c '
export PATH=/usr/bin
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts; mount -t tmpfs shm /dev/shm
exec 3<>/dev/vport0p3
echo up >&3
(cat <&3 >/dev/null; busybox poweroff -f) &
while sleep 5; do echo alive >&3; done &
sh /.trapgate-run </dev/null >/dev/vport0p1 2>/dev/vport0p2 3>&-
echo "exit $?" >&3
busybox poweroff -f
'
"#;

/// The machine to boot.
pub struct Machine<'a> {
    /// QEMU as built by us.
    pub qemu: &'a Qemu,
    /// The outer kernel.
    pub kernel: &'a Kernel,
    /// The root image; what the guest writes to it is thrown away.
    pub root: &'a Path,
    /// A folder for sockets and the initramfs.
    pub scratch: &'a Path,
    /// Words added to the outer kernel's command line.
    pub cmdline: &'a str,
    /// vCPUs of the outer machine.
    pub cpus: u32,
    /// Its memory in MiB.
    pub memory_mib: u32,
    /// How long the command inside may take.
    pub timeout: Duration,
}

/// One boot that is over.
pub struct Ended {
    /// What became of it.
    pub outcome: Outcome,
    /// Where the command failed or hung: what the outer kernel said of itself meanwhile, which may be why.
    pub complaint: Option<String>,
}

/// What became of one boot.
#[derive(Debug)]
pub enum Outcome {
    /// The command ended with this exit status.
    Exited(i32),
    /// The command was still running when its time was over, the outer kernel being well.
    TimedOut,
    /// The outer kernel or QEMU failed: no verdict on the command.
    BedFailed {
        /// In one line.
        why: String,
        /// The last lines of the console.
        console: String,
    },
}

enum Event {
    Control(String),
    QemuEnded,
}

/// Where the command's standard output goes.
pub type Sink = Box<dyn Write + Send>;

/// A sink that keeps what is written to it.
#[derive(Clone, Default)]
pub struct Collected(Arc<Mutex<Vec<u8>>>);

impl Collected {
    /// All so far; it is forgotten here.
    pub fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().expect("no holder of this lock panics"))
    }
}

impl Write for Collected {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0
            .lock()
            .expect("no holder of this lock panics")
            .extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Machine<'_> {
    /// Boots, copies both outputs as they come, and waits for the end.
    pub fn boot(&self, stdout: Sink, stderr: Sink) -> anyhow::Result<Ended> {
        let initrd = self.scratch.join("initrd.cpio");
        self.initramfs(&initrd)?;
        let (events, received) = mpsc::channel();
        let console = Arc::new(Mutex::new(VecDeque::new()));

        let channels = [
            self.channel("console", {
                let console = Arc::clone(&console);
                move |stream| keep_last_lines(stream, &console)
            })?,
            self.channel("stdout", |stream| copy(stream, stdout))?,
            self.channel("stderr", |stream| copy(stream, stderr))?,
            self.channel("control", {
                let events = events.clone();
                move |stream| {
                    for line in BufReader::new(stream).lines().map_while(Result::ok) {
                        let _ = events.send(Event::Control(line));
                    }
                }
            })?,
        ];

        let mut child = self
            .command(&initrd)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start QEMU")?;
        let mut pipe = child.stdout.take().expect("standard output is a pipe");
        let ended = std::thread::spawn(move || {
            // QEMU prints nothing here: this waits for its end.
            let _ = std::io::copy(&mut pipe, &mut std::io::sink());
            let _ = events.send(Event::QemuEnded);
        });
        let mut verdict = self.watch(&received);
        let status = end(&mut child, &received, &verdict)?;
        let _ = ended.join();
        for channel in channels {
            channel.finish();
        }
        // All threads have ended, so a last word that lost the race against the end of QEMU is in the queue by now.
        if matches!(verdict, Verdict::Gone) {
            let last_word = received.try_iter().find_map(|event| match event {
                Event::Control(line) => exit_code(&line),
                Event::QemuEnded => None,
            });
            verdict = last_word.map_or(Verdict::Gone, Verdict::Exit);
        }

        let console = {
            let lines = console
                .lock()
                .expect("the console thread does not panic while it holds the lock");
            lines.iter().cloned().collect::<Vec<_>>().join("\n")
        };
        let heard = match verdict {
            Verdict::Exit(1..) | Verdict::TimedOut => complaint(&console).map(str::to_owned),
            Verdict::Exit(_) | Verdict::Stalled(_) | Verdict::Gone => None,
        };
        let outcome = match verdict {
            Verdict::Exit(code) => Outcome::Exited(code),
            Verdict::TimedOut => Outcome::TimedOut,
            Verdict::Stalled(why) => Outcome::BedFailed { why, console },
            Verdict::Gone => {
                let why = match complaint(&console) {
                    Some(line) => format!("the outer kernel crashed: {line}"),
                    None => format!("QEMU ended ({status}) before the command did"),
                };
                Outcome::BedFailed { why, console }
            }
        };
        Ok(Ended {
            outcome,
            complaint: heard,
        })
    }

    fn watch(&self, received: &mpsc::Receiver<Event>) -> Verdict {
        let started = Instant::now();
        let mut deadline = started + UP_WITHIN;
        let mut command_deadline = None;
        loop {
            let next = command_deadline.map_or(deadline, |limit: Instant| limit.min(deadline));
            match received.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Event::Control(line)) => match exit_code(&line) {
                    Some(code) => return Verdict::Exit(code),
                    None => {
                        let now = Instant::now();
                        deadline = now + ALIVE_WITHIN;
                        command_deadline.get_or_insert(now + self.timeout);
                    }
                },
                Ok(Event::QemuEnded) | Err(RecvTimeoutError::Disconnected) => return Verdict::Gone,
                Err(RecvTimeoutError::Timeout) => match command_deadline {
                    None => {
                        return Verdict::Stalled(format!(
                            "the outer kernel was not up after {} s",
                            UP_WITHIN.as_secs()
                        ));
                    }
                    Some(limit) if limit <= deadline => return Verdict::TimedOut,
                    Some(_) => {
                        return Verdict::Stalled(format!(
                            "the outer kernel gave no sign of life for {} s",
                            ALIVE_WITHIN.as_secs()
                        ));
                    }
                },
            }
        }
    }

    fn command(&self, initrd: &Path) -> std::process::Command {
        let mut command = self.qemu.command();
        let cmdline = format!(
            // A kernel that has gone wrong is no place to run a test in to the end.
            "console=ttyS0 quiet panic=-1 oops=panic mitigations=off {}",
            self.cmdline
        );
        command
            .args(["-accel", "tcg,thread=multi", "-cpu", "max"])
            .args(["-smp", &self.cpus.to_string()])
            .args(["-m", &format!("{}M", self.memory_mib)])
            .args(["-nodefaults", "-display", "none", "-no-reboot"])
            .arg("-kernel")
            .arg(self.kernel.image())
            .arg("-initrd")
            .arg(initrd)
            .args(["-append", cmdline.trim_end()])
            .arg("-drive")
            .arg(format!(
                "file={},if=virtio,format=raw,snapshot=on",
                option_value(self.root)
            ))
            .args(["-device", "virtio-serial-pci"]);
        for (number, name) in ["console", "stdout", "stderr", "control"]
            .into_iter()
            .enumerate()
        {
            command.arg("-chardev").arg(format!(
                "socket,id={name},path={}",
                option_value(&self.scratch.join(name))
            ));
            if number == 0 {
                command.args(["-serial", "chardev:console"]);
            } else {
                command
                    .arg("-device")
                    .arg(format!("virtserialport,chardev={name},nr={number}"));
            }
        }
        command
    }

    fn initramfs(&self, path: &Path) -> anyhow::Result<()> {
        let mut archive = Archive::default();
        for folder in ["bin", "dev", "modules", "proc", "root", "sys"] {
            archive.folder(folder);
        }
        archive.program("bin/busybox", &std::fs::read(self.kernel.busybox())?);
        for (number, module) in MODULES.iter().enumerate() {
            archive.program(
                &format!("modules/{number}-{module}.ko"),
                &std::fs::read(self.kernel.module(module))?,
            );
        }
        archive.program("init", INIT.as_bytes());
        archive.write(path)?;
        Ok(())
    }

    fn channel(
        &self,
        name: &str,
        serve: impl FnOnce(UnixStream) + Send + 'static,
    ) -> anyhow::Result<Channel> {
        let path = self.scratch.join(name);
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path)
            .with_context(|| format!("cannot make the socket {}", path.display()))?;
        let thread = std::thread::spawn(move || {
            if let Ok((stream, _)) = listener.accept() {
                serve(stream);
            }
        });
        Ok(Channel {
            path: path.clone(),
            thread,
        })
    }
}

enum Verdict {
    Exit(i32),
    TimedOut,
    Stalled(String),
    Gone,
}

struct Channel {
    path: std::path::PathBuf,
    thread: JoinHandle<()>,
}

impl Channel {
    /// With QEMU gone, every stream has ended; a QEMU that never connected leaves `accept` waiting, which this wakes.
    fn finish(self) {
        drop(UnixStream::connect(&self.path));
        let _ = self.thread.join();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// `exit N`, as the init says it.
fn exit_code(line: &str) -> Option<i32> {
    line.strip_prefix("exit ")?.trim().parse().ok()
}

/// What a kernel says of itself when it cannot be relied on any more: the first such line, without its time.
fn complaint(console: &str) -> Option<&str> {
    const WORDS: &[&str] = &[
        "Kernel panic",
        "Oops",
        "BUG: ",
        "corrupted stack end",
        "general protection fault",
        "detected stall",
    ];
    let line = console
        .lines()
        .find(|line| WORDS.iter().any(|word| line.contains(word)))?;
    Some(line.split_once("] ").map_or(line, |(_, text)| text))
}

/// Lets a machine that is powering off do so, and ends any other.
fn end(
    child: &mut Child,
    received: &mpsc::Receiver<Event>,
    verdict: &Verdict,
) -> anyhow::Result<std::process::ExitStatus> {
    if matches!(verdict, Verdict::Exit(_)) {
        let deadline = Instant::now() + OFF_WITHIN;
        while let Ok(Event::Control(_)) =
            received.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {}
    }
    // Killing one that has ended already is no error.
    let _ = child.kill();
    child.wait().context("cannot wait for QEMU")
}

fn copy(mut stream: UnixStream, mut sink: Sink) {
    let mut buffer = [0; 16 << 10];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if sink.write_all(&buffer[..length]).is_err() || sink.flush().is_err() {
            return;
        }
    }
}

fn keep_last_lines(stream: UnixStream, lines: &Mutex<VecDeque<String>>) {
    for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        let mut lines = lines.lock().expect("no holder of this lock panics");
        if lines.len() == CONSOLE_LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

/// QEMU separates options by commas; a comma in a value is doubled.
fn option_value(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_that_went_wrong_is_told_by_its_first_complaint() {
        let console = "[    1.2] all is well\n\
                       [    7.9] Kernel panic - not syncing: corrupted stack end detected inside scheduler\n\
                       [    8.0] Oops: 0000";
        assert_eq!(
            complaint(console),
            Some("Kernel panic - not syncing: corrupted stack end detected inside scheduler")
        );
        assert_eq!(complaint("[    1.2] kvm: loaded\ndebugging"), None);
    }
}
