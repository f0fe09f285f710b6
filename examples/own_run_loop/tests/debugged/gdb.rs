//! A real GDB, which types commands while the VMM gets commands of its own.

use crate::vmm::PROGRAMS;
use crate::vmm::Vmm;
use std::io::Write as _;
use std::process::ChildStdin;
use std::process::Command;
use test_machine::gdb_client::gdb_here;
use test_machine::running::Running;

/// A GDB that reads its commands from a pipe.
struct Gdb {
    running: Running,
    input: ChildStdin,
    commands: u32,
}

impl Gdb {
    fn connect(vmm: &mut Vmm) -> Self {
        let mut command = Command::new("gdb");
        command.env("LC_ALL", "C.UTF-8").args(["-nx", "-q", "-iex"]);
        command.args(["set pagination off", "-iex", "set width 0"]);
        command.args(["-iex", "set confirm off"]);
        let (running, input) = Running::spawn_with_input(command);
        let mut gdb = Self {
            running,
            input,
            commands: 0,
        };
        gdb.say(&format!("file {}", demo_guest::ELF_PATH));
        gdb.say(&format!("target remote {}", vmm.address()));
        gdb
    }

    /// Gives a command, and returns what GDB prints.
    #[track_caller]
    fn say(&mut self, command: &str) -> String {
        self.commands += 1;
        let end = format!("done {}", self.commands);
        writeln!(self.input, "{command}\necho \\n{end}\\n").expect("GDB reads");
        self.running.text_up_to(&end)
    }
}

#[test]
fn gdb_breaks_steps_and_detaches_while_the_vmm_pauses() {
    if !gdb_here() {
        return;
    }
    for program in PROGRAMS {
        let Some(mut vmm) = Vmm::start(program, None) else {
            return;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut gdb = Gdb::connect(&mut vmm);
        let threads = gdb.say("info threads");
        assert!(threads.contains("vCPU 0") && threads.contains("vCPU 1"));
        gdb.say("break do_round");
        for turn in 0..3 {
            let hit = gdb.say("continue");
            assert!(hit.contains("Breakpoint 1, do_round (cpu="), "{hit}");
            vmm.pause();
            vmm.snapshot(&folder.path().join(turn.to_string()));
            vmm.resume();
            assert!(gdb.say("stepi").contains("0x"));
            let up = gdb.say("backtrace");
            assert!(up.contains("cpu_loop ("), "{up}");
        }
        gdb.say("delete");
        assert!(gdb.say("detach").contains("detached"));
        vmm.power_off();
    }
}
