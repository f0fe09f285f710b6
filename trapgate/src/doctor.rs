//! `trapgate doctor`: what debugging can do on this host, found by trying.

use crate::complain;
use crate::exit_status::ExitStatus;
use crate::kvm_host::KvmHost;
use crate::say;
use vmm_core_defs::debug_rpc::Capability;
use vp_runner::probe;

/// Prints the table. Success is KVM being there: what does not work has its meaning in the table.
pub fn doctor() -> ExitStatus {
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
            ExitStatus::Success
        }
        Err(error) => {
            complain(&error);
            ExitStatus::Failed
        }
    }
}

/// One paragraph for each capability: verdict and name, what it means, what was seen.
fn table(capabilities: &[Capability]) -> String {
    let mut text = String::new();
    for Capability {
        name,
        works,
        seen,
        meaning,
    } in capabilities
    {
        let verdict = if *works { "yes" } else { "NO" };
        text += &format!("{verdict:3}  {name}\n     {meaning}\n     (seen: {seen})\n\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_says_whether_it_works_what_that_means_and_why() {
        let text = table(&[Capability {
            name: "INT3".to_owned(),
            works: false,
            seen: "the guest ran on".to_owned(),
            meaning: "use hbreak".to_owned(),
        }]);
        assert_eq!(
            text,
            "NO   INT3\n     use hbreak\n     (seen: the guest ran on)\n\n"
        );
    }
}
