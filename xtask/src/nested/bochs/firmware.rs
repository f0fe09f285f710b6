//! The images that Bochs loads instead of a disk: our option ROM, the kernel's real-mode setup code, and the uncompressed kernel.
//!
//! A decompression would take a third of all instructions of a boot. The fields of the setup header are those of Linux,
//! Documentation/arch/x86/boot.rst.

use super::super::kernel::Kernel;
use crate::cache::Cache;
use crate::process;
use crate::system_packages;
use anyhow::Context as _;
use anyhow::bail;
use object::Object as _;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

/// The address of the ROM.
pub(super) const ROM: u32 = 0xd0000;
/// The address of the setup code, which the ROM enters.
pub(super) const SETUP: u32 = 0x90000;
/// The address of the uncompressed kernel, for which it is linked.
pub(super) const KERNEL: u32 = 0x0100_0000;
/// The address of the initramfs: behind the kernel and its initialised data.
pub(super) const INITRD: u32 = 0x1000_0000;

/// The offsets of fields in the ROM; see `boot_rom.S`.
const PROTECTED_ENTRY: u32 = 0x80;
const ROM_SIZE: usize = 512;
const ENTRY: Range<usize> = ROM_SIZE - 12..ROM_SIZE - 8;
const DELAY: Range<usize> = ROM_SIZE - 8..ROM_SIZE - 4;

/// The end of the setup code's own memory (heap and stack). The command line follows.
const COMMAND_LINE: usize = 0x9800;
const COMMAND_LINE_SIZE: usize = 0x800;

const ROM_SOURCE: &str = include_str!("boot_rom.S");
/// The programs that make the images, and their Debian packages.
const PACKAGES: &[&str] = &["binutils", "zstd", "xz-utils"];
/// The modules in the order of loading: a module follows those that it needs.
pub(super) const MODULES: &[&str] = &["irqbypass", "kvm", "kvm-intel", "kvm-amd"];

/// The images that are the same in every boot.
pub(super) struct Firmware {
    folder: PathBuf,
}

impl Firmware {
    /// Takes the images from the cache, or makes them.
    pub(super) fn provide(cache: &Cache, kernel: &Kernel) -> anyhow::Result<Self> {
        let recipe = format!(
            "without BTF\n{}\n{}\n{ROM_SOURCE}",
            kernel.identity(),
            MODULES.join(" ")
        );
        let folder = cache.artefact("bochs-kernel", &recipe, |folder| {
            system_packages::ensure(PACKAGES, "make the kernel's images for Bochs")?;
            make(kernel, folder)?;
            Ok(kernel.identity())
        })?;
        Ok(Self { folder })
    }

    /// The uncompressed kernel, for [`KERNEL`].
    pub(super) fn kernel(&self) -> PathBuf {
        self.folder.join("kernel.img")
    }

    /// A module without its type information (BTF), which is most of its size, and without symbols of local functions.
    pub(super) fn module(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.ko"))
    }

    /// The ROM, for [`ROM`]. The ROM executes `delay` rounds of a loop before the kernel starts.
    pub(super) fn rom(&self, delay: u32) -> anyhow::Result<Vec<u8>> {
        delayed(std::fs::read(self.folder.join("rom.bin"))?, delay)
    }

    /// The setup code with a complete header, for [`SETUP`].
    pub(super) fn setup(&self, cmdline: &str, initrd_size: u64) -> anyhow::Result<Vec<u8>> {
        setup(
            &std::fs::read(self.folder.join("setup.bin"))?,
            cmdline,
            u32::try_from(initrd_size).context("the initramfs is larger than 4 GiB")?,
        )
    }
}

/// The ROM with its delay, and with a last byte that makes the sum of all bytes 0. The BIOS calls no other ROM.
fn delayed(mut rom: Vec<u8>, delay: u32) -> anyhow::Result<Vec<u8>> {
    anyhow::ensure!(
        rom.len() == ROM_SIZE,
        "the ROM has {} bytes instead of {ROM_SIZE}",
        rom.len()
    );
    rom[DELAY].copy_from_slice(&delay.to_le_bytes());
    let sum = rom.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
    rom[ROM_SIZE - 1] = rom[ROM_SIZE - 1].wrapping_sub(sum);
    Ok(rom)
}

fn setup(code: &[u8], cmdline: &str, initrd_size: u32) -> anyhow::Result<Vec<u8>> {
    if code.len() > 0x8000 || cmdline.len() >= COMMAND_LINE_SIZE {
        bail!(
            "the kernel's setup code ({} bytes) or its command line ({} bytes) is too long",
            code.len(),
            cmdline.len()
        );
    }
    let mut image = code.to_vec();
    let mut put =
        |offset: usize, bytes: &[u8]| image[offset..offset + bytes.len()].copy_from_slice(bytes);
    // type_of_loader: a loader without a number. loadflags: the kernel is loaded high, and there is a heap.
    put(0x210, &[0xff, 0x81]);
    put(0x214, &(ROM + PROTECTED_ENTRY).to_le_bytes());
    put(0x218, &INITRD.to_le_bytes());
    put(0x21c, &initrd_size.to_le_bytes());
    let command_line = u32::try_from(COMMAND_LINE).expect("it lies in one segment");
    // heap_end_ptr is relative to the end of the first 512 bytes.
    put(0x224, &(command_line - 0x200).to_le_bytes()[..2]);
    put(0x228, &(SETUP + command_line).to_le_bytes());
    image.resize(COMMAND_LINE, 0);
    image.extend(cmdline.bytes());
    image.push(0);
    Ok(image)
}

fn make(kernel: &Kernel, folder: &Path) -> anyhow::Result<()> {
    let image = std::fs::read(kernel.image())?;
    let parts = Parts::of(&image)?;
    std::fs::write(folder.join("setup.bin"), parts.setup)?;

    let packed = folder.join("packed");
    std::fs::write(&packed, parts.payload)?;
    let elf = folder.join("vmlinux");
    decompress(&packed, &elf)?;
    let header = std::fs::read(&elf)?;
    let entry = entry_point(&header)?;
    raw_image(&elf, &folder.join("kernel.img"))?;
    std::fs::remove_file(&packed)?;
    std::fs::remove_file(&elf)?;

    for name in MODULES {
        slim_module(&kernel.module(name), &folder.join(format!("{name}.ko")))?;
    }
    rom(folder, entry)
}

/// A kernel as its segments are loaded. No program here uses the type information (BTF), and the kernel would read all of it.
fn raw_image(elf: &Path, to: &Path) -> anyhow::Result<()> {
    process::capture(
        Command::new("objcopy")
            .args(["--remove-section", ".BTF", "--output-target", "binary"])
            .arg(elf)
            .arg(to),
    )?;
    Ok(())
}

/// A module without type information. ftrace searches all symbols for each function: without symbols of local functions, kvm loads in a third of the time.
fn slim_module(module: &Path, to: &Path) -> anyhow::Result<()> {
    process::capture(
        Command::new("objcopy")
            .args(["--remove-section", ".BTF", "--strip-unneeded"])
            .arg(module)
            .arg(to),
    )?;
    Ok(())
}

/// Assembles the ROM. `entry` is the kernel's entry point.
fn rom(folder: &Path, entry: u32) -> anyhow::Result<()> {
    let [source, object, rom] = ["rom.S", "rom.o", "rom.bin"].map(|name| folder.join(name));
    std::fs::write(&source, ROM_SOURCE)?;
    process::capture(
        Command::new("as")
            .args(["--64", "-o"])
            .arg(&object)
            .arg(&source),
    )?;
    process::capture(
        Command::new("ld")
            .args(["-m", "elf_x86_64", "-Ttext", "0", "--oformat", "binary"])
            .arg("-o")
            .arg(&rom)
            .arg(&object),
    )?;
    let mut bytes = std::fs::read(&rom)?;
    anyhow::ensure!(bytes.len() == ROM_SIZE, "boot_rom.S has changed its size");
    bytes[ENTRY].copy_from_slice(&entry.to_le_bytes());
    std::fs::write(&rom, bytes)?;
    std::fs::remove_file(source)?;
    std::fs::remove_file(object)?;
    Ok(())
}

/// The parts of a bzImage.
struct Parts<'a> {
    setup: &'a [u8],
    /// The compressed vmlinux, without its length field, which follows.
    payload: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(image: &'a [u8]) -> anyhow::Result<Self> {
        let field = |offset: usize| {
            let bytes = image.get(offset..offset + 4)?;
            usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
        };
        let parts = || {
            // setup_sects: 0 stands for 4. The boot sector is not counted.
            let sectors = match image.get(0x1f1)? {
                0 => 4,
                count => usize::from(*count),
            };
            let (setup, rest) = image.split_at_checked((sectors + 1) * 512)?;
            let from = field(0x248)?;
            let payload = rest.get(from..from.checked_add(field(0x24c)?)?)?;
            let (payload, _length) = payload.split_at_checked(payload.len().checked_sub(4)?)?;
            Some(Self { setup, payload })
        };
        parts().context("the outer kernel is no bzImage with a payload (boot protocol 2.08)")
    }
}

fn decompress(packed: &Path, to: &Path) -> anyhow::Result<()> {
    let magic = std::fs::read(packed)?;
    let program = if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        "zstd"
    } else if magic.starts_with(b"\xfd7zXZ") {
        "xz"
    } else {
        bail!("the outer kernel is compressed in an unknown way");
    };
    let status = Command::new(program)
        .args(["--decompress", "--stdout"])
        .stdin(std::fs::File::open(packed)?)
        .stdout(std::fs::File::create(to)?)
        .stderr(Stdio::inherit())
        .status()
        .with_context(|| format!("cannot start `{program}`"))?;
    anyhow::ensure!(
        status.success(),
        "{program} cannot decompress the outer kernel"
    );
    Ok(())
}

/// `e_entry` of a 64-bit ELF file. A kernel's is a physical address.
fn entry_point(elf: &[u8]) -> anyhow::Result<u32> {
    let file = object::File::parse(elf)
        .ok()
        .filter(object::File::is_64)
        .context("the outer kernel's payload is no 64-bit ELF")?;
    let entry = file.entry();
    u32::try_from(entry)
        .ok()
        .filter(|entry| (KERNEL..INITRD).contains(entry))
        .with_context(|| format!("the outer kernel is linked for another place: entry {entry:#x}"))
}

#[cfg(test)]
mod tests {
    use super::super::super::scratch::Scratch;
    use super::*;

    #[test]
    fn the_setup_header_leads_to_the_rom_the_initramfs_and_the_command_line() {
        let image = setup(&[0; 0x4000], "quiet", 0x1234).unwrap();
        let field =
            |offset: usize| u32::from_le_bytes(image[offset..offset + 4].try_into().unwrap());
        assert_eq!(field(0x214), ROM + PROTECTED_ENTRY);
        assert_eq!((field(0x218), field(0x21c)), (INITRD, 0x1234));
        assert_eq!(field(0x228), 0x99800);
        assert_eq!(&image[0x9800..], b"quiet\0");
        assert!(setup(&[0; 0x4000], &"x".repeat(COMMAND_LINE_SIZE), 0).is_err());
    }

    #[test]
    fn the_bytes_of_the_rom_add_up_to_0_with_any_delay() {
        for delay in [0, 1, 0x1234_5678, u32::MAX] {
            let rom = delayed((0..=255).chain(0..=255).collect(), delay).unwrap();
            let sum = rom.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
            assert_eq!(sum, 0, "{delay:#x}");
            assert_eq!(rom[DELAY], delay.to_le_bytes());
            assert_eq!(rom[..4], [0, 1, 2, 3]);
        }
        assert!(delayed(vec![0; 511], 0).is_err());
    }

    #[test]
    fn neither_the_kernel_nor_a_module_has_its_types() {
        let folder = Scratch::new().unwrap();
        let [source, object, slim, elf, raw] =
            ["x.s", "x.o", "slim.o", "x", "raw"].map(|name| folder.path().join(name));
        let text = ".text\n.globl _start\n_start: .ascii \"code\"\nlocal: .byte 0\n\
                    .section .BTF, \"a\"\n.ascii \"types\"\n\
                    .section .rodata, \"a\"\n.ascii \"data\"\n";
        std::fs::write(&source, text).unwrap();
        let run = |program: &str, from: &Path, to: &Path| {
            let mut command = Command::new(program);
            process::capture(command.arg("-o").arg(to).arg(from)).unwrap();
        };
        run("as", &source, &object);
        run("ld", &object, &elf);
        slim_module(&object, &slim).unwrap();
        raw_image(&elf, &raw).unwrap();
        let has = |file: &Path, text: &str| {
            let bytes = std::fs::read(file).unwrap();
            bytes
                .windows(text.len())
                .any(|part| part == text.as_bytes())
        };
        for file in [&slim, &raw] {
            assert!(has(file, "code") && has(file, "data"), "{file:?}");
            assert!(!has(file, "types"), "{file:?}");
        }
        assert!(has(&slim, "_start") && !has(&slim, "local"));
    }

    #[test]
    fn a_bzimage_is_taken_apart() {
        let mut image = vec![0; 0x800];
        image[0x1f1] = 1;
        image[0x248] = 0x10;
        image[0x24c] = 12;
        image[0x410..0x41c].copy_from_slice(b"payload!size");
        let parts = Parts::of(&image).unwrap();
        assert_eq!((parts.setup.len(), parts.payload), (1024, &b"payload!"[..]));
        assert!(Parts::of(&image[..0x41b]).is_err());
        assert!(Parts::of(&[]).is_err());
    }
}
