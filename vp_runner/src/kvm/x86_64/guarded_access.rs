//! Memory accesses that may fault, and the code that continues after a fault.
//!
//! Each function below begins with the single instruction that may fault, so RIP alone identifies a fault of these functions. [`after_fault`] returns the
//! address at which a signal handler continues the thread. The code there returns to the caller with an error.
#![expect(
    unsafe_code,
    reason = "accesses to addresses that may not be mapped, in machine code that a signal handler can continue"
)]

use std::arch::naked_asm;

/// The result of an access: RAX and RDX, as the System V ABI returns them.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Access {
    value: u64,
    failed: u64,
}

impl Access {
    fn value(self) -> Option<u64> {
        (self.failed == 0).then_some(self.value)
    }
}

macro_rules! load {
    ($name:ident, $instruction:literal) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(_at: usize) -> Access {
            naked_asm!($instruction, "xor edx, edx", "ret")
        }
    };
}

macro_rules! store {
    ($name:ident, $instruction:literal) => {
        #[unsafe(naked)]
        unsafe extern "C" fn $name(_at: usize, _value: u64) -> Access {
            naked_asm!($instruction, "xor edx, edx", "ret")
        }
    };
}

load!(load_1, "movzx eax, byte ptr [rdi]");
load!(load_2, "movzx eax, word ptr [rdi]");
load!(load_4, "mov eax, dword ptr [rdi]");
load!(load_8, "mov rax, qword ptr [rdi]");
store!(store_1, "mov byte ptr [rdi], sil");
store!(store_2, "mov word ptr [rdi], si");
store!(store_4, "mov dword ptr [rdi], esi");
store!(store_8, "mov qword ptr [rdi], rsi");

/// Copies `count` words of 8 bytes. Returns how many were left. The third argument is there for `count` to be in RCX.
#[unsafe(naked)]
unsafe extern "C" fn copy_words(_to: usize, _from: usize, _none: usize, _count: usize) -> usize {
    naked_asm!("rep movsq", "mov rax, rcx", "ret")
}

/// As [`copy_words`], of bytes.
#[unsafe(naked)]
unsafe extern "C" fn copy_bytes(_to: usize, _from: usize, _none: usize, _count: usize) -> usize {
    naked_asm!("rep movsb", "mov rax, rcx", "ret")
}

#[unsafe(naked)]
unsafe extern "C" fn access_failed() {
    naked_asm!("mov edx, 1", "ret")
}

#[unsafe(naked)]
unsafe extern "C" fn copy_failed() {
    naked_asm!("mov rax, rcx", "ret")
}

/// The address at which a thread continues after a fault at `rip`. `None` if no access of this module is at `rip`. Async-signal-safe.
pub(in crate::kvm) fn after_fault(rip: usize) -> Option<usize> {
    let accesses = [
        load_1 as *const () as usize,
        load_2 as *const () as usize,
        load_4 as *const () as usize,
        load_8 as *const () as usize,
        store_1 as *const () as usize,
        store_2 as *const () as usize,
        store_4 as *const () as usize,
        store_8 as *const () as usize,
    ];
    let copies = [
        copy_words as *const () as usize,
        copy_bytes as *const () as usize,
    ];
    if accesses.contains(&rip) {
        Some(access_failed as *const () as usize)
    } else if copies.contains(&rip) {
        Some(copy_failed as *const () as usize)
    } else {
        None
    }
}

/// Loads 1, 2, 4 or 8 bytes in one access. `None` if the access faults.
///
/// # Safety
/// A handler that knows [`after_fault`] is installed for SIGSEGV and SIGBUS, or the memory is readable.
pub(in crate::kvm) unsafe fn load(at: usize, len: usize) -> Option<u64> {
    // SAFETY: the function reads `len` bytes of memory that Rust holds no reference to, and returns also if that faults (the caller's duty).
    let access = unsafe {
        match len {
            1 => load_1(at),
            2 => load_2(at),
            4 => load_4(at),
            _ => load_8(at),
        }
    };
    access.value()
}

/// Stores the low 1, 2, 4 or 8 bytes of `value` in one access. `None` if the access faults.
///
/// # Safety
/// As for [`load`]; and the memory is the guest's.
pub(in crate::kvm) unsafe fn store(at: usize, len: usize, value: u64) -> Option<()> {
    // SAFETY: the function writes `len` bytes of the guest's memory, and returns also if that faults (the caller's duty).
    let access = unsafe {
        match len {
            1 => store_1(at, value),
            2 => store_2(at, value),
            4 => store_4(at, value),
            _ => store_8(at, value),
        }
    };
    access.value().map(drop)
}

/// Copies up to the first byte that faults. Returns how many bytes were copied.
///
/// # Safety
/// As for [`load`]. One of the two ranges is the guest's, the other the caller's and valid.
pub(in crate::kvm) unsafe fn copy(to: usize, from: usize, len: usize) -> usize {
    // SAFETY: the caller's duty; the copy stops where it faults.
    let left = unsafe { copy_words(to, from, 0, len / 8) };
    let done = len / 8 * 8 - left * 8;
    // The remaining bytes: those behind the last whole word, or those of the faulting word that are before the end of the page.
    let tail = match left {
        0 => len - done,
        _ => 8,
    };
    // SAFETY: as above.
    let left = unsafe { copy_bytes(to + done, from + done, 0, tail) };
    done + tail - left
}
