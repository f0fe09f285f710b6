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

/// The vCPU prints. The guest stops only where a breakpoint says so, and what was printed before comes before the stop.
#[test]
fn a_dprintf_in_agent_style_prints_each_hit_in_order() {
    for cpus in ["1", "4"] {
        let Some(mut guest) = guest(&["--cpus", cpus]) else {
            return;
        };
        let text = gdb(
            &mut guest,
            &[
                "set dprintf-style agent",
                "dprintf do_round,\"CPU %d in round %lu\\n\", cpu->id, cpu->rounds",
                "break count_primes if cpus[0].rounds == 40",
                "continue",
                "p cpus[0].rounds",
                "monitor breakpoints",
                "detach",
            ],
        );
        let mut next = [0; 4];
        for line in text.lines() {
            let Some(told) = line.strip_prefix("CPU ") else {
                continue;
            };
            let words: Vec<_> = told.split(' ').collect();
            let (cpu, round) = (words[0], words[3]);
            let next = &mut next[cpu.parse::<usize>().unwrap()];
            assert_eq!(round.parse(), Ok(*next), "{cpus}: {text}");
            *next += 1;
        }
        let hits: u32 = next.iter().sum();
        assert!(hits > 40, "{next:?} {text}");
        let counted = format!("{hits} hits, of which {hits} did not stop");
        assert!(text.contains(&counted), "{counted}: {text}");
        let printed = text.rfind("\nCPU ").expect("the last");
        let stopped = text
            .find("hit Breakpoint 2, ")
            .or(text.find("Breakpoint 2, "));
        let stopped = stopped.expect("a stop");
        assert!(printed < stopped, "{text}");
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
