//! The nested KVM in which a test program runs by default.

use super::machine::Kvm;

/// Every KVM for which a program may be meant, in the order of the runs.
pub(crate) const ALL: [Kvm; 2] = [Kvm::Amd, Kvm::Intel];

/// The test programs that may behave differently in kvm-amd and in kvm-intel, because they depend on how CPU and KVM deliver exceptions, steps and interrupts.
const DIFFER: &[&str] = &[
    "vp_runner/breakpoints",
    "vp_runner/conditions",
    "vp_runner/debug_regs",
    "vp_runner/detach",
    "vp_runner/guest_debug",
    "vp_runner/guest_events",
    "vp_runner/interrupts",
    "vp_runner/software_changes",
    "vp_runner/step_kinds",
    "vp_runner/stepping",
    "vp_runner/task_switches",
    "vp_runner/trap_flag",
];

/// The KVMs for which a test program, such as `vp_runner/stepping`, is meant.
pub(crate) fn of(program: &str) -> &'static [Kvm] {
    match DIFFER.contains(&program) {
        true => &ALL,
        false => &[Kvm::Amd],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process;

    #[test]
    fn every_program_that_differs_exists_and_runs_in_both() {
        for program in DIFFER {
            let (package, name) = program.split_once('/').unwrap();
            let path = format!("{package}/tests/{name}");
            let path = process::workspace_root().join(path);
            let files = [path.with_extension("rs"), path.join("main.rs")];
            assert!(
                files.iter().any(|file| file.is_file()),
                "there is no test program {program}"
            );
            assert_eq!(of(program), ALL);
        }
        assert_eq!(of("trapgate/linux_time"), [Kvm::Amd]);
        // A name must match as a whole.
        assert_eq!(of("vp_runner/step"), [Kvm::Amd]);
    }
}
