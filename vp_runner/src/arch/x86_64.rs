//! x86: registers, modes, paging, debug registers, and how instructions behave while they are stepped. Free of KVM.

pub(crate) mod cpu_mode;
pub(crate) mod debug_registers;
pub(crate) mod dr7;
pub(crate) mod emulate;
pub(crate) mod guest_time;
pub(crate) mod instruction;
pub(crate) mod page_walk;
pub(crate) mod place;
pub(crate) mod step_effects;
pub(crate) mod stop_cause;
pub(crate) mod xsave;
