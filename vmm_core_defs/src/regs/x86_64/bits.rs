//! Bits of registers, and other constants of the architecture: the one place that defines them.

/// RFLAGS (SDM volume 1, "EFLAGS Register").
pub mod rflags {
    /// The bit that always reads as one.
    pub const FIXED: u64 = 1 << 1;
    /// Trap flag: single step.
    pub const TF: u64 = 1 << 8;
    /// Interrupts are enabled.
    pub const IF: u64 = 1 << 9;
    /// Overflow.
    pub const OF: u64 = 1 << 11;
    /// Resume flag: the next instruction meets no execution breakpoint.
    pub const RF: u64 = 1 << 16;
    /// Virtual-8086 mode.
    pub const VM: u64 = 1 << 17;
    /// Alignment checks are on.
    pub const AC: u64 = 1 << 18;
}

/// CR0 (SDM volume 3, "Control Registers").
pub mod cr0 {
    /// Protected mode.
    pub const PE: u64 = 1 << 0;
    /// Extension type: always one.
    pub const ET: u64 = 1 << 4;
    /// Alignment checks may be turned on.
    pub const AM: u64 = 1 << 18;
    /// Not write-through.
    pub const NW: u64 = 1 << 29;
    /// Caches are off.
    pub const CD: u64 = 1 << 30;
    /// Paging.
    pub const PG: u64 = 1 << 31;
}

/// CR3 (SDM volume 3, "Paging").
pub mod cr3 {
    /// The address of the root table: without PCID and cache bits.
    pub const ROOT: u64 = 0x000f_ffff_ffff_f000;
}

/// CR4 (SDM volume 3, "Control Registers").
pub mod cr4 {
    /// 4 MiB pages.
    pub const PSE: u64 = 1 << 4;
    /// Page tables of 64-bit entries.
    pub const PAE: u64 = 1 << 5;
    /// 5 levels of page tables.
    pub const LA57: u64 = 1 << 12;
    /// Supervisor mode may not execute user pages.
    pub const SMEP: u64 = 1 << 20;
    /// Protection keys of user pages.
    pub const PKE: u64 = 1 << 22;
    /// Control-flow enforcement.
    pub const CET: u64 = 1 << 23;
    /// Protection keys of supervisor pages.
    pub const PKS: u64 = 1 << 24;
}

/// IA32_EFER (SDM volume 3, "Extended Feature Enable Register").
pub mod efer {
    /// Long mode is enabled.
    pub const LME: u64 = 1 << 8;
    /// Long mode is active.
    pub const LMA: u64 = 1 << 10;
    /// Page-table entries have a no-execute bit.
    pub const NXE: u64 = 1 << 11;
}

/// Numbers of model-specific registers (SDM volume 4).
pub mod msr {
    /// The time-stamp counter.
    pub const TSC: u32 = 0x10;
    /// The adjustment of the time-stamp counter.
    pub const TSC_ADJUST: u32 = 0x3b;
    /// When the local timer is due, as a time-stamp counter.
    pub const TSC_DEADLINE: u32 = 0x6e0;
    /// Where `syscall` leads in 64-bit code.
    pub const LSTAR: u32 = 0xc000_0082;
    /// Where `syscall` leads in compatibility code.
    pub const CSTAR: u32 = 0xc000_0083;
    /// The RFLAGS bits that `syscall` clears.
    pub const FMASK: u32 = 0xc000_0084;
}

/// The longest instruction, in bytes (SDM volume 2, "Instruction Format").
pub const MAX_INSTRUCTION_LEN: usize = 15;
