//! The ready-made thread of a VP: it owns the VP, waits for commands, and runs the guest. While the VP is parked, the thread answers the controller's calls, since
//! vCPU ioctls belong to it.

mod messages;
mod parked;
mod run_loop;

use crate::arch::HOLD_AFTER;
use crate::control::enter::Enter;
use crate::control::enter::Snapshot;
pub(crate) use messages::Command;
pub(crate) use messages::VpEvent;
use pal_async::awake::Busy;
use pal_async::awake::Expected;
pub(crate) use parked::Call;
pub(crate) use parked::ParkedVp;
pub(crate) use run_loop::RunLoop;
use std::sync::mpsc;
use std::time::Instant;

/// The state of a VP thread.
pub(crate) struct VpThread {
    run_loop: RunLoop,
    commands: mpsc::Receiver<Command>,
    events: mesh::Sender<VpEvent>,
    /// When the next command is expected. `None` after a stop that another VP caused: the client looks at that VP first, so this thread does not spin.
    next: Option<Expected>,
}

impl VpThread {
    pub(crate) fn new(
        run_loop: RunLoop,
        commands: mpsc::Receiver<Command>,
        events: mesh::Sender<VpEvent>,
    ) -> Self {
        Self {
            run_loop,
            commands,
            events,
            next: None,
        }
    }

    /// Serves commands until [`Command::Exit`].
    pub(crate) fn serve(mut self) {
        let mut next = self.next_command();
        while let Some(command) = next {
            next = match command {
                Command::Enter(enter) => self.enter(&enter),
                Command::Call(call) => {
                    call(&mut self.run_loop);
                    self.next_command()
                }
                Command::Exit => return,
            };
        }
    }

    /// Runs the guest. Returns the next command.
    fn enter(&mut self, enter: &Enter) -> Option<Command> {
        let busy = Busy::new();
        let parked = self.run_loop.run(enter);
        drop(busy);
        self.events.send(VpEvent::Parked(parked));
        self.next = parked.cause.map(|_| self.next.unwrap_or_default());
        match enter.snapshot {
            Snapshot::Ahead => self.read_ahead(),
            Snapshot::OnDemand => self.next_command(),
        }
    }

    /// Reads the registers that the client will most likely ask for, once the stop is on its way and unless a command has arrived. Returns the next command.
    fn read_ahead(&mut self) -> Option<Command> {
        match self.commands.try_recv() {
            Ok(command) => return Some(command),
            Err(mpsc::TryRecvError::Disconnected) => return None,
            Err(mpsc::TryRecvError::Empty) => {}
        }
        if let Err(err) = self.run_loop.vp.read_registers() {
            tracing::debug!(error = %err, "registers could not be read ahead");
        }
        self.next_command()
    }

    /// Waits for the next command. Holds the guest's timers if none comes for a while.
    fn next_command(&mut self) -> Option<Command> {
        let since = Instant::now();
        let soon = self.next;
        let soon = soon.and_then(|next| next.awake(|| self.commands.try_recv().ok()));
        let command = soon.or_else(|| self.sleep());
        self.next = self.next.map(|_| Expected::after(since));
        command
    }

    fn sleep(&mut self) -> Option<Command> {
        if !self.run_loop.vp.holds_timers() {
            match self.commands.recv_timeout(HOLD_AFTER) {
                Ok(command) => return Some(command),
                Err(mpsc::RecvTimeoutError::Disconnected) => return None,
                Err(mpsc::RecvTimeoutError::Timeout) => self.run_loop.vp.hold_timers(),
            }
        }
        self.commands.recv().ok()
    }
}
