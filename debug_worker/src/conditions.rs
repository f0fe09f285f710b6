//! Conditions as a client of the protocol sends them, and as the VM takes them.

use crate::registers::condition_register;
use agent_expr::Expression;
use agent_expr::Limits;
use agent_expr::Printf;
use agent_expr::VerifyError;
use gdb_frontend::regs::Layout;
use gdb_frontend::regs::RegNum;
use vmm_core_defs::condition::Condition;
use vmm_core_defs::condition::ConditionRegister;
use vmm_core_defs::regs::x86_64::Gp;

/// The conditions for the VM. None if each hit is to be a stop: because there is no condition, or because the VM cannot evaluate one of them exactly. The client evaluates
/// the condition again at each stop (`bpstat_check_breakpoint_conditions` in GDB).
///
/// # Errors
/// The bytecode is wrong.
pub(crate) fn for_vm(layout: Layout, sent: &[Vec<u8>]) -> Result<Vec<Condition>, VerifyError> {
    let mut conditions = Vec::with_capacity(sent.len());
    for code in sent {
        let expression = Expression::verify(code, Limits::default())?;
        let number =
            |number: u16| condition_register(layout, RegNum(number)).map(ConditionRegister::number);
        let exact = expression.has_value() && !is_wrong(layout, &expression);
        match expression.with_registers(number) {
            Ok(expression) if exact => conditions.push(Condition {
                code: expression.code().to_vec(),
            }),
            Ok(_) | Err(_) => return Ok(Vec::new()),
        }
    }
    Ok(conditions)
}

/// The commands for the VM. A command that the VM cannot execute exactly becomes one that says so: GDB gives up a `continue` for a breakpoint that is refused.
///
/// # Errors
/// A command is no code.
pub(crate) fn commands_for_vm(
    layout: Layout,
    sent: &[Vec<u8>],
) -> Result<Vec<Condition>, VerifyError> {
    let number =
        |number: u16| condition_register(layout, RegNum(number)).map(ConditionRegister::number);
    let one = |code: &Vec<u8>| {
        let expression = Expression::verify(code, Limits::default())?;
        let exact = match is_wrong(layout, &expression) {
            true => None,
            false => expression.with_registers(number).ok(),
        };
        let expression = match exact {
            Some(exact) => exact,
            None => Printf::new(NOT_EXACT, []).assemble(Limits::default())?,
        };
        Ok(Condition {
            code: expression.code().to_vec(),
        })
    };
    sent.iter().map(one).collect()
}

/// What a tracepoint records, for the VM.
///
/// # Errors
/// The problem in words.
pub(crate) fn action_for_vm(layout: Layout, sent: &[u8]) -> Result<Condition, String> {
    let expression = Expression::verify(sent, Limits::default()).map_err(|err| err.to_string())?;
    if expression.has_variables() {
        return Err("there are no trace state variables".to_owned());
    }
    if expression.cuts_register(|number| is_stack(layout, number)) {
        return Err(CUT.to_owned());
    }
    let number =
        |number: u16| condition_register(layout, RegNum(number)).map(ConditionRegister::number);
    let expression = expression.with_registers(number).map_err(|number| {
        format!("a tracepoint cannot compute with register {number}; use general, segment and control registers")
    })?;
    Ok(Condition {
        code: expression.code().to_vec(),
    })
}

const CUT: &str = "the vCPU cannot record this variable on the stack: GDB cuts the stack pointer to the width of the variable; collect its address range, such as *(char *)$rsp@64";

const NOT_EXACT: &str = "(The vCPU cannot compute what this dprintf prints: GDB compiles it to other code. Say `set dprintf-style gdb`.)\n";

/// Whether the code does not compute what the user has written.
fn is_wrong(layout: Layout, expression: &Expression) -> bool {
    expression.cuts_register(|number| is_stack(layout, number))
        || expression.shifts()
        || expression.has_zero_for_function()
}

/// Whether the register holds an address on the stack. If the debug information gives a variable's place by such a register, GDB cuts the register to the width of the
/// variable (GDB 13 to 18), and the address is wrong.
fn is_stack(layout: Layout, number: u16) -> bool {
    matches!(
        condition_register(layout, RegNum(number)),
        Some(ConditionRegister::General(Gp::Rsp | Gp::Rbp))
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_expr::Expr;

    const LAYOUT: Layout = Layout::X86_64 {
        avx: false,
        avx512: false,
        pkru: false,
    };

    /// The register with this name, by the numbers of the protocol.
    fn register(name: &str) -> Expr {
        let number = LAYOUT.table().iter().position(|reg| reg.name == name);
        Expr::register(u16::try_from(number.unwrap()).unwrap())
    }

    fn code(expression: &Expr) -> Vec<u8> {
        let expression = expression.assemble(Limits::default()).unwrap();
        expression.code().to_vec()
    }

    fn converted(sent: &[Expr]) -> Vec<Vec<u8>> {
        let sent: Vec<_> = sent.iter().map(code).collect();
        let conditions = for_vm(LAYOUT, &sent).unwrap();
        conditions
            .into_iter()
            .map(|condition| condition.code)
            .collect()
    }

    #[test]
    fn registers_get_the_numbers_of_the_vm() {
        for (name, register_of_vm) in [
            ("rax", ConditionRegister::General(Gp::Rax)),
            ("rbx", ConditionRegister::General(Gp::Rbx)),
            ("rdi", ConditionRegister::General(Gp::Rdi)),
            ("rsp", ConditionRegister::General(Gp::Rsp)),
            ("r15", ConditionRegister::General(Gp::R15)),
            ("rip", ConditionRegister::ProgramCounter),
            ("eflags", ConditionRegister::Rflags),
            ("cs", ConditionRegister::Cs),
            ("gs", ConditionRegister::Gs),
            ("cr3", ConditionRegister::Cr3),
        ] {
            let two = |register: Expr| register.plus(Expr::constant(1));
            let of_vm = Expr::register(register_of_vm.number());
            assert_eq!(
                converted(&[two(register(name))]),
                [code(&two(of_vm))],
                "{name}"
            );
        }
    }

    #[test]
    fn all_conditions_are_the_clients_where_one_is_not_for_the_vm() {
        let good = register("rax").equals(Expr::constant(1));
        let wide = register("xmm0");
        assert_eq!(converted(&[good.clone(), wide]).len(), 0);
        let unknown = Expr::register(u16::MAX);
        assert_eq!(converted(&[good.clone(), unknown]).len(), 0);
        assert_eq!(converted(&[good.clone(), good]).len(), 2);
        // Without a value: `end`.
        assert_eq!(for_vm(LAYOUT, &[vec![0x27]]).unwrap(), []);
    }

    /// The code that GDB makes of a variable of 8 bits at `rsp + 15`.
    #[test]
    fn a_stack_pointer_that_is_cut_is_not_for_the_vm() {
        let place = |register: Expr| register.plus(Expr::constant(15)).load_u8();
        for (name, cut, expected) in [
            ("rsp", true, 0),
            ("rbp", true, 0),
            ("rsp", false, 1),
            ("rax", true, 1),
        ] {
            let register = match cut {
                true => register(name).zero_extended(8),
                false => register(name),
            };
            assert_eq!(converted(&[place(register)]).len(), expected, "{name}");
        }
    }

    #[test]
    fn what_gdb_compiles_wrongly_is_not_for_the_vm() {
        let rax = || register("rax");
        let one = || Expr::constant(1);
        for (condition, expected) in [
            (rax().shifted_left(one()), 0),
            (rax().equals(Expr::constant(0)), 0),
            (rax().equals(one()), 1),
        ] {
            assert_eq!(converted(&[condition]).len(), expected);
        }
    }

    #[test]
    fn a_command_that_the_vm_cannot_execute_exactly_says_so_at_each_hit() {
        let print = |value: Expr| {
            let text = Printf::new("%lu", [value]).assemble(Limits::default());
            text.unwrap().code().to_vec()
        };
        let rax = || register("rax");
        let advice = Printf::new(NOT_EXACT, []).assemble(Limits::default());
        let advice = advice.unwrap().code().to_vec();
        let commands = [
            rax(),
            rax().shifted_left(Expr::constant(1)),
            register("xmm0"),
        ]
        .map(print);
        let converted = commands_for_vm(LAYOUT, &commands).unwrap();
        let number = ConditionRegister::General(Gp::Rax).number();
        let expected = [print(Expr::register(number)), advice.clone(), advice];
        assert_eq!(converted, expected.map(|code| Condition { code }));
    }

    #[test]
    fn wrong_code_is_an_error() {
        assert!(commands_for_vm(LAYOUT, &[vec![0xff]]).is_err());
        assert!(for_vm(LAYOUT, &[vec![0xff]]).is_err());
    }
}
