//! The real functions: those that the VMM would call without the library. They come from the next object in the dynamic linker's order, which may be another
//! preloaded library.

use super::environment::Array;
use std::ffi::CStr;
use std::ffi::c_char;
use std::ffi::c_int;
use std::ffi::c_long;
use std::ffi::c_uint;
use std::ffi::c_ulong;
use std::ffi::c_void;
use std::mem::transmute;
use std::ptr::null_mut;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering;

/// "C-unwind": glibc ends a cancelled thread by unwinding through its frames, and `close` is a point of cancellation.
type IoctlFn = unsafe extern "C-unwind" fn(c_int, c_ulong, usize) -> c_int;
type OneFn = unsafe extern "C-unwind" fn(c_int) -> c_int;
type TwoFn = unsafe extern "C-unwind" fn(c_int, c_int) -> c_int;
type ThreeFn = unsafe extern "C-unwind" fn(c_int, c_int, c_int) -> c_int;
type FcntlFn = unsafe extern "C-unwind" fn(c_int, c_int, usize) -> c_int;
type RangeFn = unsafe extern "C-unwind" fn(c_uint, c_uint, c_int) -> c_int;
type FromFn = unsafe extern "C-unwind" fn(c_int);
type PrctlFn = unsafe extern "C-unwind" fn(c_int, usize, usize, usize, usize) -> c_int;
type SyscallFn =
    unsafe extern "C-unwind" fn(c_long, usize, usize, usize, usize, usize, usize) -> c_long;
type ExecFn = unsafe extern "C-unwind" fn(*const c_char, Array, Array) -> c_int;
type FexecFn = unsafe extern "C-unwind" fn(c_int, Array, Array) -> c_int;
type ExecAtFn = unsafe extern "C-unwind" fn(c_int, *const c_char, Array, Array, c_int) -> c_int;
type ExitFn = unsafe extern "C-unwind" fn(c_int) -> !;

/// A function that is looked up once. The constructor looks all of them up, because `dlsym` may not be called in a signal handler; a function that is called
/// before the constructor is looked up then.
pub(super) struct Real {
    name: &'static CStr,
    address: AtomicPtr<c_void>,
}

impl Real {
    const fn new(name: &'static CStr) -> Self {
        Self {
            name,
            address: AtomicPtr::new(null_mut()),
        }
    }

    /// # Panics
    /// libc does not have the function. Every function here is in glibc 2.34.
    fn address(&self) -> *mut c_void {
        let known = self.address.load(Ordering::Relaxed);
        if !known.is_null() {
            return known;
        }
        // SAFETY: the name ends with a zero byte, and RTLD_NEXT is a valid handle in a shared object.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        assert!(!found.is_null(), "libc has no {:?}", self.name);
        self.address.store(found, Ordering::Relaxed);
        found
    }
}

static IOCTL: Real = Real::new(c"ioctl");
static CLOSE: Real = Real::new(c"close");
static CLOSE_RANGE: Real = Real::new(c"close_range");
static CLOSEFROM: Real = Real::new(c"closefrom");
static DUP: Real = Real::new(c"dup");
static DUP2: Real = Real::new(c"dup2");
static DUP3: Real = Real::new(c"dup3");
static FCNTL: Real = Real::new(c"fcntl");
static FCNTL64: Real = Real::new(c"fcntl64");
static PRCTL: Real = Real::new(c"prctl");
static SYSCALL: Real = Real::new(c"syscall");
static EXECVE: Real = Real::new(c"execve");
static EXECVPE: Real = Real::new(c"execvpe");
static FEXECVE: Real = Real::new(c"fexecve");
static EXECVEAT: Real = Real::new(c"execveat");
static EXIT: Real = Real::new(c"_exit");

/// Looks all functions up.
pub(super) fn look_up() {
    for real in [
        &IOCTL,
        &CLOSE,
        &CLOSE_RANGE,
        &CLOSEFROM,
        &DUP,
        &DUP2,
        &DUP3,
        &FCNTL,
        &FCNTL64,
        &PRCTL,
        &SYSCALL,
        &EXECVE,
        &EXECVPE,
        &FEXECVE,
        &EXECVEAT,
        &EXIT,
    ] {
        real.address();
    }
}

/// # Safety
/// As `ioctl`. The third argument is passed in a register whether or not the VMM has given one (System V ABI of x86-64, 3.2.3): libc does the same.
pub(super) unsafe fn ioctl(fd: c_int, request: c_ulong, argument: usize) -> c_int {
    // SAFETY: the address is that of libc's function, whose variable argument is of a register's size; the rest is the caller's.
    unsafe { transmute::<*mut c_void, IoctlFn>(IOCTL.address())(fd, request, argument) }
}

/// # Safety
/// As `close`.
pub(super) unsafe fn close(fd: c_int) -> c_int {
    // SAFETY: the address is that of libc's function; the rest is the caller's.
    unsafe { transmute::<*mut c_void, OneFn>(CLOSE.address())(fd) }
}

/// # Safety
/// As `close_range`.
pub(super) unsafe fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int {
    // SAFETY: the address is that of libc's function; the rest is the caller's.
    unsafe { transmute::<*mut c_void, RangeFn>(CLOSE_RANGE.address())(first, last, flags) }
}

/// # Safety
/// As `closefrom`.
pub(super) unsafe fn closefrom(first: c_int) {
    // SAFETY: the address is that of libc's function; the rest is the caller's.
    unsafe { transmute::<*mut c_void, FromFn>(CLOSEFROM.address())(first) }
}

/// # Safety
/// As `dup`.
pub(super) unsafe fn dup(old: c_int) -> c_int {
    // SAFETY: the address is that of libc's function; the rest is the caller's.
    unsafe { transmute::<*mut c_void, OneFn>(DUP.address())(old) }
}

/// # Safety
/// As `dup2`.
pub(super) unsafe fn dup2(old: c_int, new: c_int) -> c_int {
    // SAFETY: the address is that of libc's function; the rest is the caller's.
    unsafe { transmute::<*mut c_void, TwoFn>(DUP2.address())(old, new) }
}

/// # Safety
/// As `dup3`.
pub(super) unsafe fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int {
    // SAFETY: the address is that of libc's function; the rest is the caller's.
    unsafe { transmute::<*mut c_void, ThreeFn>(DUP3.address())(old, new, flags) }
}

/// # Safety
/// As `fcntl`. For the third argument, see [`ioctl`].
pub(super) unsafe fn fcntl(fd: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: the address is that of libc's function; the rest is the caller's.
    unsafe { transmute::<*mut c_void, FcntlFn>(FCNTL.address())(fd, command, argument) }
}

/// # Safety
/// As `fcntl64`. For the third argument, see [`ioctl`].
pub(super) unsafe fn fcntl64(fd: c_int, command: c_int, argument: usize) -> c_int {
    // SAFETY: the address is that of libc's function; the rest is the caller's.
    unsafe { transmute::<*mut c_void, FcntlFn>(FCNTL64.address())(fd, command, argument) }
}

/// # Safety
/// As `prctl`. For the variable arguments, see [`ioctl`].
pub(super) unsafe fn prctl(option: c_int, arguments: [usize; 4]) -> c_int {
    let [a, b, c, d] = arguments;
    // SAFETY: the address is that of libc's function; the rest is the caller's.
    unsafe { transmute::<*mut c_void, PrctlFn>(PRCTL.address())(option, a, b, c, d) }
}

/// # Safety
/// As `syscall`. For the variable arguments, see [`ioctl`]; the last one is passed in memory of the caller's frame.
pub(super) unsafe fn syscall(number: c_long, arguments: [usize; 6]) -> c_long {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the address is that of libc's function; the rest is the caller's.
    unsafe { transmute::<*mut c_void, SyscallFn>(SYSCALL.address())(number, a, b, c, d, e, f) }
}

/// # Safety
/// As `execve`.
pub(super) unsafe fn execve(path: *const c_char, argv: Array, envp: Array) -> c_int {
    // SAFETY: the address is that of libc's function; the rest is the caller's.
    unsafe { transmute::<*mut c_void, ExecFn>(EXECVE.address())(path, argv, envp) }
}

/// # Safety
/// As `execvpe`.
pub(super) unsafe fn execvpe(file: *const c_char, argv: Array, envp: Array) -> c_int {
    // SAFETY: the address is that of libc's function; the rest is the caller's.
    unsafe { transmute::<*mut c_void, ExecFn>(EXECVPE.address())(file, argv, envp) }
}

/// # Safety
/// As `fexecve`.
pub(super) unsafe fn fexecve(fd: c_int, argv: Array, envp: Array) -> c_int {
    // SAFETY: the address is that of libc's function; the rest is the caller's.
    unsafe { transmute::<*mut c_void, FexecFn>(FEXECVE.address())(fd, argv, envp) }
}

/// # Safety
/// As `execveat`.
pub(super) unsafe fn execveat(
    folder: c_int,
    path: *const c_char,
    argv: Array,
    envp: Array,
    flags: c_int,
) -> c_int {
    let function = EXECVEAT.address();
    // SAFETY: the address is that of libc's function; the rest is the caller's.
    unsafe { transmute::<*mut c_void, ExecAtFn>(function)(folder, path, argv, envp, flags) }
}

/// # Safety
/// As `_exit`.
pub(super) unsafe fn exit_at_once(status: c_int) -> ! {
    // SAFETY: the address is that of libc's function; the rest is the caller's.
    unsafe { transmute::<*mut c_void, ExitFn>(EXIT.address())(status) }
}
