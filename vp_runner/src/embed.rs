//! A debugger inside a VMM that has run loops of its own.
//!
//! A debugger needs three things of a VMM: the moment before and after each `KVM_RUN`, on the thread of the vCPU; a way to end a `KVM_RUN`; and the list of memory
//! slots.
//!
//! ```text
//! let (vm, controller) = embed(EmbedParams::new(kvm_fd, vm_fd, requests)?)?;
//! // on a thread of the VMM:      block_on(controller.run())
//! // with each memory slot:       vm.set_slot(number, Some(MemorySlot::new(..)))
//! // on the thread of each vCPU:  let mut hook = vm.register_vp(id, vcpu_fd)?;
//! //                              hook.run(|| ioctl(vcpu_fd, KVM_RUN))
//! ```
//!
//! The hook has two equal forms:
//! - [`VpHook::run`] parks the VP inside, and returns only what the VMM has to handle.
//! - [`VpHook::before_entry`] and [`VpHook::after_exit`] are for a VMM that holds a lock across `KVM_RUN`: the VP parks in `before_entry`, outside the lock.
//!
//! # The VMM comes first
//! A parked VP gives its thread back, as if by `EINTR`, when `immediate_exit` of the vCPU is set by the VMM or when any signal with a handler arrives. The VMM then
//! does its work, and calls the hook again before the guest is to run. The guest does not run until then. While the VMM has the thread, the controller reads the vCPU
//! from its own thread, so a debugger can attach to a VM that the VMM has paused. Requests that change the vCPU get
//! [`DebugError::HeldByVmm`](vmm_core_defs::debug_rpc::DebugError::HeldByVmm).
//!
//! A VMM that creates its VM paused calls [`VmHandle::add_vp`] for each vCPU, and debuggers see the vCPU before its thread runs. A pause begins after a `KVM_RUN` that
//! has ended with an error such as `EINTR`: an access to a device is complete then. If a vCPU is paused with an incomplete access, a debugger waits for the VMM.
//!
//! After a kick of this crate the VMM sees `EINTR` several times in a row without a reason of its own: a kick may hide an `immediate_exit` that the VMM has set at
//! the same time, so the VMM gets a chance to look for work after each change of the flag.
//!
//! # Without a debugger
//! Before an entry there is one atomic load, and after an exit none. A `KVM_RUN` that returns `EINTR` costs two locks that nobody else wants. There is no allocation and no
//! system call.

mod params;
#[cfg(feature = "rust-vmm")]
mod rust_vmm;
mod vm_handle;
mod vp_hook;

pub use crate::kvm::immediate_exit::on_kick_signal;
pub use crate::kvm::kick::BadKickSignal;
pub use crate::kvm::kick::Kick;
pub use crate::kvm::kick::KickSignal;
pub use crate::kvm::kick::SignalKick;
pub use crate::kvm::system_calls;
pub use crate::memory::slots::MemorySlot;
pub use crate::runner::Controller;
pub use crate::runner::StartMode;
pub use params::EmbedParams;
pub use params::MmioAccess;
pub use vm_handle::EmbedError;
pub use vm_handle::Proceed;
pub use vm_handle::Quiesced;
pub use vm_handle::VmHandle;
pub use vm_handle::embed;
pub use vp_hook::AfterExit;
pub use vp_hook::BeforeEntry;
pub use vp_hook::VpHook;
