//! The system calls of a worker. Any other call kills the worker with `SIGSYS`; `strace -f` shows the call.

use libc::c_long;
use libc::c_ulong;
use seccompiler::SeccompCmpArgLen;
use seccompiler::SeccompCmpOp;
use seccompiler::SeccompCondition;
use seccompiler::SeccompRule;
use std::collections::BTreeMap;

/// When a worker needs a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Needed {
    /// Always.
    Always,
    /// Clients may come from other machines.
    ForNetwork,
    /// There is a folder for core files of the guest.
    ForDumps,
}

/// A system call that a worker may make.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SystemCall {
    /// The name, as in the manual.
    pub name: &'static str,
    /// What the worker needs the call for.
    pub reason: &'static str,
    /// When the call is allowed.
    pub needed: Needed,
    number: c_long,
    only: Only,
}

/// The arguments with which a call is allowed.
#[derive(Debug, Clone, Copy)]
enum Only {
    Any,
    /// One argument has this value.
    Is(u8, c_ulong),
    /// One argument has one of these values.
    OneOf(u8, &'static [c_ulong]),
    /// An argument has none of these bits.
    Without(u8, c_ulong),
}

const PROT_EXEC: c_ulong = libc::PROT_EXEC as c_ulong;
/// Neither the owner nor the signal of a descriptor: they send signals to other processes.
const FCNTL: &[c_ulong] = &[
    libc::F_DUPFD_CLOEXEC as c_ulong,
    libc::F_GETFD as c_ulong,
    libc::F_GETFL as c_ulong,
    libc::F_SETFL as c_ulong,
];
const DATAGRAM: c_ulong = (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC) as c_ulong;

/// Makes the name and the number from one word.
macro_rules! calls {
    ($needed:ident; $($call:ident $(($only:expr))?: $reason:literal,)*) => {
        &[$(SystemCall {
            name: stringify!($call),
            reason: $reason,
            needed: Needed::$needed,
            number: libc::$call,
            only: calls!(@ $($only)?),
        }),*]
    };
    (@) => { Only::Any };
    (@ $only:expr) => { $only };
}

const ALWAYS: &[SystemCall] = calls! { Always;
    SYS_epoll_ctl: "watch the socket of a new client",
    SYS_epoll_pwait: "wait for clients, answers and timers",
    SYS_epoll_pwait2: "the same with a time limit in nanoseconds",
    SYS_accept4: "accept a client; a client is accepted on a listening socket only",
    SYS_read: "read from a client, the VMM and the executor's eventfd",
    SYS_readv: "the same with several buffers",
    SYS_recvfrom: "read from a client, the VMM and the kernel's table of sockets",
    SYS_recvmsg: "the same with several buffers",
    SYS_write: "write to a client, the VMM, the log and the executor's eventfd",
    SYS_writev: "the same with several buffers",
    SYS_sendto: "write to a client and the VMM, and ask the kernel for the user of a client",
    SYS_sendmsg: "the same with several buffers",
    SYS_shutdown: "tell a client or the VMM that nothing follows",
    SYS_close: "close the socket of a client",
    SYS_pread64: "read the file with the symbols of the guest, and the kernel's table of sockets, where the kernel answers no question about one socket",
    SYS_fcntl (Only::OneOf(1, FCNTL)): "do not block on a socket, and duplicate the descriptor of a socket",
    SYS_ioctl (Only::Is(1, libc::FIONBIO)): "do not block on a socket",
    SYS_getsockname: "the address to which a client has connected",
    SYS_getpeername: "the address of a client",
    SYS_getsockopt: "the error of a socket",
    SYS_setsockopt: "no delay, and a check that a silent client still exists",
    SYS_brk: "memory",
    SYS_mmap (Only::Without(2, PROT_EXEC)): "memory that cannot be executed",
    SYS_mremap: "memory",
    SYS_munmap: "memory",
    SYS_madvise: "give memory back",
    SYS_mprotect (Only::Without(2, PROT_EXEC)): "memory that cannot be executed",
    SYS_getrandom: "seeds of hash tables",
    SYS_clock_gettime: "time, where the kernel does not offer it without a system call",
    SYS_clock_nanosleep: "time",
    SYS_sched_yield: "wait a short time for the next packet without sleeping",
    SYS_futex: "locks",
    SYS_restart_syscall: "go on after SIGSTOP and SIGCONT",
    SYS_rt_sigreturn: "return from a signal that is ignored",
    SYS_rt_sigaction: "end by a fault, whose handler of the standard library gives way to the kernel's",
    SYS_rt_sigprocmask: "end by a panic",
    SYS_sigaltstack: "end of a thread",
    SYS_getpid: "end by a panic",
    SYS_gettid: "end by a panic",
    SYS_tgkill: "end by a panic; landlock, where the kernel has it, keeps signals inside the process",
    SYS_exit: "end of a thread",
    SYS_exit_group: "end",
};

/// What only this architecture has.
#[cfg(target_arch = "x86_64")]
const OF_ARCHITECTURE: &[SystemCall] = calls! { Always;
    SYS_epoll_wait: "wait for clients, answers and timers",
};
#[cfg(not(target_arch = "x86_64"))]
const OF_ARCHITECTURE: &[SystemCall] = &[];

const FOR_NETWORK: &[SystemCall] = calls! { ForNetwork;
    SYS_socket (Only::Is(1, DATAGRAM)): "find out whether the address of a client belongs to this machine; nothing is sent",
    SYS_bind: "the same",
    SYS_connect: "the same",
};

/// landlock limits the paths to the folder.
const FOR_DUMPS: &[SystemCall] = calls! { ForDumps;
    SYS_openat: "create a core file in the folder for core files",
    SYS_pwrite64: "write a core file",
    SYS_ftruncate: "the length of a core file",
    SYS_fdatasync: "a full disk is an error of the command",
    SYS_fsync: "a full disk is an error of the command",
    SYS_fstat: "what file a path names",
    SYS_statx: "what file a path names",
    SYS_unlinkat: "remove a core file that could not be finished",
    SYS_clone3: "the thread that writes a core file",
    SYS_clone: "the thread that writes a core file, where the kernel has no clone3",
    SYS_set_robust_list: "start of a thread",
    SYS_rseq: "start of a thread",
    SYS_prctl (Only::Is(0, libc::PR_SET_NAME as c_ulong)): "the name of a thread",
    SYS_sched_getaffinity: "the stack of a thread",
};

#[cfg(target_arch = "x86_64")]
const FOR_DUMPS_OF_ARCHITECTURE: &[SystemCall] = calls! { ForDumps;
    SYS_unlink: "remove a core file that could not be finished",
};
#[cfg(not(target_arch = "x86_64"))]
const FOR_DUMPS_OF_ARCHITECTURE: &[SystemCall] = &[];

/// Every system call that a worker may need.
pub fn system_calls() -> impl Iterator<Item = SystemCall> {
    [
        ALWAYS,
        OF_ARCHITECTURE,
        FOR_NETWORK,
        FOR_DUMPS,
        FOR_DUMPS_OF_ARCHITECTURE,
    ]
    .into_iter()
    .flatten()
    .map(|call| SystemCall {
        name: call.name.trim_start_matches("SYS_"),
        ..*call
    })
}

/// The rules of a filter that allows the calls which `wanted` accepts.
pub(super) fn rules(
    wanted: impl Fn(Needed) -> bool,
) -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    let mut rules = BTreeMap::new();
    for call in system_calls().filter(|call| wanted(call.needed)) {
        // No rule: any arguments.
        let only = match call.only {
            Only::Any => Vec::new(),
            Only::Is(index, value) => vec![rule(index, SeccompCmpOp::Eq, value)?],
            Only::OneOf(index, values) => values
                .iter()
                .map(|value| rule(index, SeccompCmpOp::Eq, *value))
                .collect::<Result<_, _>>()?,
            Only::Without(index, bits) => vec![rule(index, SeccompCmpOp::MaskedEq(bits), 0)?],
        };
        rules.insert(call.number, only);
    }
    Ok(rules)
}

/// The kernel reads 32 bits of these arguments.
fn rule(
    index: u8,
    op: SeccompCmpOp,
    value: c_ulong,
) -> Result<SeccompRule, seccompiler::BackendError> {
    let condition = SeccompCondition::new(index, SeccompCmpArgLen::Dword, op, value)?;
    SeccompRule::new(vec![condition])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_stands_once_with_its_reason_and_none_gives_a_way_out() {
        let calls: Vec<_> = system_calls().collect();
        for call in &calls {
            let same = calls.iter().filter(|other| other.number == call.number);
            assert_eq!(same.count(), 1, "{}", call.name);
            assert!(call.reason.len() > 2, "{}", call.name);
        }
        let always: Vec<_> = calls
            .iter()
            .filter(|call| call.needed == Needed::Always)
            .map(|call| call.name)
            .collect();
        for way_out in [
            "socket",
            "connect",
            "bind",
            "open",
            "openat",
            "execve",
            "execveat",
            "ptrace",
            "fork",
            "vfork",
            "clone",
            "clone3",
            "kill",
            "prctl",
            "seccomp",
            "pidfd_getfd",
            "process_vm_readv",
            "io_uring_setup",
            "memfd_create",
            "bpf",
            "mount",
        ] {
            assert!(!always.contains(&way_out), "{way_out}");
        }
    }
}
