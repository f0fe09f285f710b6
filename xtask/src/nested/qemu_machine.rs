//! The machine with kvm-amd: QEMU with its emulated SVM, the root image on a virtio disk, the channels on virtio-serial ports.

use super::channel::Kind;
use super::cpio::Archive;
use super::kernel::Kernel;
use super::machine::CHANNELS;
use super::machine::Kvm;
use super::machine::Limits;
use super::machine::Machine;
use super::machine::Plan;
use super::qemu::Qemu;
use super::root_image::RootImage;
use crate::process;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::time::Duration;

/// The modules in the order of loading: a module follows those that it needs.
const MODULES: &[&str] = &["irqbypass", "kvm", "kvm-amd", "virtio_blk"];
const ROOT: &str = "root.ext4";
const INITRD: &str = "initrd.cpio";

/// The init of the outer kernel. Its three ports are numbered in the order of QEMU's options.
///
/// The init changes to the root image by `switch_root`, because in a chroot the kernel makes no user namespaces.
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
[ -c /dev/kvm ] || echo "MARK broken there is no /dev/kvm" >&3
echo MARK up >&3
(cat <&3 >/dev/null; busybox poweroff -f) &
while sleep 5; do echo MARK alive >&3; done &
sh /.trapgate-run </dev/null >/dev/vport0p1 2>/dev/vport0p2 3>&-
echo "MARK exit $?" >&3
busybox poweroff -f
'
"#;

/// QEMU with the kernel that it boots.
pub(super) struct QemuMachine {
    /// Our own build of QEMU.
    pub qemu: Qemu,
    /// The outer kernel.
    pub kernel: Kernel,
}

impl Machine for QemuMachine {
    fn name(&self) -> &'static str {
        "QEMU"
    }

    fn kvm(&self) -> Kvm {
        Kvm::Amd
    }

    fn channels(&self) -> Kind {
        Kind::Socket
    }

    fn prepare(&self, root: RootImage, plan: &Plan<'_>) -> anyhow::Result<()> {
        root.make(&plan.scratch.join(ROOT))?;
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
        archive.program("init", plan.mark.fill(INIT).as_bytes());
        Ok(archive.write(&plan.scratch.join(INITRD))?)
    }

    fn command(&self, plan: &Plan<'_>) -> Command {
        let mut command = process::bound_to_us(&self.qemu.program());
        command.arg("-L").arg(self.qemu.firmware());
        let cmdline = format!(
            // A kernel that has failed cannot finish a test.
            "console=ttyS0 quiet panic=-1 oops=panic mitigations=off {}",
            plan.cmdline
        );
        command
            .args(["-accel", "tcg,thread=multi", "-cpu", "max"])
            .args(["-smp", &plan.cpus.to_string()])
            .args(["-m", &format!("{}M", plan.memory_mib)])
            .args(["-nodefaults", "-display", "none", "-no-reboot"])
            .arg("-kernel")
            .arg(self.kernel.image())
            .arg("-initrd")
            .arg(plan.scratch.join(INITRD))
            .args(["-append", cmdline.trim_end()])
            // Writes of the guest to the image are discarded.
            .arg("-drive")
            .arg(format!(
                "file={},if=virtio,format=raw,snapshot=on",
                option_value(&plan.scratch.join(ROOT))
            ))
            .args(["-device", "virtio-serial-pci"]);
        for (number, name) in CHANNELS.into_iter().enumerate() {
            command.arg("-chardev").arg(format!(
                "socket,id={name},path={}",
                option_value(&plan.scratch.join(name))
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

    fn limits(&self, plan: &Plan<'_>) -> Limits {
        Limits {
            unit: "s",
            // 3 to 5 s on an idle machine.
            up: Duration::from_secs(120),
            // The init writes `alive` every 5 s.
            alive: Duration::from_secs(60),
            command: Some(plan.timeout),
            off: Duration::from_secs(10),
        }
    }

    fn elapsed(&self, _child: &Child, wall: Duration) -> Duration {
        wall
    }

    fn retries(&self) -> u32 {
        2
    }
}

/// Doubles commas, because QEMU separates options by commas.
fn option_value(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}
