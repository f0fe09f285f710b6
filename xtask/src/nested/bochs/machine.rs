//! The machine with kvm-intel, or with kvm-amd in Bochs: Bochs with its emulated VMX or SVM, all files in the initramfs, the channels on serial ports.
//!
//! Bochs counts time in instructions, skips the time in which a CPU is idle, and reads no clock of this machine.
//! So the same files and the same seed give the same run, instruction by instruction.

use super::super::channel::Kind;
use super::super::cpio::Archive;
use super::super::kernel::Kernel;
use super::super::machine::CHANNELS;
use super::super::machine::Kvm;
use super::super::machine::LastWords;
use super::super::machine::Limits;
use super::super::machine::Machine;
use super::super::machine::Plan;
use super::super::root_image::RootImage;
use super::Bochs;
use super::RANDOM_SEED;
use super::firmware;
use super::firmware::Firmware;
use super::timing::Timing;
use crate::cache::Cache;
use crate::process;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::time::Duration;

/// An emulated CPU, and the KVM that runs on it.
#[derive(Clone, Copy)]
pub(crate) struct Cpu {
    /// Bochs's name of the CPU.
    model: &'static str,
    /// The KVM that runs on the CPU.
    kvm: Kvm,
    /// The modules in the order of loading: a module follows those that it needs.
    modules: [&'static str; 3],
}

impl Cpu {
    /// Newer CPUs give the kernel a wrong frequency of the TSC, or have virtual interrupts that fail at VM entry.
    pub(crate) const INTEL: Self = Self {
        model: "corei7_haswell_4770",
        kvm: Kvm::Intel,
        modules: ["irqbypass", "kvm", "kvm-intel"],
    };

    /// The outer kernel does not start on older CPUs, or prints warnings.
    pub(crate) const AMD: Self = Self {
        model: "ryzen",
        kvm: Kvm::AmdBochs,
        modules: ["irqbypass", "kvm", "kvm-amd"],
    };
}

const INITRD: &str = "initrd.cpio";
const SETUP: &str = "setup.img";
const ROM: &str = "rom.img";
const CONFIG: &str = "bochsrc";
const LOG: &str = "bochs.log";

/// Parts of the kernel that begin with half a second to four seconds of work that no test needs: certificates, self-tests and registration of algorithms of the
/// crypto API, names for trace events, and ftrace's check of each function's name.
const LEFT_OUT: &str = "load_system_certificate_list,jent_mod_init,crypto_algapi_init,trace_eval_init,ftrace_check_for_weak_functions";

/// The init of the outer kernel, in the initramfs. The first word on the control port is `up`. The time of the command begins then.
///
/// The command writes to pipes: a test program on a terminal would colour its lines, and a slow port would delay it. Processes that
/// the command leaves behind are killed, so that both `cat` end after they have sent all output.
///
/// A process that was killed may have written a part of a line to the control port, so the last word is on a line of its own. Such a process may hold the port for a moment
/// longer, and a close that is not the last one does not wait for the bytes in the port. `stty` waits for them.
const INIT: &str = r#"#!/usr/bin/busybox sh
export PATH=/usr/bin:/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for module in /.trapgate-modules/*; do busybox insmod $module || echo "trapgate-bed: $module does not load"; done
chmod 666 /dev/kvm
busybox ifconfig lo 127.0.0.1 up
mkdir -p /dev/pts /dev/shm
mount -t devpts pts /dev/pts; mount -t tmpfs shm /dev/shm
for port in 1 2 3; do busybox stty -F /dev/ttyS$port raw -echo 115200; done
busybox mkfifo /dev/.out /dev/.err
exec 3>/dev/ttyS3
[ -c /dev/kvm ] || echo "MARK broken there is no /dev/kvm" >&3
echo MARK up >&3
while sleep 5; do echo MARK alive >&3; done &
(sleep TIMEOUT; echo MARK timeout >&3) & timer=$!
busybox cat /dev/.out >/dev/ttyS1 3>&- & out=$!
busybox cat /dev/.err >/dev/ttyS2 3>&- & err=$!
sh /.trapgate-run </dev/null >/dev/.out 2>/dev/.err 3>&-
status=$?
kill -9 $timer
for process in /proc/[0-9]*; do
    process=${process#/proc/}
    case $process in 1 | $out | $err) ;; *) kill -9 $process 2>/dev/null;; esac
done
wait $out $err
echo >&3; echo "MARK exit $status" >&3
busybox stty -F /dev/ttyS3 raw -echo 115200
exec 3>&-
busybox poweroff -f
"#;

/// Bochs with the kernel that it boots.
pub(crate) struct BochsMachine {
    bochs: Bochs,
    firmware: Firmware,
    cpu: Cpu,
}

impl BochsMachine {
    /// Takes the parts from the cache, and builds the missing ones.
    pub(crate) fn provide(cache: &Cache, kernel: &Kernel, cpu: Cpu) -> anyhow::Result<Self> {
        Ok(Self {
            bochs: Bochs::provide(cache)?,
            firmware: Firmware::provide(cache, kernel)?,
            cpu,
        })
    }

    /// The only message of the log is the panic at each end. A signal handler of Bochs logs the speed every second. If the signal comes while a line is
    /// logged, this handler waits for ever for a lock that its own thread holds.
    fn config(&self, plan: &Plan<'_>, timing: &Timing) -> String {
        let mut text = format!(
            "config_interface: textconfig\n\
             display_library: nogui\n\
             cpu: model={}, count={}, ips={}, quantum={}, reset_on_triple_fault=0, ignore_bad_msrs=1\n\
             memory: guest={memory}, host={memory}, block_size=8192\n\
             romimage: file={}, options=fastboot\n\
             vgaromimage: file={}\n\
             optromimage1: file={ROM}, address={:#x}\n\
             optramimage1: file={SETUP}, address={:#x}\n\
             optramimage2: file={}, address={:#x}\n\
             optramimage3: file={INITRD}, address={:#x}\n\
             boot: disk\n\
             ata0: enabled=0\n\
             ata1: enabled=0\n\
             clock: sync=none, time0=1767225600\n\
             vga: extension=vbe, update_freq=1, realtime=0\n\
             speaker: enabled=0\n\
             log: {LOG}\n\
             panic: action=fatal\n\
             error: action=ignore\n\
             info: action=ignore\n\
             debug: action=ignore\n",
            self.cpu.model,
            plan.cpus,
            timing.instructions_per_second,
            timing.quantum,
            quoted(&self.bochs.bios()),
            quoted(&self.bochs.vga_bios()),
            firmware::ROM,
            firmware::SETUP,
            quoted(&self.firmware.kernel()),
            firmware::KERNEL,
            firmware::INITRD,
            memory = plan.memory_mib,
        );
        for (number, channel) in CHANNELS.iter().enumerate() {
            text += &format!("com{}: enabled=1, mode=file, dev={channel}\n", number + 1);
        }
        text
    }
}

impl Machine for BochsMachine {
    fn name(&self) -> &'static str {
        "Bochs"
    }

    fn kvm(&self) -> Kvm {
        self.cpu.kvm
    }

    fn channels(&self) -> Kind {
        Kind::Pipe
    }

    fn prepare(&self, mut root: RootImage, plan: &Plan<'_>) -> anyhow::Result<()> {
        for (number, module) in self.cpu.modules.iter().enumerate() {
            root.add(
                &format!(".trapgate-modules/{number}-{module}.ko"),
                &self.firmware.module(module),
            )?;
        }
        let timeout = plan.timeout.as_secs().to_string();
        root.program("init", &plan.mark.fill(INIT).replace("TIMEOUT", &timeout))?;
        root.strip()?;
        let mut archive = Archive::default();
        root.archive(&mut archive)?;
        let initrd = plan.scratch.join(INITRD);
        archive.write(&initrd)?;

        let timing = Timing::of(plan.seed);
        // A kernel that has failed cannot finish a test. The kernel is loaded at the address for which it is linked.
        let cmdline = format!(
            "console=ttyS0,115200 quiet panic=-1 oops=panic mitigations=off nokaslr initcall_blacklist={LEFT_OUT} {}",
            plan.cmdline
        );
        let size = initrd.metadata()?.len();
        let setup = self.firmware.setup(cmdline.trim_end(), size)?;
        std::fs::write(plan.scratch.join(SETUP), setup)?;
        std::fs::write(
            plan.scratch.join(ROM),
            self.firmware.rom(timing.start_delay)?,
        )?;
        std::fs::write(plan.scratch.join(CONFIG), self.config(plan, &timing))?;
        Ok(())
    }

    fn command(&self, plan: &Plan<'_>) -> Command {
        let mut command = process::bound_to_us(&self.bochs.program());
        command
            .args(["-q", "-f", CONFIG])
            .env(RANDOM_SEED, Timing::of(plan.seed).random.to_string())
            .stderr(std::process::Stdio::null())
            .current_dir(plan.scratch);
        command
    }

    fn limits(&self, _plan: &Plan<'_>) -> Limits {
        Limits {
            unit: "s of CPU",
            // 5 to 10 s on a machine of 2020.
            up: Duration::from_secs(120),
            // Five seconds inside take 2 to 5 s on an idle machine.
            alive: Duration::from_secs(60),
            // The init counts the time inside.
            command: None,
            off: Duration::from_secs(20),
        }
    }

    /// The time that Bochs has computed. The guest is not responsible for the speed and the load of this machine.
    fn elapsed(&self, child: &Child, _wall: Duration) -> Duration {
        cpu_time(child.id()).unwrap_or_default()
    }

    fn whose_time(&self) -> &'static str {
        " of the time inside"
    }

    /// A failed run would fail again.
    fn retries(&self) -> u32 {
        0
    }

    fn last_words(&self, plan: &Plan<'_>) -> LastWords {
        let log = std::fs::read(plan.scratch.join(LOG)).unwrap_or_default();
        last_words(&String::from_utf8_lossy(&log))
    }
}

/// Quotes a value in double quotes, so that it may contain separators.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

/// The user and system time of a process, from `/proc/PID/stat` (proc_pid_stat(5)).
fn cpu_time(process: u32) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let ticks = cpu_ticks(&text)?;
    let per_second = rustix::param::clock_ticks_per_second();
    Some(Duration::from_millis(ticks * 1000 / per_second.max(1)))
}

/// The program's name is in parentheses and may contain any character. The first field after the name is the third.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(14 - 3);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

/// Each line of the log begins with the number of instructions so far, a letter for the severity, and the name of the device in brackets.
fn last_words(log: &str) -> LastWords {
    let mut words = LastWords::default();
    for line in log.lines() {
        let digits = line.find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
        let (count, rest) = line.split_at(digits);
        let Ok(count) = count.parse() else { continue };
        words.instructions = Some(count);
        if let Some(text) = rest
            .strip_prefix("p[")
            .or_else(|| rest.strip_prefix(">>PANIC<<"))
        {
            words.reason = Some(text.replace(']', ":").trim().to_owned());
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_time_is_read_past_any_program_name() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194304 90 0 0 0 120 34 0 0 20 0 1 0 5 6 7";
        assert_eq!(cpu_ticks(stat), Some(154));
        assert_eq!(cpu_ticks("7 (a"), None);
        assert!(cpu_time(std::process::id()).is_some());
    }

    #[test]
    fn the_log_tells_how_far_it_came_and_why_it_ended() {
        let log = "00000000000i[      ] Bochs x86 Emulator 3.0\n\
                   01487500000p[ACPI  ] >>PANIC<< ACPI control: soft power off\n\
                   01487500023i[SIM   ] quit_sim called with exit code 1\n";
        let words = last_words(log);
        assert_eq!(words.instructions, Some(1_487_500_023));
        let reason = words.reason.unwrap();
        assert!(reason.contains("soft power off"), "{reason}");
        assert_eq!(last_words("no log"), LastWords::default());
    }
}
