//! Extended mode: `run` is the machine's reset, `attach` takes the machine as it is, and `kill` leaves the machine stopped until `run`, `attach` or the end of the connection.

use super::Core;
use super::Guest;
use super::pending::Pending;
use crate::framing::PacketWriter;
use crate::target::Stop;
use crate::target::StopReason;
use crate::target::TargetOp;

impl Core {
    pub(super) fn extend(&mut self) {
        self.extended = true;
        self.ok();
    }

    /// `qExecAndArgs`: the name that GDB 18 sends with `vRun`.
    pub(super) fn send_program(&mut self) {
        let Some(symbols) = &self.info.symbols else {
            return self.text("U");
        };
        let mut packet = PacketWriter::default();
        packet.str("S;");
        packet.hex(&symbols.name);
        packet.str(";;");
        self.outbox.packet(packet.finish());
    }

    /// The client may name the file that the server has announced. A server that knows no file cannot compare.
    pub(super) fn run(&mut self, file: &[u8], has_arguments: bool) {
        let known = self.info.symbols.as_ref();
        let is_other =
            known.is_some_and(|symbols| !file.is_empty() && file != symbols.name.as_slice());
        if !self.extended {
            return self.not_extended();
        }
        if has_arguments {
            return self.bad_argument(
                "run resets the machine, which keeps the command line that its VMM has chosen; say set args without arguments, and start the VMM with another --cmdline",
            );
        }
        if is_other {
            return self.bad_argument(
                "run resets the machine, which keeps its kernel; say set remote exec-file without a name, and start the VMM with another --kernel",
            );
        }
        self.reset(Pending::Run);
    }

    /// The guest stays stopped for `run` or `attach`, and the client sees no thread. At the end of the connection the guest is left as after a lost client.
    pub(super) fn kill_extended(&mut self) {
        match self.guest {
            Guest::Stopped(_) => {
                self.killed = true;
                self.ok();
            }
            Guest::Running(_) => self.refuse_running(),
            Guest::NonStop(_) => self.refuse_non_stop(),
        }
    }

    /// The packet has no reply. An error is shown later. A client does not send the packet while the guest runs.
    pub(super) fn restart(&mut self) {
        match self.guest {
            _ if !self.extended => self.text(""),
            Guest::Stopped(_) => self.reset(Pending::Restart),
            Guest::Running(_) | Guest::NonStop(_) => {}
        }
    }

    fn reset(&mut self, pending: Pending) {
        match self.guest {
            Guest::Stopped(_) => self.ask(TargetOp::Reset, pending),
            Guest::Running(_) => self.refuse_running(),
            Guest::NonStop(_) => self.refuse_non_stop(),
        }
    }

    /// The guest is stopped at its first instruction.
    pub(super) fn was_reset(&mut self) -> Stop {
        let stop = Stop {
            thread: Some(self.threads.first()),
            reason: StopReason::Trap,
        };
        self.guest = Guest::Stopped(stop);
        self.killed = false;
        self.current = self.threads.first();
        self.interrupt_thread = self.current;
        self.interrupt_wanted = false;
        stop
    }

    pub(super) fn attach(&mut self) {
        match self.guest {
            Guest::Stopped(stop) if self.extended => {
                self.killed = false;
                self.send_stop(stop);
            }
            Guest::Stopped(_) => self.not_extended(),
            Guest::Running(_) => self.refuse_running(),
            Guest::NonStop(_) => self.refuse_non_stop(),
        }
    }

    fn refuse_non_stop(&mut self) {
        self.bad_argument(
            "run, attach and kill mean the whole machine, which non-stop mode does not; say set non-stop off before the client connects",
        );
    }

    fn not_extended(&mut self) {
        self.bad_argument("this packet needs extended mode; connect with target extended-remote");
    }
}
