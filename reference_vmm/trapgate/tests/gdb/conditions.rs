//! Conditions, which the vCPU that reaches the breakpoint evaluates.

use crate::gdb_client::gdb;
use crate::gdb_client::guest;
use crate::gdb_client::in_order;

#[test]
fn a_condition_of_gdb_is_evaluated_by_each_vcpu_that_reaches_the_breakpoint() {
    const STOPS: usize = 12;
    for command in ["break", "hbreak"] {
        let Some(mut guest) = guest(&["--cpus", "4"]) else {
            return;
        };
        let set = format!("{command} do_round if cpu->rounds % 16 == 5 && cpus_online == 4");
        let mut commands = vec![set.as_str()];
        for _ in 0..STOPS {
            commands.extend(["continue", "p cpu->rounds % 16"]);
        }
        commands.extend([
            "info breakpoints",
            "monitor breakpoints",
            "delete",
            "detach",
        ]);
        let text = gdb(&mut guest, &commands);
        assert_eq!(text.matches(" = 5\n").count(), STOPS, "{command}: {text}");
        assert!(text.contains("target evals"), "{command}: {text}");
        assert!(text.contains(" did not stop; "), "{command}: {text}");
        let times = format!("already hit {STOPS} times");
        assert!(text.contains(&times), "{command}: {text}");
    }
}

/// GDB compiles each of these to something else than it means.
#[test]
fn a_condition_that_gdb_compiles_wrongly_is_evaluated_by_gdb() {
    for condition in [
        "$rip == &do_round && cpu->rounds == 3",
        "(1 << (cpu->rounds + 28)) < 0",
    ] {
        let Some(mut guest) = guest(&["--cpus", "1"]) else {
            return;
        };
        let set = format!("break do_round if {condition}");
        let text = gdb(
            &mut guest,
            &[
                &set,
                "tbreak do_round if cpu->rounds == 9",
                "continue",
                "p cpu->rounds",
                "detach",
            ],
        );
        assert!(text.contains("$1 = 3\n"), "{condition}: {text}");
    }
}

/// GDB evaluates the condition again at the stop, and says what is wrong.
#[test]
fn a_condition_with_memory_that_is_not_there_is_a_stop() {
    let Some(mut guest) = guest(&["--cpus", "2"]) else {
        return;
    };
    let text = gdb(
        &mut guest,
        &[
            "break do_round if *(int *)0xffff800000000000 == 1",
            "continue",
            "p $pc == &do_round || 1",
            "detach",
        ],
    );
    in_order(
        &text,
        &["Error in testing", "Cannot access memory", "$1 = "],
    );
}
