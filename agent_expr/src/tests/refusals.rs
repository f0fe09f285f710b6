//! Code that is refused, and with what facts.

use super::push;
use crate::Expression;
use crate::FormatProblem;
use crate::Limits;
use crate::STACK_DEPTH;
use crate::VerifyError;
use std::string::ToString as _;
use std::vec::Vec;

fn refusal(code: &[u8]) -> VerifyError {
    Expression::verify(code, Limits::default()).expect_err("bad code")
}

#[test]
fn code_that_is_longer_than_the_limit() {
    let limits = Limits {
        bytes: 3,
        depth: 10,
    };
    assert!(Expression::verify(&[0x22, 1, 0x27], limits).is_ok());
    let (bytes, limit) = (4, 3);
    assert_eq!(
        Expression::verify(&[0x22, 1, 0x0e, 0x27], limits),
        Err(VerifyError::TooLong { bytes, limit })
    );
    // A target has 16 bits, whatever the limit says.
    let limits = Limits {
        bytes: usize::MAX,
        depth: 10,
    };
    let code = [0x27].repeat(65536);
    assert!(Expression::verify(&code, limits).is_ok());
    let (bytes, limit) = (65537, 65536);
    assert_eq!(
        Expression::verify(&[0x27].repeat(65537), limits),
        Err(VerifyError::TooLong { bytes, limit })
    );
}

#[test]
fn opcodes_that_nobody_knows() {
    for opcode in [0x00, 0x31, 0x35, 0x80, 0xff] {
        let offset = 2;
        assert_eq!(
            refusal(&[0x22, 1, opcode, 0x27]),
            VerifyError::UnknownOpcode { offset, opcode }
        );
    }
}

#[test]
fn floating_point() {
    for opcode in [0x01, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f] {
        let offset = 2;
        assert_eq!(
            refusal(&[0x22, 1, opcode, 0x27]),
            VerifyError::FloatingPoint { offset, opcode }
        );
    }
}

#[test]
fn operands_that_are_cut_off() {
    for (opcode, length) in [
        (0x0d, 1),
        (0x16, 1),
        (0x20, 2),
        (0x21, 2),
        (0x22, 1),
        (0x23, 2),
        (0x24, 4),
        (0x25, 8),
        (0x26, 2),
        (0x2a, 1),
        (0x2c, 2),
        (0x2d, 2),
        (0x2e, 2),
        (0x30, 2),
        (0x32, 1),
        (0x34, 3),
    ] {
        for length in 0..length {
            let mut code = Vec::from([0x22, 1, opcode]);
            code.resize(3 + length, 0);
            let offset = 2;
            assert_eq!(refusal(&code), VerifyError::Cut { offset, opcode });
        }
    }
    let (offset, opcode) = (4, 0x34);
    assert_eq!(
        refusal(&[0x22, 0, 0x22, 0, 0x34, 0, 0, 3, b'x', 0]),
        VerifyError::Cut { offset, opcode }
    );
}

#[test]
fn code_without_an_end() {
    assert_eq!(refusal(&[]), VerifyError::NoEnd { offset: 0 });
    assert_eq!(refusal(&[0x22, 1]), VerifyError::NoEnd { offset: 2 });
    // A conditional jump may not be taken.
    assert_eq!(
        refusal(&[0x22, 1, 0x20, 0, 0]),
        VerifyError::NoEnd { offset: 5 }
    );
}

#[test]
fn jumps_to_no_instruction() {
    for jump in [0x20, 0x21] {
        let refused = |target: u8| refusal(&[0x22, 1, jump, 0, target, 0x27]);
        let offset = 2;
        // Into a constant, into the jump itself, behind the code.
        for target in [1, 3, 4, 6, 200] {
            let target_error = VerifyError::Target {
                offset,
                target: target.into(),
            };
            assert_eq!(refused(target), target_error);
        }
    }
    // Also in code that no path leads to.
    let (offset, target) = (1, 9);
    assert_eq!(
        refusal(&[0x27, 0x21, 0, 9]),
        VerifyError::Target { offset, target }
    );
}

#[test]
fn an_empty_stack() {
    let needs = |needed, instruction: &[u8]| {
        for depth in 0..needed {
            let mut code = [0x22, 1].repeat(depth);
            let offset = code.len();
            code.extend(instruction);
            code.push(0x27);
            assert_eq!(
                refusal(&code),
                VerifyError::Underflow {
                    offset,
                    needed,
                    depth
                },
                "{instruction:02x?}"
            );
        }
    };
    for opcode in (0x02..=0x0c).chain(0x0f..=0x11).chain(0x13..=0x15) {
        needs(2, &[opcode]);
    }
    for opcode in [0x0e, 0x12, 0x17, 0x18, 0x19, 0x1a, 0x28, 0x29] {
        needs(1, &[opcode]);
    }
    for opcode in [0x0d, 0x16, 0x2a] {
        needs(1, &[opcode, 8]);
    }
    needs(1, &[0x2d, 0, 1]);
    needs(1, &[0x30, 0, 1]);
    needs(1, &[0x20, 0, 0]);
    needs(2, &[0x2b]);
    needs(2, &[0x2f]);
    needs(1, &[0x32, 0]);
    needs(4, &[0x32, 3]);
    needs(3, &[0x33]);
    needs(2, &[0x34, 0, 0, 1, 0]);
    needs(4, &[0x34, 2, 0, 5, b'%', b'd', b'%', b'x', 0]);
}

#[test]
fn a_stack_that_would_overflow() {
    let code = |depth| [push(0).repeat(depth), Vec::from([0x27])].concat();
    let limits = |depth| Limits { bytes: 4096, depth };
    assert!(Expression::verify(&code(5), limits(5)).is_ok());
    let (offset, depth, limit) = (45, 6, 5);
    let overflow = VerifyError::Overflow {
        offset,
        depth,
        limit,
    };
    assert_eq!(Expression::verify(&code(6), limits(5)), Err(overflow));
    // The evaluator has no more room, whatever the limit says.
    assert!(Expression::verify(&code(STACK_DEPTH), limits(usize::MAX)).is_ok());
    let refused = Expression::verify(&code(STACK_DEPTH + 1), limits(usize::MAX));
    assert!(matches!(refused, Err(VerifyError::Overflow { .. })));
    // In a loop.
    let overflow = refusal(&[0x22, 1, 0x21, 0, 0]);
    let (offset, one, other) = (0, 0, 1);
    assert_eq!(overflow, VerifyError::Depths { offset, one, other });
}

#[test]
fn paths_that_meet_with_different_depths() {
    // 0: const8 1, 2: if_goto 7, 5: const8 2, 7: end
    let (offset, one, other) = (7, 1, 0);
    let refused = refusal(&[0x22, 1, 0x20, 0, 7, 0x22, 2, 0x27]);
    assert_eq!(refused, VerifyError::Depths { offset, one, other });
}

#[test]
fn code_that_no_path_leads_to_has_no_depth() {
    // GDB emits none, and it does no harm.
    assert!(Expression::verify(&[0x27, 0x02, 0x27], Limits::default()).is_ok());
}

#[test]
fn a_printf_with_another_number_of_arguments() {
    for (given, wanted, format) in [(2, 1, &b"%d%%\0"[..]), (0, 1, b"%d%%\0"), (1, 0, b"%%..\0")] {
        let mut code = [0x22, 1].repeat(4);
        code.extend([0x34, given, 0, 5]);
        code.extend(format);
        code.push(0x27);
        assert_eq!(
            refusal(&code),
            VerifyError::Arguments {
                offset: 8,
                given: given.into(),
                wanted
            }
        );
    }
}

#[test]
fn a_format_that_cannot_be_printed() {
    let problem = |text: &[u8]| {
        let mut code = [0x22, 1].repeat(3);
        code.extend([0x34, 1, 0, u8::try_from(text.len()).expect("short")]);
        code.extend(text);
        code.push(0x27);
        match refusal(&code) {
            VerifyError::Format { offset, problem } => (offset - 10, problem),
            other => panic!("{other}"),
        }
    };
    assert_eq!(problem(b""), (0, FormatProblem::NotTerminated));
    assert_eq!(problem(b"%dx"), (3, FormatProblem::NotTerminated));
    assert_eq!(problem(b"%d\0x\0"), (2, FormatProblem::ZeroByte));
    for cut in [
        &b"ab%\0"[..],
        b"ab%-0\0",
        b"ab%5\0",
        b"ab%.\0",
        b"ab%ll\0",
        b"ab\\\0",
    ] {
        assert_eq!(problem(cut), (2, FormatProblem::Incomplete), "{cut:?}");
    }
    assert_eq!(problem(b"a\\q\0"), (1, FormatProblem::UnknownEscape(b'q')));
    assert_eq!(problem(b"\\x41\0"), (0, FormatProblem::UnknownEscape(b'x')));
    for (format, letter) in [
        (&b"%n\0"[..], b'n'),
        (b"%*d\0", b'*'),
        (b"%.*d\0", b'*'),
        (b"%lc\0", b'c'),
        (b"%ls\0", b's'),
        (b"%hhhd\0", b'h'),
        (b"%jd\0", b'j'),
        (b"%Ld\0", b'L'),
        (b"%5%\0", b'%'),
        (b"%\x80\0", 0x80),
    ] {
        let unknown = FormatProblem::UnknownConversion(letter);
        assert_eq!(problem(format), (0, unknown), "{format:?}");
    }
    for letter in *b"aAeEfFgG" {
        let floating = FormatProblem::FloatingPoint(letter);
        assert_eq!(problem(&[b'%', b'5', b'.', b'1', letter, 0]), (0, floating));
    }
    for format in [
        "%#u", "%+u", "% u", "%+o", "% x", "%+X", "%hc", "%+c", "% c", "%0c", "%.1c", "%zs", "%hs",
        "%+s", "% s", "%0s", "%zc", "%lp", "%hp", "%.1p", "%#p", "%0p", "%+p", "% p",
    ] {
        let letter = format.as_bytes()[format.len() - 1];
        let zero_terminated = [format.as_bytes(), b"\0"].concat();
        let expected = match format {
            // The length of a wide string or character.
            "%zs" | "%zc" => FormatProblem::UnknownConversion(letter),
            _ => FormatProblem::Modifiers(letter),
        };
        assert_eq!(problem(&zero_terminated), (0, expected), "{format}");
    }
    assert_eq!(problem(b"%1025d\0"), (0, FormatProblem::TooWide));
    assert_eq!(problem(b"%.1025d\0"), (0, FormatProblem::TooWide));
    let huge = b"%99999999999999999999999999d\0";
    assert_eq!(problem(huge), (0, FormatProblem::TooWide));
}

#[test]
fn refusals_name_the_facts() {
    for (code, text) in [
        (&[0x31][..], "offset 0: unknown opcode 0x31"),
        (
            &[0x01],
            "offset 0: opcode 0x01 is for floating-point numbers, which are not supported",
        ),
        (&[0x22], "offset 0: the operand of opcode 0x22 is cut off"),
        (&[], "offset 0: the code has no `end` here"),
        (
            &[0x21, 0, 5],
            "offset 0: the jump to 5 leads to no instruction",
        ),
        (
            &[0x02, 0x27],
            "offset 0: the instruction needs 2 values, and the stack has 0",
        ),
        (
            &[0x22, 1, 0x20, 0, 7, 0x22, 2, 0x27],
            "offset 7: the stack has 1 values on one path and 0 on another",
        ),
        (
            &[0x34, 0, 0, 0],
            "offset 4: the format has no zero byte at its end",
        ),
        (
            &[0x34, 7, 0, 1, 0],
            "offset 0: the `printf` has 7 arguments, and its format takes 0",
        ),
    ] {
        assert_eq!(refusal(code).to_string(), text);
    }
    assert_eq!(
        refusal(&[0x27].repeat(5000)).to_string(),
        "the code has 5000 bytes, more than 4096"
    );
    assert_eq!(
        refusal(&[push(1).repeat(101), Vec::from([0x27])].concat()).to_string(),
        "offset 900: the stack would have 101 values, more than 100"
    );
    for (problem, text) in [
        (
            FormatProblem::ZeroByte,
            "the format has a zero byte before its end",
        ),
        (FormatProblem::Incomplete, "the format ends too early"),
        (
            FormatProblem::UnknownEscape(b'q'),
            "unknown escape sequence `\\q`",
        ),
        (
            FormatProblem::UnknownConversion(b'\n'),
            "unknown conversion `\\n`",
        ),
        (
            FormatProblem::FloatingPoint(b'f'),
            "conversion `f` is for floating-point numbers, which are not supported",
        ),
        (
            FormatProblem::Modifiers(b'c'),
            "conversion `c` has a flag, a precision or a length that does not fit it",
        ),
        (
            FormatProblem::TooWide,
            "a width or precision is larger than 1024",
        ),
    ] {
        assert_eq!(problem.to_string(), text);
    }
}
