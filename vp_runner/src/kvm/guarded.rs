//! Accesses to guest memory that can fail: a VMM may map the memory read-only, shrink its file, or remove the mapping.
//!
//! There are two ways. While the runner's handlers for SIGSEGV and SIGBUS are installed, an access is a plain instruction, and the handler turns a fault of this
//! instruction into an error. Every other fault goes to the handler that was installed before. If the VMM has installed a handler of its own since then, the kernel
//! copies the bytes through a pipe. This is slower, and an address that cannot be accessed gives an error number. (`process_vm_readv` would be simpler, but
//! sandboxes forbid it, while they allow reads and writes of a file descriptor.)
#![expect(
    unsafe_code,
    reason = "signal handlers, and accesses to addresses that may not be mapped"
)]

mod pipe;

use super::x86_64::guarded_access;
use crate::memory::slots::HostRange;
use pipe::Pipe;
use std::mem::MaybeUninit;
use std::mem::zeroed;
use std::ptr::null;
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;

const UNKNOWN: u8 = 0;
const HANDLED: u8 = 1;
const BY_PIPE: u8 = 2;

/// How memory is accessed now.
static WAY: AtomicU8 = AtomicU8::new(UNKNOWN);
/// The pipe is created when the handlers are installed, because a sandbox may forbid this later.
static PIPE: OnceLock<Option<Pipe>> = OnceLock::new();
static SEGV_BEFORE: OnceLock<libc::sigaction> = OnceLock::new();
static BUS_BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// Installs the handlers, once for the process. The first access does this too, but a VMM that enters a sandbox needs the handlers before.
pub(crate) fn install() {
    if WAY.load(Ordering::Relaxed) == UNKNOWN {
        static INSTALLED: OnceLock<()> = OnceLock::new();
        INSTALLED.get_or_init(|| {
            PIPE.get_or_init(|| {
                Pipe::new()
                    .inspect_err(|error| tracing::warn!(%error, "no pipe: guest memory is out of reach once the VMM replaces the SIGSEGV or SIGBUS handler"))
                    .ok()
            });
            handle(libc::SIGSEGV, &SEGV_BEFORE);
            handle(libc::SIGBUS, &BUS_BEFORE);
            set_way();
        });
    }
}

/// Checks whether the runner's handlers are still installed. Makes two system calls. Called before each request of a client that accesses memory.
pub(crate) fn check() {
    install();
    let before = WAY.load(Ordering::Relaxed);
    let now = set_way();
    if before != now {
        match now {
            BY_PIPE => tracing::warn!(
                "the VMM has replaced the runner's handler for SIGSEGV or SIGBUS: guest memory is accessed through the kernel from now on, which is slower; \
                 install handlers before `vp_runner::start`, which passes on what is not its own"
            ),
            _ => tracing::info!("the runner's handlers for SIGSEGV and SIGBUS are in place again"),
        }
    }
}

fn set_way() -> u8 {
    let way = match is_ours(libc::SIGSEGV) && is_ours(libc::SIGBUS) {
        true => HANDLED,
        false => BY_PIPE,
    };
    WAY.store(way, Ordering::Relaxed);
    way
}

fn is_handled() -> bool {
    install();
    WAY.load(Ordering::Relaxed) == HANDLED
}

/// The signal's present action.
fn action(signal: libc::c_int) -> Option<libc::sigaction> {
    let mut action = MaybeUninit::uninit();
    // SAFETY: without a new action the call only fills `action` in.
    let result = unsafe { libc::sigaction(signal, null(), action.as_mut_ptr()) };
    // SAFETY: it did.
    (result == 0).then(|| unsafe { action.assume_init() })
}

fn is_ours(signal: libc::c_int) -> bool {
    action(signal).is_some_and(|action| action.sa_sigaction == on_fault as *const () as usize)
}

fn handle(signal: libc::c_int, before: &OnceLock<libc::sigaction>) {
    let Some(old) = action(signal) else {
        return;
    };
    let before = before.get_or_init(|| old);
    // SAFETY: all zeros are a valid action.
    let mut new: libc::sigaction = unsafe { zeroed() };
    new.sa_sigaction = on_fault as *const () as usize;
    new.sa_mask = before.sa_mask;
    // The handler uses the alternate stack if the thread has one, because the previous handler may handle stack overflows.
    new.sa_flags = libc::SA_SIGINFO
        | libc::SA_ONSTACK
        | before.sa_flags & (libc::SA_NODEFER | libc::SA_RESTART);
    // SAFETY: `on_fault` is async-signal-safe, and passes every fault that is not an access of this module to the previous handler.
    if unsafe { libc::sigaction(signal, &raw const new, null_mut()) } != 0 {
        tracing::warn!(
            signal,
            "no handler could be installed: guest memory is accessed through the kernel"
        );
    }
}

/// Async-signal-safe: compares addresses and changes the interrupted thread's RIP, or calls the previous handler.
extern "C" fn on_fault(
    signal: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel hands both to a handler with SA_SIGINFO, for as long as it runs.
    let (code, context_now) =
        unsafe { ((*info).si_code, &mut *context.cast::<libc::ucontext_t>()) };
    let rip = &mut context_now.uc_mcontext.gregs[libc::REG_RIP as usize];
    // The signal was sent by a process, or concerns other memory, so it is no fault of this access.
    let fault = code > 0 && !(signal == libc::SIGBUS && code == libc::BUS_MCEERR_AO);
    let next = usize::try_from(*rip)
        .ok()
        .and_then(guarded_access::after_fault)
        .and_then(|next| i64::try_from(next).ok());
    match next {
        Some(next) if fault => *rip = next,
        _ => pass_on(signal, code, info, context),
    }
}

fn pass_on(
    signal: libc::c_int,
    code: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    let before = match signal {
        libc::SIGBUS => &BUS_BEFORE,
        _ => &SEGV_BEFORE,
    };
    let (handler, flags) = before.get().map_or((libc::SIG_DFL, 0), |before| {
        (before.sa_sigaction, before.sa_flags)
    });
    match handler {
        // A fault ends the process even if its signal is ignored.
        libc::SIG_IGN if code <= 0 => {}
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: the default action needs no handler. The faulting instruction is executed again, and ends the process; a signal
            // that was sent is sent again. Both calls are async-signal-safe.
            unsafe {
                libc::signal(signal, libc::SIG_DFL);
                if code <= 0 {
                    libc::raise(signal);
                }
            }
        }
        handler if flags & libc::SA_SIGINFO != 0 => {
            type Informed = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
            // SAFETY: it was installed as a handler with this signature, and is called as the kernel would have.
            let handler = unsafe { std::mem::transmute::<usize, Informed>(handler) };
            handler(signal, info, context);
        }
        handler => {
            // SAFETY: as above.
            let handler =
                unsafe { std::mem::transmute::<usize, extern "C" fn(libc::c_int)>(handler) };
            handler(signal);
        }
    }
}

/// Loads 1, 2, 4 or 8 bytes in one access, where handlers are in place.
pub(super) fn load(at: usize, len: usize) -> Option<u64> {
    if is_handled() {
        // SAFETY: the handlers are ours.
        return unsafe { guarded_access::load(at, len) };
    }
    let mut bytes = [0; 8];
    let read = pipe()?.read(HostRange { at, len }, &mut bytes[..len]);
    (read == len).then(|| u64::from_le_bytes(bytes))
}

/// Stores 1, 2, 4 or 8 bytes of the guest's memory in one access, where handlers are in place.
pub(super) fn store(at: usize, len: usize, value: u64) -> Option<()> {
    if is_handled() {
        // SAFETY: the handlers are ours, and the memory is the guest's (the module's contract).
        return unsafe { guarded_access::store(at, len, value) };
    }
    let written = pipe()?.write(HostRange { at, len }, &value.to_le_bytes()[..len]);
    (written == len).then_some(())
}

/// Reads up to the first byte that cannot be read. Returns how many.
pub(super) fn read(from: HostRange, data: &mut [u8]) -> usize {
    let len = from.len.min(data.len());
    if is_handled() {
        // SAFETY: the handlers are ours; `data` is `len` bytes at least.
        return unsafe { guarded_access::copy(data.as_mut_ptr() as usize, from.at, len) };
    }
    pipe().map_or(0, |pipe| pipe.read(from, data))
}

/// Writes guest memory up to the first byte that cannot be written. Returns how many.
pub(super) fn write(to: HostRange, data: &[u8]) -> usize {
    let len = to.len.min(data.len());
    if is_handled() {
        // SAFETY: the handlers are ours; `data` is `len` bytes at least, and the memory is the guest's (the module's contract).
        return unsafe { guarded_access::copy(to.at, data.as_ptr() as usize, len) };
    }
    pipe().map_or(0, |pipe| pipe.write(to, data))
}

fn pipe() -> Option<&'static Pipe> {
    PIPE.get()?.as_ref()
}

#[cfg(test)]
mod tests;
