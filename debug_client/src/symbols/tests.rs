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

/// The ELF file of a C program, built with these options.
fn compiled(source: &str, options: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, program) = (folder.path().join("a.c"), folder.path().join("a.elf"));
    std::fs::write(&file, source).expect("writable");
    let status = Command::new("cc")
        .args(["-g", "-fno-pic", "-shared", "-nostdlib", "-o"])
        .arg(&program)
        .args(options)
        .arg(&file)
        .status()
        .expect("a C compiler builds the demo guest too");
    assert!(status.success(), "{options:?}");
    std::fs::read(&program).expect("readable")
}

fn symbols_of(source: &str) -> Symbols {
    Symbols::parse(&compiled(source, &[])).expect("an ELF file")
}

/// Why a type is refused. A type that is not refused is not printed, because its text may have no end.
fn refusal(symbols: &Symbols, name: &str) -> SymbolsError {
    let parts = symbols.type_named(name).map(|of| of.parts);
    parts.expect_err(name)
}

/// The value of `SOURCE`, built with these options.
fn built(options: &[&str]) -> (Symbols, Vec<u8>) {
    let elf = compiled(SOURCE, options);
    let symbols = Symbols::parse(&elf).expect("an ELF file");
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

/// Each union has twice the parts of the one before, in one byte.
#[test]
fn a_type_whose_values_have_too_many_parts_is_refused_at_once() {
    let mut source = "union u0 { char c; };\n".to_owned();
    for level in 1..=40 {
        let inner = level - 1;
        source += &format!("union u{level} {{ union u{inner} a, b; }};\n");
    }
    source += "struct fan { union u10 a[1000]; };\nstruct list { union u10 a[100]; };\n";
    source += "union u40 u40; struct fan fan; struct list list;\n";
    let symbols = symbols_of(&source);
    let inner = symbols.type_named("union u10").expect("2047 members");
    let text = Value::decode(&inner, b"!").to_string();
    assert_eq!(text.matches("c = '!'").count(), 1 << 10);
    let list = symbols
        .type_named("struct list")
        .expect("100 times as many");
    let value = Value::decode(&list, &[b'?'; 100]);
    assert_eq!(value.to_string().matches("c = '?'").count(), 100 << 10);
    for name in ["union u40", "union u20", "struct fan"] {
        let error = refusal(&symbols, name);
        assert!(
            matches!(&error, SymbolsError::TooManyParts { .. }),
            "{error}"
        );
        let text = error.to_string();
        assert!(
            text.contains(&format!("`{name}` has more than 2097152 parts")),
            "{text}"
        );
    }
}

/// As many bytes as a value may have, as characters.
#[test]
fn a_type_of_the_greatest_size_is_read() {
    let source = "struct most { char text[(1 << 20) - 8]; long long end; } most;";
    let most = symbols_of(source).type_named("struct most").expect("1 MiB");
    let mut bytes = vec![b'x'; 1 << 20];
    bytes[(1 << 20) - 8..].copy_from_slice(&7_u64.to_le_bytes());
    let value = Value::decode(&most, &bytes);
    assert_eq!(value["end"].as_u64(), Some(7));
    assert!(value.to_string().ends_with("x\", end = 7}"));
}

/// The names are in the debug information once, and the members many times.
#[test]
fn an_enumeration_that_many_members_have_is_read_once() {
    let list = |count: u32, item: &dyn Fn(u32) -> String| (0..count).map(item).collect::<String>();
    let names = list(1500, &|number| format!("NAME_{number},"));
    let members = list(1500, &|number| format!("enum e e{number};"));
    let source = format!("enum e {{ {names} }}; struct many {{ {members} }} many;");
    let many = symbols_of(&source).type_named("struct many");
    let value = Value::decode(&many.expect("1500 members"), &[3; 6000]);
    assert_eq!(value["e1499"].as_u64(), Some(0x0303_0303));
    let value = Value::decode(
        &symbols_of(&source).type_named("enum e").expect("known"),
        &[7],
    );
    assert_eq!(value.to_string(), "NAME_7");
}

/// Each value has a copy of the name.
#[test]
fn long_names_count_as_parts() {
    let name = "N".repeat(4096);
    let source = format!(
        "enum __attribute__((packed)) e {{ {name} }};\nstruct names {{ enum e all[1 << 19]; }} names;\n\
         struct field {{ char {name}; }}; struct fields {{ struct field all[1 << 19]; }} fields;"
    );
    let symbols = symbols_of(&source);
    symbols.type_named("enum e").expect("one name");
    for name in ["struct names", "struct fields"] {
        let error = refusal(&symbols, name);
        assert!(
            matches!(error, SymbolsError::TooManyParts { .. }),
            "{error}"
        );
    }
}

#[test]
fn levels_have_a_limit() {
    let mut source = "struct s0 { char c; };\n".to_owned();
    for level in 1..=80 {
        let inner = level - 1;
        source += &format!("struct s{level} {{ struct s{inner} a; }};\n");
    }
    let dimensions = "[1]".repeat(100);
    source += &format!("struct s80 s80; struct array {{ char all{dimensions}; }} array;\n");
    let symbols = symbols_of(&source);
    symbols.type_named("struct s50").expect("51 levels");
    for name in ["struct s80", "struct array"] {
        let error = refusal(&symbols, name);
        assert!(matches!(error, SymbolsError::TooDeep { .. }), "{error}");
        assert!(error.to_string().contains("more than 64 levels"), "{error}");
    }
}

/// No C program has such a type. A pointer in the debug information is made a `const`, so that the structure contains itself twice.
#[test]
fn a_type_that_contains_itself_is_refused_at_once() {
    let source = "struct a { struct a *x; const struct a *y; } a;";
    let mut elf = compiled(source, &["-gdwarf-4"]);
    let file = object::File::parse(&*elf).expect("an ELF file");
    let abbreviations = file.section_by_name(".debug_abbrev").expect("DWARF");
    let (at, len) = abbreviations.file_range().expect("bytes");
    let at = usize::try_from(at).unwrap();
    let bytes = &mut elf[at..][..usize::try_from(len).unwrap()];
    let (pointer, constant) = (gimli::DW_TAG_pointer_type, gimli::DW_TAG_const_type);
    // The tag, no children, and the first attribute: the number of bytes, or of clang the type.
    let is_pointer = |bytes: &[u8]| {
        bytes[..2] == [u8::try_from(pointer.0).unwrap(), 0] && [0x0b, 0x49].contains(&bytes[2])
    };
    let found: Vec<_> = (0..bytes.len() - 2)
        .filter(|at| is_pointer(&bytes[*at..]))
        .collect();
    let [at] = found[..] else {
        panic!("the abbreviation of a pointer is at {found:?}");
    };
    bytes[at] = u8::try_from(constant.0).unwrap();
    let symbols = Symbols::parse(&elf).expect("an ELF file");
    let error = refusal(&symbols, "struct a");
    assert!(error.to_string().contains("contains itself"), "{error}");
}

/// GCC's C++ has a static member of the own type as a member that is declared only.
#[test]
fn a_static_member_is_no_part_of_a_value() {
    let source = "struct a { int n; static a zero; }; a one = {1};";
    let options = ["-gdwarf-4", "-x", "c++"];
    let probe = Command::new("cc")
        .args(["-x", "c++", "-fsyntax-only", "/dev/null"])
        .output();
    if !probe.is_ok_and(|output| output.status.success()) {
        println!("SKIP: cc compiles no C++ here; install g++");
        return;
    }
    let symbols = Symbols::parse(&compiled(source, &options)).expect("an ELF file");
    let of = symbols.type_named("struct a").expect("a type");
    assert_eq!(Value::decode(&of, &[1, 0, 0, 0]).to_string(), "{n = 1}");
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
