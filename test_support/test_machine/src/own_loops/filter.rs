//! The seccomp filter of a vCPU thread. A system call that is not in the filter ends the process with `SIGSYS`; `strace -f` shows the call.

use kvm_bindings::KVMIO;
use libc::c_long;
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
use vp_runner::embed::system_calls::VCPU_THREAD;
use vp_runner::embed::system_calls::When;

/// The system calls that are allowed, each with its rules. No rule: any arguments.
pub type Allowed = BTreeMap<i64, Vec<SeccompRule>>;

/// What the VMM's own part of a vCPU thread calls, besides `KVM_RUN`: the thread ends, by `exit` or by a panic, or gets a stricter filter. A panic prints the thread's number.
const OF_THE_VMM: &[c_long] = &[
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_gettid,
    libc::SYS_prctl,
    libc::SYS_seccomp,
    libc::SYS_sigaltstack,
];

/// `KVM_RUN`, and nothing else.
pub fn kvm_run() -> Allowed {
    BTreeMap::from([(
        libc::SYS_ioctl,
        vec![request(ioctl_expr(_IOC_NONE, KVMIO, 0x80, 0))],
    )])
}

/// What a vCPU thread may do once it has registered: the calls of the hook as they are published, and the VMM's own.
pub fn of_a_vcpu_thread() -> Allowed {
    let mut allowed = kvm_run();
    for call in VCPU_THREAD {
        match (call.when, call.ioctl) {
            (When::Register, _) => {}
            (When::Hook, None) => drop(allowed.insert(call.number, Vec::new())),
            (When::Hook, Some(ioctl)) => {
                let rules = allowed.entry(call.number).or_default();
                rules.push(request(ioctl.request));
            }
        }
    }
    allowed.extend(OF_THE_VMM.iter().map(|number| (*number, Vec::new())));
    allowed
}

/// Installs a filter on the calling thread that ends the process for every system call but these.
///
/// # Panics
/// If the host has no seccomp.
pub fn install(allowed: &Allowed) {
    apply(allowed, SeccompAction::KillProcess, SeccompAction::Allow);
}

/// Installs the filter of a vCPU thread: [`of_a_vcpu_thread`], and an error for each call that a filter may refuse.
///
/// # Panics
/// If the host has no seccomp.
pub fn install_for_a_vcpu_thread() {
    // The kernel takes the stricter action of two filters.
    let refused = SeccompAction::Errno(libc::EACCES.unsigned_abs());
    let refusable = VCPU_THREAD.iter().filter(|call| call.refusable);
    let refusable = refusable.map(|call| (call.number, Vec::new())).collect();
    apply(&refusable, SeccompAction::Allow, refused);
    install(&of_a_vcpu_thread());
}

/// Installs a filter with an action for these system calls, and one for all others.
fn apply(listed: &Allowed, others: SeccompAction, action: SeccompAction) {
    let filter = SeccompFilter::new(listed.clone(), others, action, TargetArch::x86_64);
    let program: seccompiler::BpfProgram = filter
        .expect("rules")
        .try_into()
        .expect("a filter that fits");
    seccompiler::apply_filter(&program).expect("a host with seccomp");
}

fn request(request: c_ulong) -> SeccompRule {
    let is_request = SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request);
    SeccompRule::new(vec![is_request.expect("an argument")]).expect("a condition")
}
