use crate::running::Running;
use crate::running::kvm_here;

#[test]
fn the_doctor_names_every_capability_with_its_meaning() {
    if !kvm_here() {
        return;
    }
    let ended = Running::start(&["doctor"]).finish();
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    let lines: Vec<_> = ended.output.lines().collect();
    for name in [
        "single step",
        "hardware execution breakpoints",
        "data watchpoints",
        "breakpoints and steps in 64-bit user code",
        "interrupts held while stepping",
    ] {
        let at = lines
            .iter()
            .position(|line| line.ends_with(name))
            .unwrap_or_else(|| panic!("{name}: {}", ended.output));
        assert!(
            lines[at].starts_with("yes  ") || lines[at].starts_with("NO   "),
            "{}",
            lines[at]
        );
        assert!(lines[at + 1].len() > 20, "no meaning: {}", ended.output);
        assert!(lines[at + 2].contains("(seen: "), "{}", ended.output);
    }
}
