//! Code that real GDBs made of expressions in C, C++ and Rust, and of dprintfs and tracepoints, beside what these GDBs say that the result is. `recorded/recorded.txt` was written by
//! `recorded/record.py`; the test needs no GDB.

mod world;

use agent_expr::Cause;
use agent_expr::Expression;
use agent_expr::Limits;
use agent_expr::Steps;
use std::collections::BTreeSet;
use world::Traced;
use world::World;

const RECORDED: &str = include_str!("recorded/recorded.txt");

/// No code here takes more.
const STEPS: Steps = Steps(500);

/// One expression in one program at one place.
struct Case {
    world: World,
    /// What the expression is for: the first word of its line.
    kind: &'static str,
    text: &'static str,
    gives: &'static str,
    /// The code, and the versions of GDB that make it.
    codes: Vec<(Vec<u8>, &'static str)>,
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits = hex.as_bytes().chunks(2);
    let pair = |pair: &[u8]| {
        let pair = std::str::from_utf8(pair).expect("ASCII");
        u8::from_str_radix(pair, 16).expect("hexadecimal")
    };
    digits.map(pair).collect()
}

fn number(hex: &str) -> u64 {
    u64::from_str_radix(hex, 16).expect("a hexadecimal number")
}

fn cases() -> Vec<Case> {
    let mut world = World::default();
    let mut cases: Vec<Case> = Vec::new();
    for line in RECORDED.lines().filter(|line| !line.starts_with('#')) {
        let (word, rest) = line.split_once(' ').expect("a word");
        match (word, rest.split_once(' ')) {
            ("stop", _) => {
                world = World {
                    has_buffer: true,
                    ..World::default()
                }
            }
            ("register", Some((index, value))) => {
                let index = index.parse().expect("a number");
                world.registers.insert(index, number(value));
            }
            ("memory", Some((start, content))) => {
                world.memory.push((number(start), bytes(content)));
            }
            ("gives", _) => cases.last_mut().expect("a case").gives = rest,
            ("code", Some((code, versions))) => {
                let codes = &mut cases.last_mut().expect("a case").codes;
                codes.push((bytes(code), versions));
            }
            (kind @ ("case" | "wrong" | "printf" | "trace" | "string"), _) => cases.push(Case {
                world: world.clone(),
                kind,
                text: rest,
                gives: "",
                codes: Vec::new(),
            }),
            _ => panic!("unknown line: {line}"),
        }
    }
    cases
}

/// Calls the check with each code of these kinds; it has to accept the facts.
fn check(kinds: &[&str], at_least: usize, check: impl Fn(&Case, &Expression, World)) {
    let cases = cases();
    let chosen = cases.iter().filter(|case| kinds.contains(&case.kind));
    let mut count = 0;
    for case in chosen {
        for (code, versions) in &case.codes {
            println!("GDB {versions}: {}", case.text);
            let expression = Expression::verify(code, Limits::default()).expect("code of GDB");
            check(case, &expression, case.world.clone());
            count += 1;
        }
    }
    assert!(count >= at_least, "only {count} codes");
}

#[test]
fn a_condition_has_the_value_that_gdb_says() {
    check(&["case"], 80, |case, expression, mut world| {
        let expected: i64 = case.gives.parse().expect("a decimal number");
        assert!(expression.has_value());
        let value = expression.evaluate(&mut world, STEPS);
        assert_eq!(value, Ok(Some(expected.cast_unsigned())));
    });
}

/// GDB cuts the stack pointer to the width of the variable that lies on the stack, if the debug information gives the place of the variable by the stack pointer.
#[test]
fn an_address_that_gdb_cuts_is_an_error() {
    check(&["wrong"], 3, |_, expression, mut world| {
        let error = expression.evaluate(&mut world, STEPS);
        let cause = error.expect_err("no memory there").cause;
        let Cause::Unreadable { address, length: 1 } = cause else {
            panic!("{cause}");
        };
        assert!(address < 0x200, "{address:#x}");
    });
}

#[test]
fn a_dprintf_prints_what_the_printf_of_gdb_prints() {
    check(&["printf"], 12, |case, expression, mut world| {
        assert!(!expression.has_value());
        assert_eq!(expression.evaluate(&mut world, STEPS), Ok(None));
        let printed = String::from_utf8(world.printed).expect("ASCII");
        let expected = String::from_utf8(bytes(case.gives)).expect("ASCII");
        assert_eq!(printed, expected);
    });
}

#[test]
fn a_tracepoint_records_the_object_that_it_names() {
    check(&["trace", "string"], 6, |case, expression, mut world| {
        expression.evaluate(&mut world, STEPS).expect("recordable");
        let (address, length) = case.gives.split_once(' ').expect("an area");
        let (address, length) = (number(address), number(length));
        let found = world.traced.iter().any(|traced| match *traced {
            Traced::Memory(at, size) => case.kind == "trace" && (at, size) == (address, length),
            // GDB gives a limit of its own.
            Traced::Text(at, limit) => case.kind == "string" && at == address && limit >= length,
            Traced::Variable(_) => false,
        });
        assert!(found, "{:x?}", world.traced);
    });
}

#[test]
fn the_record_is_of_three_gdbs() {
    let cases = cases();
    let codes = cases.iter().flat_map(|case| &case.codes);
    let versions: BTreeSet<_> = codes
        .flat_map(|(_, versions)| versions.split(' '))
        .collect();
    assert_eq!(versions.len(), 3, "{versions:?}");
}
