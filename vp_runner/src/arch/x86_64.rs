//! x86: registers, modes, paging, debug registers, time, and the core of a VP. Free of ioctls.

pub(crate) mod code_location;
pub(crate) mod convert;
pub(crate) mod cpu_mode;
pub(crate) mod debug_registers;
pub(crate) mod dr7;
pub(crate) mod emulate;
pub(crate) mod guest_time;
pub(crate) mod instruction;
pub(crate) mod page_walk;
pub(crate) mod registers;
pub(crate) mod step_effects;
pub(crate) mod stop_cause;
pub(crate) mod vp;
pub(crate) mod xsave;
