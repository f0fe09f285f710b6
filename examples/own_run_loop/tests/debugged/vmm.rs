//! A VMM as a child process, with its commands.

use object::Object as _;
use object::ObjectSymbol as _;
use std::io::Write as _;
use std::path::Path;
use std::process::ChildStdin;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;
use test_machine::packets::Packets;
use test_machine::running::Ended;
use test_machine::running::Running;
use test_machine::running::kvm_here;
use test_machine::running::program;

/// Both programs.
pub(crate) const PROGRAMS: [&str; 2] = ["own_run_loop", "locked_run_loop"];

/// Far more than a pause or a snapshot takes, in the nested bed too. A debugger may hold a guest for any time.
const AT_ONCE: Duration = Duration::from_secs(30);

pub(crate) struct Vmm {
    running: Running,
    input: ChildStdin,
}

impl Vmm {
    /// Starts the VMM, with a new guest or a saved one, and waits until both CPUs run. `None`, with the reason printed, if this host has no KVM.
    pub(crate) fn start(name: &str, snapshot: Option<&Path>) -> Option<Self> {
        if !kvm_here() {
            return None;
        }
        let mut command: Command = program(name);
        command.args(snapshot);
        let (mut running, input) = Running::spawn_with_input(command);
        running.wait_for(match snapshot {
            Some(_) => "vmm: the guest runs",
            None => "demo guest: CPU 1 is up",
        });
        Some(Self { running, input })
    }

    /// The address of the debug server.
    pub(crate) fn address(&mut self) -> String {
        self.running.address()
    }

    /// A session by packets, whose first stop was reported.
    pub(crate) fn packets(&mut self) -> Packets<std::net::TcpStream> {
        let mut packets = Packets::connect(&self.address());
        packets.ask("qSupported:swbreak+;hwbreak+");
        packets
    }

    /// Gives a command. `done` is printed at once when the command was carried out.
    #[track_caller]
    pub(crate) fn command(&mut self, command: &str, done: &str) {
        let begun = Instant::now();
        writeln!(self.input, "{command}").expect("the VMM reads");
        // A line that was printed before does not count.
        self.running.new_line(done, |line| line.contains(done));
        let took = begun.elapsed();
        assert!(took < AT_ONCE, "`{command}` took {took:?}");
    }

    pub(crate) fn pause(&mut self) {
        self.command("pause", "vmm: paused");
    }

    pub(crate) fn resume(&mut self) {
        self.command("resume", "vmm: resumed");
    }

    /// Saves the guest in this folder, and returns the guest's memory.
    pub(crate) fn snapshot(&mut self, folder: &Path) -> Vec<u8> {
        let command = format!("snapshot {}", folder.display());
        self.command(&command, "vmm: the guest is saved");
        std::fs::read(folder.join("memory")).expect("a file of the snapshot")
    }

    /// The guest switches itself off, and the VMM ends.
    #[track_caller]
    pub(crate) fn power_off(mut self) {
        writeln!(self.input, "keys q").expect("the VMM reads");
        self.ends("vmm: the guest ends: PowerOff");
    }

    /// Waits for the end of the VMM.
    #[track_caller]
    pub(crate) fn ends(self, last: &str) {
        let Ended { code, output } = self.running.finish();
        assert_eq!(code, Some(0), "{output}");
        assert!(output.contains(last), "{output}");
    }

    /// Gives a command that has no answer.
    pub(crate) fn type_line(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the VMM reads");
    }
}

/// The address of a function or variable of the demo guest.
pub(crate) fn address_of(name: &str) -> u64 {
    let file = object::File::parse(demo_guest::ELF).expect("an ELF file");
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok(name));
    symbol.expect("a symbol of the demo guest").address()
}

/// The eight bytes at an address of a guest's memory.
pub(crate) fn word(memory: &[u8], address: u64) -> u64 {
    let at = usize::try_from(address).expect("a small address");
    u64::from_le_bytes(memory[at..at + 8].try_into().expect("eight bytes"))
}

/// The eight bytes at an address of the demo guest's ELF file.
pub(crate) fn word_of_file(address: u64) -> u64 {
    let file = object::File::parse(demo_guest::ELF).expect("an ELF file");
    let segment = object::Object::segments(&file).find_map(|segment| {
        let data = object::ObjectSegment::data_range(&segment, address, 8);
        data.ok().flatten().map(<[u8]>::to_vec)
    });
    word(&segment.expect("a segment with the address"), 0)
}
