//! The architecture of the guest. There is one folder for each, and the rest of the crate names only what this module exports.

pub(crate) mod x86_64;

pub(crate) use vmm_core_defs::regs::X86VpState as VpState;
pub(crate) use vmm_core_defs::regs::x86_64::Gp;
pub(crate) use vmm_core_defs::regs::x86_64::bits::MAX_INSTRUCTION_LEN;
pub(crate) use x86_64::code_location::CodeLocation;
pub(crate) use x86_64::code_location::Fetch;
pub(crate) use x86_64::cpu_mode::ModeClass;
pub(crate) use x86_64::cpu_mode::cpu_mode;
pub(crate) use x86_64::cpu_mode::privilege;
pub(crate) use x86_64::debug_registers::Hits;
pub(crate) use x86_64::dr7::Access;
pub(crate) use x86_64::dr7::SLOTS;
pub(crate) use x86_64::dr7::Slot;
pub(crate) use x86_64::dr7::Slots;
pub(crate) use x86_64::emulate::is_known as can_carry_out;
pub(crate) use x86_64::guest_time::TscRate;
pub(crate) use x86_64::guest_time::timekeeper::Timekeeper;
pub(crate) use x86_64::page_walk::PagingLimits;
pub(crate) use x86_64::page_walk::PagingState;
pub(crate) use x86_64::page_walk::PhysicalMemory;
pub(crate) use x86_64::page_walk::Walk;
pub(crate) use x86_64::page_walk::WalkFault;
pub(crate) use x86_64::page_walk::mapped_pages;
pub(crate) use x86_64::page_walk::memory_region;
pub(crate) use x86_64::page_walk::walk;
pub(crate) use x86_64::stop_cause::DebugExit;
pub(crate) use x86_64::stop_cause::SingleStepping;
pub(crate) use x86_64::vp::Snapshots;
pub(crate) use x86_64::vp::Vp;
pub(crate) use x86_64::vp::VpContext;
pub(crate) use x86_64::vp::clocks::HOLD_AFTER;
pub(crate) use x86_64::vp::guest_memory::GuestMemory;
pub(crate) use x86_64::vp::guest_run::GuestRun;
pub(crate) use x86_64::vp::guest_run::Turn;
pub(crate) use x86_64::vp::vcpu::Vcpu;
