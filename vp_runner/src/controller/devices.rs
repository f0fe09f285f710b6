//! The controller's calls of the VMM's code: memory-mapped I/O for a debugger, and resets. The controller serves other requests during an access. It serves
//! no request during a reset, until the reset returns or is overdue.

use super::Controller;
use super::device_calls::DeviceCall;
use super::device_calls::Returned;
use super::device_calls::Waits;
use super::ticker::Tick;
use crate::control::guest_event::GuestEvent;
use crate::machine::DeviceOutcome;
use crate::memory::AddressSpace;
use crate::runner::RunnerExit;
use futures::StreamExt;
use futures::select_biased;
use futures::stream::FusedStream;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::GuestAddress;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DebugRpc;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::debug_rpc::MachineCall;

/// An address with all that is needed to access it.
#[derive(Debug, Clone, Copy)]
enum Target {
    Physical(Gpa),
    Virtual(AddressSpace, Gva),
}

impl Controller {
    pub(super) async fn read_memory(&mut self, rpc: DebugRpc<(GuestAddress, usize), Vec<u8>>) {
        let ((address, len), rpc) = rpc.split();
        let target = match self.target(address).await {
            Ok(target) => target,
            Err(err) => return rpc.complete(Err(err)),
        };
        let of_ram = match target {
            Target::Physical(gpa) => self.memory.read_gpa_of_ram(gpa, len),
            Target::Virtual(space, gva) => self.memory.read_gva_of_ram(&space, gva, len),
        };
        if let Some(read) = of_ram.transpose() {
            return rpc.complete(read);
        }
        let memory = self.memory.clone();
        self.ask(DeviceCall {
            what: MachineCall::Read {
                address,
                len: len as u64,
            },
            waits: Waits::Read(rpc),
            call: Box::new(move || {
                Returned::Read(match target {
                    Target::Physical(gpa) => memory.read_gpa(gpa, len),
                    Target::Virtual(space, gva) => memory.read_gva(&space, gva, len),
                })
            }),
        });
    }

    pub(super) async fn write_memory(&mut self, rpc: DebugRpc<(GuestAddress, Vec<u8>), ()>) {
        let ((address, data), rpc) = rpc.split();
        let target = match self.target(address).await {
            Ok(target) => target,
            Err(err) => return rpc.complete(Err(err)),
        };
        let of_ram = match target {
            Target::Physical(gpa) => self.memory.write_gpa_of_ram(gpa, &data),
            Target::Virtual(space, gva) => self.memory.write_gva_of_ram(&space, gva, &data),
        };
        if let Some(written) = of_ram.transpose() {
            return rpc.complete(written.map(drop));
        }
        let (memory, len) = (self.memory.clone(), data.len());
        self.ask(DeviceCall {
            what: MachineCall::Write {
                address,
                len: len as u64,
            },
            waits: Waits::Write(rpc),
            call: Box::new(move || {
                Returned::Written(match target {
                    Target::Physical(gpa) => memory.write_gpa(gpa, &data),
                    Target::Virtual(space, gva) => memory.write_gva(&space, gva, &data),
                })
            }),
        });
    }

    async fn target(&mut self, address: GuestAddress) -> Result<Target, DebugError> {
        self.state.check_attached()?;
        Ok(match address {
            GuestAddress::Gpa(gpa) => Target::Physical(gpa),
            GuestAddress::Gva { vp, gva } => Target::Virtual(self.address_space(vp).await?, gva),
        })
    }

    fn ask(&mut self, call: DeviceCall) {
        self.device_calls.ask(call);
        // The ticks detect that the call is overdue.
        self.ticker.start();
    }

    /// A call of the VMM's code has returned. `Some` if the call was a reset.
    fn take_returned(&mut self, returned: Returned) -> Option<Result<(), DebugError>> {
        let waits = self.device_calls.finish();
        match (returned, waits) {
            (Returned::Reset(result), _) => {
                return Some(result.map_err(|err| err.of_call(MachineCall::Reset)));
            }
            (Returned::Failed(err), Some(Waits::Reset)) => return Some(Err(err)),
            (Returned::Read(read), Some(Waits::Read(rpc))) => rpc.complete(read),
            (Returned::Failed(err), Some(Waits::Read(rpc))) => rpc.complete(Err(err)),
            (Returned::Failed(err), Some(Waits::Write(rpc))) => rpc.complete(Err(err)),
            (Returned::Written(written), waits) => {
                match written {
                    Ok(DeviceOutcome::Reset) => {
                        self.state.set_pending_event(GuestEvent::Reset { vp: None })
                    }
                    Ok(DeviceOutcome::PowerOff) => self
                        .state
                        .set_pending_event(GuestEvent::PowerOff { vp: None }),
                    // The debugger's write triggered the panic device, and the guest did not. So no panic is reported.
                    Ok(DeviceOutcome::Done | DeviceOutcome::Panicked) | Err(_) => {}
                }
                if let Some(Waits::Write(rpc)) = waits {
                    rpc.complete(written.map(drop));
                }
            }
            // The caller got an error when the call became overdue.
            (Returned::Read(_) | Returned::Failed(_), _) => {}
        }
        None
    }

    pub(super) async fn device_returned(&mut self, returned: Returned) {
        if let Some(reset) = self.take_returned(returned) {
            self.late_reset(reset).await;
        }
    }

    /// Puts the machine into its power-on state. Every VP is parked.
    ///
    /// # Errors
    /// [`DebugError::Overdue`] if the VMM's code blocks. The reset then continues, and [`late_reset`](Self::late_reset) follows when it returns.
    pub(super) async fn reset(&mut self) -> Result<(), DebugError> {
        self.breakpoint_control.before_reset();
        self.time.before_reset();
        let machine = self.machine.clone();
        self.ask(DeviceCall {
            what: MachineCall::Reset,
            waits: Waits::Reset,
            call: Box::new(move || Returned::Reset(machine.reset_machine())),
        });
        loop {
            // merge
            select_biased! {
                returned = self.device_calls.returned() => if let Some(reset) = self.take_returned(returned) {
                    reset?;
                    return self.power_on_vps().await;
                },
                Tick = self.ticks.select_next_some() => {
                    self.device_calls.check_overdue();
                    if let Some(overdue) = self.device_calls.overdue() {
                        return Err(overdue);
                    }
                },
            }
        }
    }

    async fn power_on_vps(&self) -> Result<(), DebugError> {
        let stops = self.stops;
        self.vps
            .call_all(move |vp| {
                vp.power_on()?;
                vp.set_stops(stops)
            })
            .await
    }

    /// A reset that was overdue has returned. The guest has been parked since.
    async fn late_reset(&mut self, reset: Result<(), DebugError>) {
        let done = match reset {
            Ok(()) => self.power_on_vps().await,
            Err(err) => Err(err),
        };
        let run = std::mem::take(&mut self.run_after_reset);
        let no_debugger = self.debug.is_terminated();
        match done {
            Ok(()) => {
                self.state.late_reset_done();
                let outputs = match (no_debugger, run) {
                    (true, _) => self.state.lost(),
                    (false, true) => self.state.start(),
                    (false, false) => return,
                };
                self.execute_result(outputs).await;
            }
            Err(err) => {
                tracing::error!(error = %err, "the guest could not be reset");
                // An attached debugger gets the error when it asks for the reset again.
                if run || no_debugger {
                    self.exit = Some(RunnerExit::ResetFailed);
                }
            }
        }
    }

    /// The action of a detach now. While the machine is being reset the guest cannot run, so the guest runs after the reset.
    pub(super) fn detach_action(&mut self, wanted: DetachAction) -> DetachAction {
        let runs = match wanted {
            DetachAction::Resume | DetachAction::ResumeUnlessCrashed => true,
            DetachAction::ResumeUnlessHeld => !self.state.is_held(),
            DetachAction::Stay | DetachAction::Kill | DetachAction::KillUnlessHeld => false,
        };
        if self.device_calls.resetting().is_none() || !runs {
            return wanted;
        }
        self.run_after_reset = true;
        DetachAction::Stay
    }

    /// Fails while the machine is being reset, because the guest cannot run then.
    pub(super) fn check_reset(&self) -> Result<(), DebugError> {
        self.device_calls.resetting().map_or(Ok(()), Err)
    }
}
