//! alioth 0.12.0, as it comes from crates.io, with a debugger: alioth is generic over its hypervisor, so wrappers around its own KVM types host the hooks.
//!
//! The arguments are the ELF file of the demo guest and the number of vCPUs; each line of standard input is typed on the guest's serial port. Or the arguments are a bzImage of
//! Linux, the number of vCPUs, an initramfs and the command line; then alioth's own serial port has standard input, which has to be a terminal, and the guest waits for a
//! debugger before its first instruction.
#![forbid(unsafe_code)]

mod descriptors;
mod hypervisor;
mod memory;
mod vcpu;

use alioth::board::BoardConfig;
use alioth::board::CpuConfig;
use alioth::loader::Executable;
use alioth::loader::Payload;
use alioth::mem::MemBackend;
use alioth::mem::MemConfig;
use alioth::vm::Machine;
use debug_worker::DebugListener;
use debug_worker::DebuggerParameters;
use debug_worker::Exposure;
use hypervisor::DebuggedKvm;
use mesh::worker::WorkerRpc;
use pal_async::DefaultPool;
use small_pc::Devices;
use std::error::Error;
use std::ffi::CString;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use vp_runner::embed::Controller;
use vp_runner::embed::StartMode;

const MEMORY: u64 = 64 << 20;
const MEMORY_FOR_LINUX: u64 = 512 << 20;

/// What Linux needs besides the kernel.
struct Linux {
    initramfs: PathBuf,
    cmdline: CString,
}

impl Linux {
    /// From the arguments, if there are any.
    fn new(mut arguments: impl Iterator<Item = OsString>) -> Result<Option<Self>, Box<dyn Error>> {
        let Some(initramfs) = arguments.next() else {
            return Ok(None);
        };
        let cmdline = arguments.next().ok_or("give the kernel's command line")?;
        Ok(Some(Self {
            initramfs: initramfs.into(),
            cmdline: CString::new(cmdline.into_vec())?,
        }))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let guest = arguments.next().ok_or("give the ELF file of a guest")?;
    let cpus = arguments.next().ok_or("give the number of vCPUs")?;
    let cpus: u16 = cpus.to_str().unwrap_or_default().parse()?;
    let linux = Linux::new(arguments)?;
    let listener = DebugListener::bind(&"127.0.0.1:0".parse()?, Exposure::LoopbackOnly)?;
    println!("gdb: listening on {}", listener.local_addr());

    let (requests, receiver) = mesh::channel();
    let devices = Arc::<Devices>::default();
    let of_demo_guest = linux.is_none().then(|| devices.clone());
    let start = match linux {
        Some(_) => StartMode::WaitForDebugger,
        None => StartMode::Run,
    };
    let (kvm, started) = DebuggedKvm::new(receiver, cpus, of_demo_guest, start)?;
    let config = BoardConfig {
        mem: MemConfig {
            size: match linux {
                Some(_) => MEMORY_FOR_LINUX,
                None => MEMORY,
            },
            backend: MemBackend::Memfd,
            shared: true,
            ..MemConfig::default()
        },
        cpu: CpuConfig {
            count: cpus,
            ..CpuConfig::default()
        },
        coco: None,
    };
    let machine = Machine::new(&kvm, config)?;
    let kernel = PathBuf::from(guest).into();
    match linux {
        None => {
            machine.add_payload(Payload {
                executable: Some(Executable::Pvh(kernel)),
                ..Payload::default()
            });
            thread::spawn(move || {
                for line in std::io::stdin().lines().map_while(Result::ok) {
                    devices.type_keys(&line);
                }
            });
        }
        Some(Linux { initramfs, cmdline }) => {
            machine.add_com1()?;
            machine.add_payload(Payload {
                executable: Some(Executable::Linux(kernel)),
                initramfs: Some(initramfs.into()),
                cmdline: Some(cmdline),
                ..Payload::default()
            });
        }
    }
    let (debugger, controller) = started.recv()?;
    let server = thread::spawn(move || serve(listener, requests, controller));
    machine.boot()?;
    machine.wait()?;
    println!("vmm: the guest has ended");
    debugger.stop();
    // The thread ends with the controller.
    let _ = server.join();
    Ok(())
}

fn serve(
    listener: DebugListener,
    requests: mesh::Sender<vmm_core_defs::debug_rpc::DebugMessage>,
    controller: Controller,
) {
    DefaultPool::run_with(async |driver| {
        let parameters = DebuggerParameters::new(listener, requests);
        let (stop, stopped) = mesh::channel();
        let server = debug_worker::serve(driver, parameters, stopped);
        let guest = async {
            controller.run().await;
            stop.send(WorkerRpc::Stop);
        };
        let (served, ()) = futures::join!(server, guest);
        if let Err(error) = served {
            eprintln!("vmm: no debugger can attach any more: {error}; restart the VMM");
        }
    });
}
