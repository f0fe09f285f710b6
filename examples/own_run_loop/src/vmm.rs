//! The main thread of the VMM, with either run loop.

use crate::console;
use crate::debugger::Debugger;
use crate::snapshot;
use crate::snapshot::VcpuState;
use kvm_ioctls::VcpuFd;
use small_pc::Devices;
use small_pc::SmallPc;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use vmm_core_defs::stop::GuestEventKind;
use vp_runner::embed::VmHandle;

const VCPUS: u8 = 2;

/// What the main thread acts upon.
#[derive(Debug)]
pub enum Event {
    /// The guest asks for this, and no debugger holds the event.
    Guest(GuestEventKind),
    /// A vCPU cannot go on. The text says why.
    Failed(String),
    /// A command of the user.
    Command(Command),
}

/// A command of the user.
#[derive(Debug)]
pub enum Command {
    /// Keep every vCPU out of the guest.
    Pause,
    /// Let every vCPU into the guest again.
    Resume,
    /// Save the guest in a new folder.
    Snapshot(PathBuf),
    /// Type a line on the guest's serial port.
    Keys(String),
    /// End the guest.
    Quit,
}

/// What a run loop gets.
pub struct Parts {
    /// The vCPUs, which have not run.
    pub vcpus: Vec<VcpuFd>,
    /// The devices.
    pub devices: Arc<Devices>,
    /// The debugger.
    pub debugger: VmHandle,
    /// To the main thread.
    pub events: mpsc::Sender<Event>,
}

/// The vCPU threads of a run loop.
pub trait Vcpus: Sized {
    /// Starts the threads, with the guest paused.
    ///
    /// # Errors
    /// The host has no thread left, or a vCPU cannot be used.
    fn start(parts: Parts) -> Result<Self, Box<dyn Error>>;

    /// Returns when every vCPU is out of the guest. A debugger that holds the guest does not delay the pause.
    fn pause(&mut self);

    /// Lets every vCPU into the guest again. A guest that a debugger holds does not run yet.
    fn resume(&mut self);

    /// Reads the state of the paused vCPUs.
    ///
    /// # Errors
    /// The error of KVM.
    fn save(&mut self) -> Result<Vec<VcpuState>, Box<dyn Error>>;

    /// Ends the threads.
    fn end(self);
}

/// Runs the demo guest, new or from a snapshot, until it ends.
///
/// # Errors
/// The VM could not be created, or the guest could not go on.
pub fn run<V: Vcpus>(restore: Option<PathBuf>) -> Result<(), Box<dyn Error>> {
    let (sender, events) = mpsc::channel();
    let pc = SmallPc::new("")?;
    let mut vcpus = Vec::new();
    for index in 0..VCPUS {
        let vcpu = pc.vm.create_vcpu(index.into())?;
        pc.power_on(index, &vcpu)?;
        vcpus.push(vcpu);
    }
    if let Some(folder) = restore {
        snapshot::restore(&folder, pc.memory(), &vcpus)?;
    }
    let debugger = Debugger::start(&pc, sender.clone())?;
    let mut vcpus = V::start(Parts {
        vcpus,
        devices: pc.devices.clone(),
        debugger: debugger.vm.clone(),
        events: sender.clone(),
    })?;
    vcpus.resume();
    println!("vmm: the guest runs; commands: {}", console::HELP);
    console::read(sender)?;
    let end = serve(&events, &mut vcpus, &pc, &debugger.vm);
    // First the debugger, so that no vCPU waits for it.
    debugger.end();
    vcpus.end();
    end
}

/// Acts on events until the guest ends.
fn serve<V: Vcpus>(
    events: &mpsc::Receiver<Event>,
    vcpus: &mut V,
    pc: &SmallPc,
    debugger: &VmHandle,
) -> Result<(), Box<dyn Error>> {
    let mut paused = false;
    loop {
        match events.recv()? {
            Event::Guest(kind) => {
                println!("vmm: the guest ends: {kind:?}");
                return Ok(());
            }
            Event::Failed(why) => return Err(why.into()),
            Event::Command(Command::Quit) => return Ok(()),
            Event::Command(Command::Keys(text)) => pc.devices.type_keys(&text),
            Event::Command(Command::Pause) => {
                vcpus.pause();
                paused = true;
                println!("vmm: paused");
            }
            Event::Command(Command::Resume) => {
                vcpus.resume();
                paused = false;
                println!("vmm: resumed");
            }
            Event::Command(Command::Snapshot(folder)) => {
                if !paused {
                    vcpus.pause();
                }
                snapshot::write(&folder, &vcpus.save()?, pc.memory(), debugger)?;
                println!("vmm: the guest is saved in {}", folder.display());
                if !paused {
                    vcpus.resume();
                }
            }
        }
    }
}
