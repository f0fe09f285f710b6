//! Symbols, lines and types of programs that a C compiler has built here.

use super::Symbols;
use super::SymbolsError;
use super::Value;
use object::Object as _;
use object::ObjectSection as _;
use std::process::Command;

fn demo() -> Symbols {
    Symbols::parse(demo_guest::ELF).expect("an ELF file")
}

#[test]
fn the_demo_guests_names_and_lines_are_known() {
    let demo = demo();
    let function = demo.address("do_round").expect("a function");
    assert_eq!(demo.function(function), Some(("do_round", 0)));
    assert_eq!(demo.function(function + 1), Some(("do_round", 1)));
    let line = demo.line(function).expect("debug information");
    assert!(line.file.ends_with("main.c"), "{line}");
    assert!((70..80).contains(&line.line), "{line}");
    assert_eq!(demo.function(0), None);
    assert_eq!(demo.line(0), None);
    assert!(matches!(
        demo.address("no_such"),
        Err(SymbolsError::NoSuchSymbol(_))
    ));
}

#[test]
fn what_is_no_elf_file_is_refused_in_words() {
    for bytes in [&b""[..], b"#!/bin/sh\n", &demo_guest::ELF[..100]] {
        let error = Symbols::parse(bytes).expect_err("refused").to_string();
        assert!(error.contains("uncompressed ELF file"), "{error}");
    }
    let error = demo().type_named("struct gpu").expect_err("refused");
    assert!(matches!(error, SymbolsError::NoSuchType(_)), "{error}");
}

const SOURCE: &str = r#"
typedef unsigned char u8;
enum state { IDLE, BUSY = 7, BROKEN = -1 };
struct all {
    signed short negative;
    const volatile unsigned long long big;
    _Bool yes;
    char name[8];
    enum state state, broken;
    unsigned low : 3, middle : 7;
    int minus : 5;
    struct { u8 inner; union { unsigned word; u8 bytes[4]; }; };
    short matrix[2][3];
    double number;
    float half;
    struct all *next;
    void (*call)(void);
    char flexible[];
};
typedef struct all all_t;
all_t value = {
    .negative = -2, .big = 0xfedcba9876543210, .yes = 1, .name = "cpu0", .state = BUSY, .broken = BROKEN,
    .low = 5, .middle = 100, .minus = -3, .inner = 9, .word = 0x04030201,
    .matrix = {{1, 2, 3}, {4, 5, 6}}, .number = 1.5, .half = 0.5, .next = (struct all *)0x1234,
};
struct huge { char bytes[2 << 20]; } *huge;
"#;

/// The value of `SOURCE`, built with these options.
fn built(options: &[&str]) -> (Symbols, Vec<u8>) {
    let folder = tempfile::tempdir().expect("a folder");
    let (source, program) = (folder.path().join("a.c"), folder.path().join("a.elf"));
    std::fs::write(&source, SOURCE).expect("writable");
    let status = Command::new("cc")
        .args(["-g", "-fno-pic", "-shared", "-nostdlib", "-o"])
        .arg(&program)
        .arg(&source)
        .args(options)
        .status()
        .expect("a C compiler builds the demo guest too");
    assert!(status.success(), "{options:?}");
    let elf = std::fs::read(&program).expect("readable");
    let symbols = Symbols::load(&program).expect("an ELF file");
    let file = object::File::parse(&*elf).expect("an ELF file");
    let data = file.section_by_name(".data").expect("data");
    let at = symbols.address("value").expect("a symbol") - data.address();
    let bytes = data.data().expect("data")[usize::try_from(at).unwrap()..].to_vec();
    (symbols, bytes)
}

#[test]
fn a_structure_is_read_as_c_has_written_it() {
    for options in [
        &["-gdwarf-3"][..],
        &["-gdwarf-4"],
        &["-gdwarf-5"],
        &["-gdwarf-5", "-O2"],
    ] {
        let (symbols, bytes) = built(options);
        for name in ["struct all", "all_t"] {
            let of = symbols.type_named(name).expect(name);
            let value = Value::decode(&of, &bytes);
            assert_eq!(
                value.to_string(),
                "{negative = -2, big = 18364758544493064720, yes = true, name = \"cpu0\", state = BUSY, broken = BROKEN, low = 5, middle = 100, \
                 minus = -3, {inner = '\\t', {word = 67305985, bytes = {'\\u{1}', '\\u{2}', '\\u{3}', '\\u{4}'}}}, matrix = {{1, 2, 3}, {4, 5, 6}}, \
                 number = 1.5, half = 0.5, next = 0x1234, call = 0x0, flexible = {}}"
                    .replace("{'\\u{1}', '\\u{2}', '\\u{3}', '\\u{4}'}", "\"\\u{1}\\u{2}\\u{3}\\u{4}\""),
                "{options:?}"
            );
            // Members of anonymous structures and unions are those of the outer one.
            assert_eq!(value["word"].as_u64(), Some(0x0403_0201));
            assert_eq!(value["matrix"][1][2].as_i64(), Some(6));
            assert_eq!(value["negative"].as_i64(), Some(-2));
            assert_eq!(value["negative"].as_u64(), None);
            assert_eq!(value["name"].as_text().as_deref(), Some("cpu0"));
            assert_eq!(value.get("no_such"), None);
            assert_eq!(value["matrix"].element(2), None);
        }
        let state = symbols.type_named("enum state").expect("an enumeration");
        assert_eq!(Value::decode(&state, &[3, 0, 0, 0]).to_string(), "3");
        let huge = symbols.type_named("struct huge").expect_err("too big");
        assert!(matches!(huge, SymbolsError::TooBig { .. }), "{huge}");
    }
}

#[test]
#[should_panic(expected = "no member `ticks`: {a = 1}")]
fn a_missing_member_is_named_by_the_panic() {
    let value = Value::Struct(vec![super::Field {
        name: "a".to_owned(),
        value: Value::Integer(1),
    }]);
    let _ = &value["ticks"];
}
