//! What `printf` puts out. The expected texts are those of C; `tests/recorded.rs` has more of them, from GDB.

use super::push;
use super::verified;
use crate::Cause;
use crate::EvaluationError;
use crate::Expr;
use crate::Limits;
use crate::Printf;
use crate::STRING_MAX;
use crate::Steps;
use crate::VerifyError;
use crate::world::World;
use std::string::String;
use std::vec::Vec;

/// Code that prints the arguments, the first of which is on top.
fn code(format: &str, arguments: &[u64]) -> Vec<u8> {
    let mut code: Vec<u8> = arguments
        .iter()
        .rev()
        .flat_map(|&value| push(value))
        .collect();
    code.extend(push(0).repeat(2));
    code.extend([0x34, u8::try_from(arguments.len()).expect("few")]);
    code.extend(
        u16::try_from(format.len() + 1)
            .expect("short")
            .to_be_bytes(),
    );
    code.extend(format.as_bytes());
    code.extend([0, 0x27]);
    code
}

#[test]
fn the_builder_emits_code_that_prints_its_values_in_order() {
    let values = [5, 0x1234, 7].map(Expr::constant);
    let text = Printf::new("%d %#lx %c\n", values);
    let assembled = text.assemble(Limits::default()).unwrap();
    let mut world = with_bytes(b"");
    assembled.evaluate(&mut world, Steps(100)).unwrap();
    assert_eq!(world.printed, b"5 0x1234 \x07\n");
    let plain = Printf::new("no value\n", []).assemble(Limits::default());
    assert!(!plain.unwrap().has_value());
}

#[test]
fn the_builder_refuses_values_that_do_not_match_and_formats_that_are_wrong() {
    let zeros = |count| (0..count).map(|_| Expr::constant(0));
    let refused = |format: &str, values| {
        Printf::new(format, zeros(values))
            .assemble(Limits::default())
            .unwrap_err()
    };
    for (format, values) in [("%d", 0), ("%d", 2), ("", 1)] {
        assert!(
            matches!(refused(format, values), VerifyError::Arguments { .. }),
            "{format}"
        );
    }
    assert!(matches!(refused("%n", 1), VerifyError::Format { .. }));
    assert!(matches!(refused("a\0b", 0), VerifyError::Format { .. }));
    // As many conversions as the operand can count, and one value more.
    let _ = refused(&"%d".repeat(255), 256);
    let _ = refused(&"x".repeat(70_000), 0);
}

fn print_in(world: &mut World, format: &str, arguments: &[u64]) -> Result<String, EvaluationError> {
    verified(&code(format, arguments)).evaluate(world, Steps(20_000))?;
    Ok(String::from_utf8(std::mem::take(&mut world.printed)).expect("ASCII"))
}

/// A guest with these bytes at 0x2000, other bytes in the rest of their block, and nothing behind it.
fn with_bytes(bytes: &[u8]) -> World {
    let mut bytes = Vec::from(bytes);
    bytes.resize(bytes.len().next_multiple_of(64), b'!');
    World {
        memory: [(0x2000, bytes)].into(),
        has_buffer: true,
        ..World::default()
    }
}

#[test]
fn numbers_are_as_wide_as_their_conversion_says() {
    let minus_5 = (-5_i64).cast_unsigned();
    let large = 0x1234_5678_9abc_def0;
    for (format, argument, text) in [
        ("%d", minus_5, "-5"),
        ("%i", minus_5, "-5"),
        ("%d", 0xffff_fffe, "-2"),
        ("%d", 1 << 32, "0"),
        ("%hd", 0x1_8000, "-32768"),
        ("%hhd", 0x1ff, "-1"),
        ("%hhx", 0x1ff, "ff"),
        ("%ld", 0xffff_fffe, "4294967294"),
        ("%lld", minus_5, "-5"),
        ("%zd", minus_5, "-5"),
        ("%ld", 1 << 63, "-9223372036854775808"),
        ("%hd", 0x1_8000, "-32768"),
        ("%hu", 0x1_8000, "32768"),
        ("%u", minus_5, "4294967291"),
        ("%lu", minus_5, "18446744073709551611"),
        ("%x", large, "9abcdef0"),
        ("%lx", large, "123456789abcdef0"),
        ("%llX", large, "123456789ABCDEF0"),
        ("%zx", large, "123456789abcdef0"),
        ("%hx", large, "def0"),
        ("%o", 8, "10"),
        ("%lo", u64::MAX, "1777777777777777777777"),
        ("%p", large, "0x123456789abcdef0"),
        ("%p", 0, "(nil)"),
        ("%c", 0x141, "A"),
    ] {
        let printed = print_in(&mut with_bytes(b""), format, &[argument]);
        assert_eq!(printed.as_deref(), Ok(text), "{format}");
    }
}

#[test]
fn flags_width_and_precision() {
    for (format, argument, text) in [
        ("[%5d]", 42, "[   42]"),
        ("[%-5d]", 42, "[42   ]"),
        ("[%05d]", 42, "[00042]"),
        ("[%-05d]", 42, "[42   ]"),
        ("[%1d]", 42, "[42]"),
        ("[%+d]", 42, "[+42]"),
        ("[% d]", 42, "[ 42]"),
        ("[%+ d]", 42, "[+42]"),
        ("[%+05d]", 42, "[+0042]"),
        ("[%+5d]", 42, "[  +42]"),
        ("[%-+5d]", 42, "[+42  ]"),
        ("[%.4d]", 42, "[0042]"),
        ("[%6.4d]", 42, "[  0042]"),
        ("[%06.4d]", 42, "[  0042]"),
        ("[%-6.4d]", 42, "[0042  ]"),
        ("[%.0d]", 42, "[42]"),
        ("[%.0d]", 0, "[]"),
        ("[%.d]", 0, "[]"),
        ("[%3.0d]", 0, "[   ]"),
        ("[%+.0d]", 0, "[+]"),
        ("[%#x]", 42, "[0x2a]"),
        ("[%#X]", 42, "[0X2A]"),
        ("[%#x]", 0, "[0]"),
        ("[%#X]", 0, "[0]"),
        ("[%#8x]", 42, "[    0x2a]"),
        ("[%#08x]", 42, "[0x00002a]"),
        ("[%-#8x]", 42, "[0x2a    ]"),
        ("[%#.4x]", 42, "[0x002a]"),
        ("[%#o]", 42, "[052]"),
        ("[%#o]", 0, "[0]"),
        ("[%#.0o]", 0, "[0]"),
        ("[%.0o]", 0, "[]"),
        ("[%#.2o]", 42, "[052]"),
        ("[%#.4o]", 42, "[0052]"),
        ("[%#5o]", 42, "[  052]"),
        ("[%3c]", 65, "[  A]"),
        ("[%-3c]", 65, "[A  ]"),
        ("[%8p]", 0x1f, "[    0x1f]"),
        ("[%-8p]", 0x1f, "[0x1f    ]"),
        ("[%8p]", 0, "[   (nil)]"),
        ("[%40d]", 7, "[                                       7]"),
    ] {
        let printed = print_in(&mut with_bytes(b""), format, &[argument]);
        assert_eq!(printed.as_deref(), Ok(text), "{format}");
    }
    let wide = print_in(&mut with_bytes(b""), "%1024d", &[7]).expect("wide");
    assert_eq!(wide, std::format!("{:1024}", 7));
}

#[test]
fn text_between_conversions() {
    let mut world = with_bytes(b"");
    let printed = print_in(&mut world, "a%db%dc", &[1, 2]);
    assert_eq!(printed.as_deref(), Ok("a1b2c"));
    let printed = print_in(&mut world, "%d%d", &[1, 2]);
    assert_eq!(printed.as_deref(), Ok("12"));
    let printed = print_in(&mut world, "", &[]);
    assert_eq!(printed.as_deref(), Ok(""));
    let printed = print_in(&mut world, r#"100%%\\\"\a\b\e\f\n\r\t\v%%"#, &[]);
    assert_eq!(
        printed.as_deref(),
        Ok("100%\\\"\x07\x08\x1b\x0c\n\r\t\x0b%")
    );
}

#[test]
fn strings() {
    let mut world = with_bytes(b"trapgate\0more");
    for (format, address, text) in [
        ("[%s]", 0x2000, "[trapgate]"),
        ("[%s]", 0x2004, "[gate]"),
        ("[%s]", 0x2008, "[]"),
        ("[%10s]", 0x2000, "[  trapgate]"),
        ("[%-10s]", 0x2000, "[trapgate  ]"),
        ("[%.4s]", 0x2000, "[trap]"),
        ("[%6.2s]", 0x2000, "[    tr]"),
        ("[%.0s]", 0x2000, "[]"),
        ("[%.4s]", 0x2009, "[more]"),
        ("[%s]", 0, "[(null)]"),
        ("[%8s]", 0, "[  (null)]"),
        ("[%.3s]", 0, "[(nu]"),
        // No byte is read.
        ("[%.0s]", 0x9999, "[]"),
    ] {
        let printed = print_in(&mut world, format, &[address]);
        assert_eq!(printed.as_deref(), Ok(text), "{format}");
    }
}

#[test]
fn a_string_is_read_in_blocks_that_end_where_a_page_may_end() {
    let mut bytes = [b'x'; 0x1000];
    *bytes.last_mut().expect("not empty") = 0;
    let mut world = with_bytes(&bytes);
    // The string ends with the memory.
    let printed = print_in(&mut world, "%s", &[0x2f70]).expect("readable");
    assert_eq!(printed.len(), 0x8f);
    assert_eq!(
        world.reads,
        [(0x2f70, 0x10), (0x2f80, 0x40), (0x2fc0, 0x40)]
    );
}

#[test]
fn a_string_without_an_end_is_cut_off() {
    let mut world = with_bytes(&[b'x'; 2 * STRING_MAX]);
    let printed = print_in(&mut world, "%s", &[0x2001]).expect("readable");
    assert_eq!(printed.len(), STRING_MAX);
    let printed = print_in(&mut world, "%.1024s|", &[0x2001]).expect("readable");
    assert_eq!(printed.len(), STRING_MAX + 1);
    // The next block is behind the memory.
    let (address, length) = (0x2000 + 2 * STRING_MAX as u64, 64);
    let error = print_in(&mut world, "%s", &[address - 3]).expect_err("no end");
    assert_eq!(error.cause, Cause::Unreadable { address, length });
}

#[test]
fn each_byte_of_output_takes_a_step() {
    // 3 numbers, `printf` and `end` are 5 instructions.
    let code = verified(&code("ab%5d", &[1]));
    let mut world = with_bytes(b"");
    assert_eq!(code.evaluate(&mut world, Steps(5 + 7)), Ok(None));
    let error = code.evaluate(&mut world, Steps(3 + 1 + 6));
    assert_eq!(error.expect_err("one less").cause, Cause::OutOfSteps);
}
