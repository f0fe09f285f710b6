//! Bits of registers and other constants of the architecture. No other file defines them.

/// RFLAGS (SDM volume 1, "EFLAGS Register").
pub mod rflags {
    /// Bit 1, which always reads as one.
    pub const FIXED: u64 = 1 << 1;
    /// Trap flag: a #DB follows the next instruction.
    pub const TF: u64 = 1 << 8;
    /// Interrupt enable flag.
    pub const IF: u64 = 1 << 9;
    /// Overflow flag.
    pub const OF: u64 = 1 << 11;
    /// Resume flag: the next instruction does not trap at an execution breakpoint.
    pub const RF: u64 = 1 << 16;
    /// Virtual-8086 mode.
    pub const VM: u64 = 1 << 17;
    /// Alignment check flag.
    pub const AC: u64 = 1 << 18;
}

/// CR0 (SDM volume 3, "Control Registers").
pub mod cr0 {
    /// Protection enable: protected mode.
    pub const PE: u64 = 1 << 0;
    /// Extension type, which is always one.
    pub const ET: u64 = 1 << 4;
    /// Alignment mask: allows alignment checks by RFLAGS.AC.
    pub const AM: u64 = 1 << 18;
    /// Not write-through.
    pub const NW: u64 = 1 << 29;
    /// Cache disable.
    pub const CD: u64 = 1 << 30;
    /// Paging is on.
    pub const PG: u64 = 1 << 31;
}

/// CR3 (SDM volume 3, "Paging").
pub mod cr3 {
    /// The bits of the physical address of the root table, without the PCID and cache bits.
    pub const ROOT: u64 = 0x000f_ffff_ffff_f000;
}

/// CR4 (SDM volume 3, "Control Registers").
pub mod cr4 {
    /// Page size extensions: 4 MiB pages.
    pub const PSE: u64 = 1 << 4;
    /// Physical address extension: page table entries have 64 bits.
    pub const PAE: u64 = 1 << 5;
    /// Page tables have 5 levels.
    pub const LA57: u64 = 1 << 12;
    /// Supervisor mode cannot execute user pages.
    pub const SMEP: u64 = 1 << 20;
    /// Protection keys for user pages are on.
    pub const PKE: u64 = 1 << 22;
    /// Control-flow enforcement is on.
    pub const CET: u64 = 1 << 23;
    /// Protection keys for supervisor pages are on.
    pub const PKS: u64 = 1 << 24;
}

/// IA32_EFER (SDM volume 3, "Extended Feature Enable Register").
pub mod efer {
    /// Long mode is enabled.
    pub const LME: u64 = 1 << 8;
    /// Long mode is active.
    pub const LMA: u64 = 1 << 10;
    /// Page table entries have a no-execute bit.
    pub const NXE: u64 = 1 << 11;
}

/// Numbers of model-specific registers (SDM volume 4).
pub mod msr {
    /// IA32_TIME_STAMP_COUNTER: the time-stamp counter.
    pub const TSC: u32 = 0x10;
    /// IA32_TSC_ADJUST: the value that was added to the time-stamp counter.
    pub const TSC_ADJUST: u32 = 0x3b;
    /// IA32_TSC_DEADLINE: the value of the time-stamp counter at which the local APIC timer expires.
    pub const TSC_DEADLINE: u32 = 0x6e0;
    /// IA32_LSTAR: the RIP that `syscall` loads in 64-bit mode.
    pub const LSTAR: u32 = 0xc000_0082;
    /// AMD's CSTAR: the RIP that `syscall` loads in compatibility mode.
    pub const CSTAR: u32 = 0xc000_0083;
    /// IA32_FMASK: the RFLAGS bits that `syscall` clears.
    pub const FMASK: u32 = 0xc000_0084;
    /// IA32_KERNEL_GS_BASE: the base that `swapgs` exchanges with the base of GS.
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
}

/// The maximum length of an instruction, in bytes (SDM volume 2, "Instruction Format").
pub const MAX_INSTRUCTION_LEN: usize = 15;
