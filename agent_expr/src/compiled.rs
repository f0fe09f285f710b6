//! Code of GDB's that does not compute what the user has written (seen with GDB 13 to 18). The client has to evaluate such an expression itself.

use crate::Expression;
use crate::instruction::Binary;
use crate::instruction::Instruction;

impl Expression {
    /// Whether the code cuts the value of such a register to fewer than 64 bits: GDB cuts a register that holds an address to the width of the variable at that address.
    pub fn cuts_register(&self, of: impl Fn(u16) -> bool) -> bool {
        self.instructions().windows(2).any(|two| match two {
            [
                Instruction::Reg(number),
                Instruction::Ext(bits) | Instruction::ZeroExt(bits),
            ] => *bits < 64 && of(*number),
            _ => false,
        })
    }

    /// Whether the code shifts. GDB converts both operands of a shift to one type, so a shift of an `int` by an `unsigned long` has another result than in C.
    pub fn shifts(&self) -> bool {
        let mut instructions = self.instructions().iter();
        instructions.any(|instruction| {
            matches!(
                instruction,
                Instruction::Binary(Binary::Lsh | Binary::RshSigned | Binary::RshUnsigned)
            )
        })
    }

    /// Whether the code has a 0 that may stand for the address of a function, which GDB compiles to 0: `$rip == &f`. A 0 that was converted to another type is a number, and so
    /// is one that is compared with fewer than 64 bits, and the value of a condition.
    pub fn has_zero_for_function(&self) -> bool {
        let instructions = self.instructions();
        instructions.iter().enumerate().any(|(index, zero)| {
            let before = index
                .checked_sub(1)
                .and_then(|before| instructions.get(before));
            let behind = instructions.get(index + 1);
            let is_number = match behind {
                Some(
                    Instruction::Ext(_)
                    | Instruction::ZeroExt(_)
                    | Instruction::IfGoto(_)
                    | Instruction::Goto(_)
                    | Instruction::End
                    | Instruction::Printf(_),
                ) => true,
                // The function and the channel of `printf`.
                Some(Instruction::Const(0)) => {
                    matches!(instructions.get(index + 2), Some(Instruction::Printf(_)))
                }
                // The first element of an array: 0 times the size of an element.
                Some(Instruction::Const(_)) => {
                    let behind = instructions.get(index + 2);
                    matches!(behind, Some(Instruction::Binary(Binary::Mul)))
                }
                _ => false,
            };
            // The value of `a && b`, `a || b` or `a ? b : 0`, which a jump leads to.
            let is_jumped_to = matches!(before, Some(Instruction::Goto(_)));
            let is_narrow = match before {
                Some(Instruction::Ext(bits) | Instruction::ZeroExt(bits)) => *bits < 64,
                Some(Instruction::Ref(bytes)) => *bytes < 8,
                _ => false,
            };
            *zero == Instruction::Const(0) && !is_number && !is_narrow && !is_jumped_to
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::Expression;
    use crate::Limits;

    fn code(hex: &str) -> Expression {
        let digits: std::vec::Vec<u8> = hex.bytes().filter(|byte| *byte != b' ').collect();
        let bytes: std::vec::Vec<u8> = digits
            .chunks(2)
            .map(|two| u8::from_str_radix(core::str::from_utf8(two).unwrap(), 16).unwrap())
            .collect();
        Expression::verify(&bytes, Limits::default()).unwrap()
    }

    /// With the code that GDB 13.1 makes of each expression (`maint agent-eval`).
    #[test]
    fn the_address_of_a_function_is_told_from_a_number_where_that_is_possible() {
        for (hex, wanted) in [
            // `$rip == &do_round`, `&do_round == $rip`, and `$rip == (long)&do_round`, which is like the first.
            ("260010 2a40 2200 13 27", true),
            ("2200 260010 2a40 13 27", true),
            // `cpu == 0` and `$rax == 0` look the same.
            ("260005 2a40 2200 13 27", true),
            ("260000 1640 2200 13 27", true),
            ("260000 1640 2200 2b 14 27", true),
            // `cpu->rounds == 0`, `cpu->id == 0`, `(char)cpu->id == 0`, a `bool` of 8 bits.
            ("260005 2a40 2210 02 1a 2200 2a40 13 27", false),
            ("260005 2a40 2204 02 19 2200 2a20 13 27", false),
            ("260005 2a40 2204 02 19 1608 2200 13 27", false),
            ("260005 2a40 17 2200 13 27", false),
            // `cpu->id ? 1 : 0`, and `&&`.
            ("260005 2a40 2204 02 19 20 0011 2200 21 0013 2201 27", false),
            ("260005 2a40 20 000d 2200 21 000f 2201 27", false),
            // `cpu->id && 1` as an argument of `printf`; `-cpu->id`, which is like `(long)&do_round - cpu->id`.
            (
                "260005 2a40 2204 02 19 20 000f 21 001c 2201 20 0017 21 001c 2201 21 001e 2200 2200 2200 34 01 0004 25640a00 27",
                false,
            ),
            ("2200 260005 2a40 2204 02 19 2b 2a20 2b 03 2a20 27", true),
            // `printf("\n")`, and `printf("%d\n", 0)`.
            ("2200 2200 34 00 0002 0a00 27", false),
            ("2200 2200 2200 34 01 0004 25640a00 27", true),
            // `cpus[0].rounds == 4`.
            (
                "240014b000 2200 2228 04 02 2210 02 1a 2204 2a40 13 27",
                false,
            ),
            // `1 == 1`.
            ("2201 2201 13 27", false),
        ] {
            assert_eq!(code(hex).has_zero_for_function(), wanted, "{hex}");
        }
    }

    #[test]
    fn every_shift_is_found() {
        for (hex, wanted) in [
            ("2201 2202 09 27", true),
            ("2201 2202 0a 27", true),
            ("2201 2202 0b 27", true),
            ("2201 2202 04 27", false),
        ] {
            assert_eq!(code(hex).shifts(), wanted, "{hex}");
        }
    }

    #[test]
    fn a_register_is_cut_where_fewer_than_64_bits_of_it_are_left() {
        for (hex, wanted) in [
            ("260007 2a08 27", true),
            ("260007 1620 27", true),
            ("260007 2a40 27", false),
            ("260006 2a08 27", false),
            ("260007 2200 02 2a08 27", false),
        ] {
            assert_eq!(
                code(hex).cuts_register(|number| number == 7),
                wanted,
                "{hex}"
            );
        }
    }
}
