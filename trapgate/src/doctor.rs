//! `trapgate doctor`: what debugging can do on this host, found by trying.

use crate::exit_status::ExitStatus;
use crate::kvm_host::KvmHost;
use crate::probe_stub as probe;
use vmm_core_defs::debug_rpc::Capability;

/// Prints the table. Success is KVM being there: what does not work has its meaning in the table.
pub fn doctor() -> ExitStatus {
    let host = match KvmHost::open() {
        Ok(host) => host,
        Err(error) => {
            eprintln!("trapgate: {error}");
            return ExitStatus::BadInput;
        }
    };
    println!(
        "/dev/kvm works; guests may have up to {} CPUs.",
        host.max_vcpus
    );
    println!("Tried in a throw-away virtual machine:\n");
    match probe::run() {
        Ok(report) => {
            print!("{}", table(&report.capabilities()));
            ExitStatus::Success
        }
        Err(error) => {
            eprintln!("trapgate: the trial did not come to its end: {error}");
            ExitStatus::Failed
        }
    }
}

/// One paragraph for each capability: verdict and name, what was seen, what it means.
fn table(capabilities: &[Capability]) -> String {
    let width = capabilities
        .iter()
        .map(|capability| capability.name.chars().count())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for Capability {
        name,
        works,
        seen,
        meaning,
    } in capabilities
    {
        let verdict = if *works { "works" } else { "NO" };
        text += &format!(
            "{name:width$}  {verdict:5}  {seen}\n{:width$}         {meaning}\n",
            ""
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lines_up_and_says_what_a_missing_thing_means() {
        let capability = |name: &str, works| Capability {
            name: name.to_owned(),
            works,
            seen: "seen".to_owned(),
            meaning: "use hbreak".to_owned(),
        };
        let text = table(&[capability("single step", true), capability("INT3", false)]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "single step  works  seen");
        assert_eq!(lines[2], "INT3         NO     seen");
        assert_eq!(lines[3], "                    use hbreak");
    }
}
