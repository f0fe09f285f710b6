//! Debian's QEMU, unmodified, with the demo guest on two vCPUs.

use super::Vmm;
use super::exec;
use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;
use test_machine::gdb_client::start_gdb;
use test_machine::packets::Packets;
use test_machine::running::DEADLINE;
use test_machine::running::Running;
use test_machine::running::kvm_here;

/// The variable with the words of QEMU's command, for another QEMU than the installed one. `cargo xtask qemus` prints such words.
const COMMAND: &str = "TRAPGATE_TEST_QEMU";
const PROGRAM: &str = "qemu-system-x86_64";

/// The longest time for an answer of QEMU's monitor.
const AT_ONCE: Duration = Duration::from_millis(100);

/// How many times a command is given to a QEMU alone, to know how long it takes there.
const ALONE: u32 = 5;

/// QEMU with its monitor on standard input and output.
pub(crate) struct Qemu {
    pub(crate) vmm: Vmm,
    pub(crate) folder: tempfile::TempDir,
}

/// `None`, with the reason printed, if KVM or QEMU is missing.
pub(crate) fn start(options: &[&str]) -> Option<Qemu> {
    start_with(options, &[])
}

/// QEMU's command.
pub(crate) fn qemu() -> Vec<String> {
    let words = std::env::var(COMMAND).unwrap_or_else(|_| PROGRAM.to_owned());
    words.split_whitespace().map(str::to_owned).collect()
}

/// QEMU and its arguments for a PC with nothing but two vCPUs.
pub(crate) fn pc() -> Vec<String> {
    let arguments = [
        "-accel",
        "kvm",
        "-smp",
        "2",
        "-m",
        "64M",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-serial",
        "null",
    ];
    let arguments = arguments.into_iter().map(str::to_owned);
    qemu().into_iter().chain(arguments).collect()
}

/// `None`, with the reason printed, if KVM or QEMU is missing.
pub(crate) fn folder_for_qemu() -> Option<tempfile::TempDir> {
    if !kvm_here() {
        return None;
    }
    let words = qemu();
    let version = Command::new(&words[0])
        .args(&words[1..])
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    if !version.is_ok_and(|status| status.success()) {
        assert!(std::env::var_os(COMMAND).is_none(), "{words:?} is no QEMU");
        println!("SKIP: no {PROGRAM}; install it with `apt-get install qemu-system-x86`");
        return None;
    }
    Some(tempfile::tempdir().expect("a folder"))
}

/// As [`start`], with more arguments for QEMU.
pub(crate) fn start_with(options: &[&str], arguments: &[&str]) -> Option<Qemu> {
    let folder = folder_for_qemu()?;
    let command = with_guest(&folder, arguments);
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let vmm = Vmm::start(exec(options, &words));
    Some(Qemu::with_monitor(vmm, folder))
}

/// QEMU's command for the demo guest, which is written into the folder.
fn with_guest(folder: &tempfile::TempDir, arguments: &[&str]) -> Vec<String> {
    let guest = folder.path().join("demo-guest.elf");
    fs::write(&guest, demo_guest::ELF).expect("writable");
    let mut command = pc();
    let guest = guest.to_str().expect("text");
    let more = ["-qmp", "stdio", "-kernel", guest];
    command.extend(more.iter().chain(arguments).map(|word| (*word).to_owned()));
    command
}

/// The longest time that the monitor of a QEMU without the debugger takes for a command, with the same guest.
fn alone(command: &str) -> Duration {
    let folder = folder_for_qemu().expect("QEMU runs here");
    let words = with_guest(&folder, &[]);
    let mut without = Command::new(&words[0]);
    without.args(&words[1..]);
    let (process, input) = Running::spawn_with_input(without);
    let mut qemu = Qemu::with_monitor(Vmm::of(process, input), folder);
    let before = if command == "cont" { "stop" } else { "cont" };
    let times = (0..ALONE).map(|_| {
        qemu.monitor(before, "");
        qemu.monitor(command, "").1
    });
    times.max().expect("more than none")
}

impl Qemu {
    fn with_monitor(vmm: Vmm, folder: tempfile::TempDir) -> Self {
        let mut qemu = Self { vmm, folder };
        qemu.vmm.say(r#"{"execute":"qmp_capabilities"}"#);
        qemu.vmm.process.wait_for(r#""return""#);
        qemu
    }

    pub(crate) fn guest(&self) -> String {
        let path = self.folder.path().join("demo-guest.elf");
        path.to_str().expect("text").to_owned()
    }

    /// Runs a command of the monitor, and returns the answer and the time that it took.
    #[track_caller]
    pub(crate) fn monitor(&mut self, command: &str, arguments: &str) -> (String, Duration) {
        let since = Instant::now();
        self.vmm.say(&format!(
            r#"{{"execute":"{command}","arguments":{{{arguments}}}}}"#
        ));
        loop {
            let line = self.vmm.process.next_line(DEADLINE);
            let line = line.expect("an answer in time").expect("QEMU runs");
            assert!(!line.contains(r#""error""#), "{command}: {line}");
            if line.contains(r#""return""#) {
                return (line, since.elapsed());
            }
        }
    }

    /// As [`monitor`](Self::monitor), and checks that the answer comes at once. In the nested bed, whose CPU is slow, a QEMU without the debugger may take longer; then
    /// the answer has to come in the same time.
    #[track_caller]
    pub(crate) fn at_once(&mut self, command: &str) -> String {
        let (answer, took) = self.monitor(command, "");
        if took >= AT_ONCE {
            let nested = std::env::var_os("TRAPGATE_NESTED").is_some();
            let most = if nested { alone(command) } else { AT_ONCE };
            assert!(
                took < AT_ONCE.max(most),
                "`{command}` took {} ms, and {} ms would do",
                took.as_millis(),
                most.as_millis()
            );
        }
        answer
    }

    /// Types commands into GDB, and returns what GDB prints.
    #[track_caller]
    pub(crate) fn gdb(&mut self, commands: &[&str]) -> String {
        let line = format!("{} {}", self.vmm.process.gdb_line(), self.guest());
        let ended = start_gdb(&line, commands).finish();
        assert_eq!(ended.code, Some(0), "{}", ended.output);
        ended.output
    }

    /// The address of a function of the guest.
    pub(crate) fn address_of(&self, function: &str) -> u64 {
        use object::Object as _;
        use object::ObjectSymbol as _;
        let file = object::File::parse(demo_guest::ELF).expect("an ELF file");
        let symbol = file.symbol_by_name(function);
        symbol.expect("the guest has it").address()
    }

    /// A session by packets. The guest stands in its main loop, with all of its code in memory and without a breakpoint.
    #[track_caller]
    pub(crate) fn in_its_loop(&mut self) -> Packets<TcpStream> {
        let mut packets = self.vmm.packets();
        // The code is not in memory yet, so a byte there would not last.
        let site = self.address_of("do_round");
        assert_eq!(packets.ask(&format!("Z1,{site:x},1")), "OK");
        self.runs_to(&mut packets, site);
        assert_eq!(packets.ask(&format!("z1,{site:x},1")), "OK");
        packets
    }

    /// The answers of the debugger until the guest has stopped at this address.
    #[track_caller]
    pub(crate) fn runs_to(&self, packets: &mut Packets<TcpStream>, address: u64) {
        let reply = packets.ask("c");
        assert!(reply.starts_with("T05"), "{reply}");
        assert_eq!(rip(packets), address);
    }
}

/// The linear address of the next instruction.
#[track_caller]
pub(crate) fn rip(packets: &mut Packets<TcpStream>) -> u64 {
    let reply = packets.ask("p10");
    let number = u64::from_str_radix(&reply, 16).unwrap_or_else(|_| panic!("`p10`: {reply}"));
    number.swap_bytes()
}
