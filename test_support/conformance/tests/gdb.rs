//! The same promises with GDB scripts, against any VMM. `test_machine::any_vmm` says how to name one.

use test_machine::amount::is_nested;
use test_machine::any_vmm::*;
use test_machine::gdb_client::gdb_here;
use test_machine::gdb_client::start_gdb;
use test_machine::running::Ended;

/// The output of GDB for `commands`.
fn gdb(vmm: &Vmm, commands: &str) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = folder.path().join("script.gdb");
    std::fs::write(&script, commands).expect("room for a small file");
    let line = format!("gdb -ex 'target remote {}' {}", vmm.address, vmm.guest);
    let Ended { code, output } =
        start_gdb(&line, &[&format!("source {}", script.display())]).finish();
    assert_eq!(code, Some(0), "{output}");
    output
}

fn continues_advance_by_one_turn(command: &str) {
    if !gdb_here() {
        return;
    }
    let Some(vmm) = Vmm::start() else {
        return;
    };
    let continues = if is_nested() { 50 } else { 1_000 };
    let text = gdb(
        &vmm,
        &format!(
            "{command} *&site
continue
set $first = $rbx
set $done = 0
while $done < {continues}
  continue
  set $done = $done + 1
  if $rbx != $first + $done || $pc != (unsigned long) &site
    printf \"slipped at %d: at %#lx after %lu turns\\n\", $done, $pc, $rbx - $first
    set $done = {continues} + 1
  end
end
printf \"%d continues, %lu turns, %lu ticks\\n\", $done, $rbx - $first, *(unsigned long *) &ticks
detach
"
        ),
    );
    let expected = format!("\n{continues} continues, {continues} turns, ");
    let Some((_, ticks)) = text.split_once(&expected) else {
        let end: Vec<&str> = text.lines().rev().take(20).collect();
        panic!(
            "no `{}` in GDB's text, which ends (last line first):\n{}",
            expected.trim(),
            end.join("\n")
        );
    };
    println!(
        "{continues} continues, {}",
        ticks.lines().next().unwrap_or_default()
    );
}

#[test]
fn a_thousand_continues_of_gdb_over_its_software_breakpoint_advance_one_turn_each() {
    continues_advance_by_one_turn("break");
}

#[test]
fn a_thousand_continues_of_gdb_over_its_hardware_breakpoint_advance_one_turn_each() {
    continues_advance_by_one_turn("hbreak");
}
