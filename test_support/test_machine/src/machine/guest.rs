//! Power-on states and guest programs. The programs contain only integer instructions, because some KVMs emulate every
//! instruction.

use kvm_bindings::kvm_regs;
use kvm_bindings::kvm_segment;
use kvm_ioctls::VcpuFd;
use vm_memory::Bytes;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;
use vmm_core_defs::addr::VpIndex;

use super::ENTRY;

/// The mode in which the VPs start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Real mode.
    Real,
    /// 32-bit protected mode without paging.
    Protected,
    /// 64-bit mode.
    Long,
}

/// All modes.
pub const MODES: [Mode; 3] = [Mode::Real, Mode::Protected, Mode::Long];

const PML4: u64 = 0x1_0000;
const PDPT: u64 = 0x1_1000;
const PD: u64 = 0x1_2000;
const GDT: u64 = 0x1_3000;

/// `inc ebx; nop; nop; jmp` to the start. Only the increment has different bytes in the modes.
pub fn counting_loop(mode: Mode) -> Vec<u8> {
    let mut code = increment(mode);
    code.extend([0x90, 0x90]);
    jump_to_start(&mut code);
    code
}

/// The address of the `n`th instruction of [`counting_loop`], 0 to 3.
pub fn in_loop(mode: Mode, n: u64) -> u64 {
    match n {
        0 => ENTRY,
        _ => ENTRY + increment(mode).len() as u64 + n - 1,
    }
}

/// The counting loop, with a write of AL to [`PORT_TELL`](super::PORT_TELL) in each turn.
pub fn telling_loop(mode: Mode) -> Vec<u8> {
    let mut code = increment(mode);
    code.extend([0xe6, super::PORT_TELL]);
    jump_to_start(&mut code);
    code
}

fn increment(mode: Mode) -> Vec<u8> {
    match mode {
        Mode::Real | Mode::Protected => vec![0x43],
        Mode::Long => vec![0xff, 0xc3],
    }
}

/// Appends a short jump to the first byte.
pub fn jump_to_start(code: &mut Vec<u8>) {
    let back = -i8::try_from(code.len() + 2).unwrap();
    code.extend([0xeb, back.cast_unsigned()]);
}

/// Page tables that map 2 MiB of RAM and the gigabyte of the device page one to one, and a GDT.
pub fn tables(ram: &GuestMemoryMmap) {
    let write = |gpa: u64, value: u64| ram.write_obj(value, GuestAddress(gpa)).unwrap();
    // Accessed and dirty are already set, so running the guest does not change the entries.
    write(PML4, PDPT | 0x23);
    write(PDPT, PD | 0x23);
    write(PD, 0xe3);
    let device = super::DEVICE.value();
    write(PD + (device >> 21) * 8, device | 0xe3);
    write(GDT + 8, 0x00af_9a00_0000_ffff);
    write(GDT + 16, 0x00cf_9200_0000_ffff);
    write(GDT + 24, 0x00cf_9a00_0000_ffff);
}

/// Sets a VP to the program's first instruction.
pub fn power_on(mode: Mode, vp: VpIndex, vcpu: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
    let mut sregs = vcpu.get_sregs()?;
    let flat = kvm_segment {
        limit: 0xffff_ffff,
        present: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    let code = kvm_segment {
        type_: 11,
        selector: if mode == Mode::Long { 8 } else { 24 },
        l: u8::from(mode == Mode::Long),
        db: u8::from(mode == Mode::Protected),
        ..flat
    };
    let data = kvm_segment {
        type_: 3,
        selector: 16,
        db: 1,
        ..flat
    };
    let real = kvm_segment {
        limit: 0xffff,
        g: 0,
        type_: 3,
        ..flat
    };
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = match mode {
        Mode::Real => (0x10, 0, 0, 0),
        Mode::Protected => (0x11, 0, 0, 0),
        Mode::Long => (0x8000_0011, PML4, 0x20, 0x500),
    };
    let (code, data) = match mode {
        Mode::Real => (kvm_segment { type_: 11, ..real }, real),
        Mode::Protected | Mode::Long => (code, data),
    };
    sregs.cs = code;
    for segment in [
        &mut sregs.ds,
        &mut sregs.es,
        &mut sregs.fs,
        &mut sregs.gs,
        &mut sregs.ss,
    ] {
        *segment = data;
    }
    sregs.gdt.base = GDT;
    sregs.gdt.limit = 31;
    // Outside real mode there is no interrupt table, so a fault is a triple fault.
    sregs.idt.base = 0;
    sregs.idt.limit = if mode == Mode::Real { 0x3ff } else { 0 };
    vcpu.set_sregs(&sregs)?;
    vcpu.set_regs(&kvm_regs {
        rip: ENTRY,
        rsp: 0x8000 + 0x100 * u64::from(vp.index()),
        rflags: 2,
        rax: vp.index().into(),
        ..Default::default()
    })
}

/// The PIT's reload value for 1 kHz, from [`PIT_HZ`].
pub const PIT_PERIOD: u16 = 0x4a9;
/// The PIT's clock in KVM, in Hz.
pub const PIT_HZ: u32 = 1_193_182;

/// Sets up the first interrupt controller (vectors from 20h, with only IRQ 0 unmasked) and the PIT at 1 kHz, in any
/// mode.
pub fn timer_at_1_khz() -> Vec<u8> {
    let mut code = Vec::new();
    let [low, high] = PIT_PERIOD.to_le_bytes();
    // mov al, value; out port, al
    let outs = [
        (0x11, 0x20),
        (0x20, 0x21),
        (0x04, 0x21),
        (0x01, 0x21),
        (0xfe, 0x21),
        (0x34, 0x43),
        (low, 0x40),
        (high, 0x40),
    ];
    for (value, port) in outs {
        code.extend([0xb0, value, 0xe6, port]);
    }
    code
}
