//! `trapgate doctor`: tries which debugging features work on this host.

use crate::complain;
use crate::exit_status::ExitStatus;
use crate::kvm_host::KvmHost;
use crate::say;
#[cfg(feature = "gdb")]
use debug_worker::capability_meaning;
use vmm_core_defs::capability::Capabilities;
use vmm_core_defs::capability::Capability;
use vp_runner::probe;

/// Prints the table. The command succeeds if KVM exists; the table explains features that do not work.
pub(crate) fn doctor() -> ExitStatus {
    let host = match KvmHost::open() {
        Ok(host) => host,
        Err(error) => {
            complain(&error);
            return ExitStatus::BadInput;
        }
    };
    say(&format!(
        "/dev/kvm works; guests may have up to {} CPUs.",
        host.max_vcpus
    ));
    match probe::run() {
        Ok(report) => {
            say("Tried in a throw-away virtual machine:\n");
            say(&table(&report.capabilities()));
            #[cfg(feature = "gdb")]
            say(&crate::isolation::report());
            ExitStatus::Success
        }
        Err(error) => {
            complain(&error);
            ExitStatus::Failed
        }
    }
}

/// One paragraph for each capability: verdict and name, meaning, observation.
fn table(capabilities: &Capabilities) -> String {
    let mut text = String::new();
    for capability in capabilities.iter() {
        let verdict = if capability.is_wanting() { "NO" } else { "yes" };
        #[cfg(feature = "gdb")]
        let meaning = format!("     {}\n", capability_meaning(capability));
        // What the debugger's commands do.
        #[cfg(not(feature = "gdb"))]
        let meaning = "";
        let Capability { kind, seen, .. } = capability;
        text += &format!("{verdict:3}  {kind}\n{meaning}     (seen: {seen})\n\n");
    }
    text
}

#[cfg(all(test, feature = "gdb"))]
mod tests {
    use super::*;
    use vmm_core_defs::capability::CapabilityKind;
    use vmm_core_defs::capability::Support;

    #[test]
    fn each_row_says_whether_it_works_what_that_means_and_why() {
        let text = table(&Capabilities::from_iter([Capability {
            kind: CapabilityKind::SingleStep,
            support: Support::Works,
            seen: "one instruction".to_owned(),
        }]));
        assert_eq!(
            text,
            "yes  single step\n     `stepi`, `step` and `next` work.\n     (seen: one instruction)\n\n"
        );
    }

    #[test]
    fn what_the_host_lacks_and_the_runner_replaces_is_no_missing_thing() {
        let row = |support| {
            table(&Capabilities::from_iter([Capability {
                kind: CapabilityKind::InterruptsHeld,
                support,
                seen: "tried".to_owned(),
            }]))
        };
        let replaced = row(Support::Replaced);
        assert!(replaced.starts_with("yes  interrupts held"), "{replaced}");
        assert!(replaced.contains("sets an interrupt shadow"), "{replaced}");
        let missing = row(Support::NotOffered);
        assert!(missing.starts_with("NO   interrupts held"), "{missing}");
    }
}
