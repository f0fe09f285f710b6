//! The seccomp filter of a vCPU thread. A system call that is not in the filter ends the process with `SIGSYS`; `strace -f` shows the call.

use kvm_bindings::KVMIO;
use libc::c_long;
use seccompiler::BpfProgram;
use seccompiler::SeccompAction;
use seccompiler::SeccompCmpArgLen;
use seccompiler::SeccompCmpOp;
use seccompiler::SeccompCondition;
use seccompiler::SeccompFilter;
use seccompiler::SeccompRule;
use seccompiler::TargetArch;
use std::collections::BTreeMap;
use std::ffi::c_ulong;
use vmm_sys_util::ioctl::_IOC_NONE;
use vmm_sys_util::ioctl::ioctl_expr;
use vp_runner::embed::system_calls::SystemCall;
use vp_runner::embed::system_calls::VCPU_THREAD;
use vp_runner::embed::system_calls::When;

/// The system calls that are allowed, each with its rules. No rule: any arguments.
type Allowed = BTreeMap<i64, Vec<SeccompRule>>;

/// What the VMM's own part of a vCPU thread calls, besides `KVM_RUN`: the thread ends, by `exit` or by a panic, or gets a stricter filter. A panic prints the thread's number.
const OF_THE_VMM: &[c_long] = &[
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_gettid,
    libc::SYS_prctl,
    libc::SYS_seccomp,
    libc::SYS_sigaltstack,
];

/// A filter that ends the process for every system call but `KVM_RUN`. The calling thread compiles the filter, so that [`apply`] allocates and frees no memory:
/// `malloc` and `free` may make system calls.
///
/// # Panics
/// If the rules are wrong.
pub fn only_kvm_run() -> BpfProgram {
    compile(&kvm_run(), SeccompAction::KillProcess, SeccompAction::Allow)
}

/// `KVM_RUN`, and nothing else.
fn kvm_run() -> Allowed {
    BTreeMap::from([(
        libc::SYS_ioctl,
        vec![request(ioctl_expr(_IOC_NONE, KVMIO, 0x80, 0))],
    )])
}

/// The environment variable with the name of a published call that no vCPU thread may make ([`name_of`]).
pub const FORBIDDEN: &str = "TRAPGATE_TEST_FORBIDDEN_CALL";

/// The name of an ioctl's request, and that of another system call.
pub fn name_of(call: &SystemCall) -> &'static str {
    call.ioctl.map_or(call.name, |ioctl| ioctl.name)
}

/// What a vCPU thread may do: the calls of the hook as they are published, those of the registration too if the thread has not registered, and the VMM's own.
fn of_a_vcpu_thread(is_registered: bool) -> Allowed {
    let forbidden = std::env::var(FORBIDDEN).ok();
    let is_forbidden = |name: &str| forbidden.as_deref() == Some(name);
    let mut allowed = kvm_run();
    allowed.extend(OF_THE_VMM.iter().map(|number| (*number, Vec::new())));
    for call in VCPU_THREAD {
        let allows = !is_forbidden(name_of(call)) && (call.when == When::Hook || !is_registered);
        match call.ioctl {
            None if allows => drop(allowed.insert(call.number, Vec::new())),
            // The VMM's own calls may have it.
            None if is_forbidden(call.name) => drop(allowed.remove(&call.number)),
            Some(ioctl) if allows => {
                let rules = allowed.entry(call.number).or_default();
                rules.push(request(ioctl.request));
            }
            _ => {}
        }
    }
    allowed
}

/// Installs a filter on the calling thread that ends the process for every system call but these.
fn install(allowed: &Allowed) {
    apply(&compile(
        allowed,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
    ));
}

/// Installs the filter of a vCPU thread that is about to register: every published call, and an error for each call that a filter may refuse.
///
/// # Panics
/// If the host has no seccomp.
pub fn install_before_registration() {
    // The kernel takes the stricter action of two filters.
    let refused = SeccompAction::Errno(libc::EACCES.unsigned_abs());
    let refusable = VCPU_THREAD.iter().filter(|call| call.refusable);
    let refusable = refusable.map(|call| (call.number, Vec::new())).collect();
    apply(&compile(&refusable, SeccompAction::Allow, refused));
    install(&of_a_vcpu_thread(false));
}

/// Installs the filter of a vCPU thread that has registered.
///
/// # Panics
/// If the host has no seccomp.
pub fn install_after_registration() {
    install(&of_a_vcpu_thread(true));
}

/// A filter with an action for these system calls, and one for all others.
fn compile(listed: &Allowed, others: SeccompAction, action: SeccompAction) -> BpfProgram {
    let filter = SeccompFilter::new(listed.clone(), others, action, TargetArch::x86_64);
    let program = filter.expect("rules").try_into();
    program.expect("a filter that fits")
}

/// Applies a filter to the calling thread.
///
/// # Panics
/// If the host has no seccomp.
pub fn apply(program: &BpfProgram) {
    seccompiler::apply_filter(program).expect("a host with seccomp");
}

fn request(request: c_ulong) -> SeccompRule {
    let is_request = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request);
    SeccompRule::new(vec![is_request.expect("an argument")]).expect("a condition")
}
