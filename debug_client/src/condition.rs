//! Conditions of breakpoints, which the VP that reaches the breakpoint evaluates.

use crate::breakpoint::Breakpoint;
use crate::debugger::Debugger;
use crate::error::Error;
use agent_expr::Expr;
use agent_expr::Limits;
use vmm_core_defs::condition::BreakpointConditions;
use vmm_core_defs::condition::Condition;
use vmm_core_defs::condition::ConditionRegister;
use vmm_core_defs::debug_rpc::DebugRequest;

/// The value of a register of x86, extended with zeros to 64 bits: a general register, `rip` (the linear address), `rflags`, the selector or the base of a segment
/// (`cs`, `gs_base`), or a control register.
///
/// # Errors
/// [`Error::NoSuchRegister`].
pub fn register(name: &str) -> Result<Expr, Error> {
    let register = ConditionRegister::with_name(name).ok_or_else(|| Error::NoSuchRegister {
        name: name.to_owned(),
        known: ConditionRegister::ALL
            .map(ConditionRegister::name)
            .join(", "),
    })?;
    Ok(Expr::register(register.number()))
}

impl Debugger {
    /// Makes a hit of the breakpoint a stop only if one of these conditions holds. The VP that hits the breakpoint evaluates the conditions, and goes on if none holds. No stop is reported then. The other
    /// VPs run on, unless the VP has to execute the instruction under a breakpoint byte: they are held for that one instruction. Without a condition, each hit is a stop again.
    ///
    /// A condition that cannot be evaluated, because memory is not there, is a stop with [`Stop::condition_failure`](crate::Stop::condition_failure).
    ///
    /// The conditions end with the breakpoint. They are those of the VMM's table: of all values of the program that stand for this breakpoint.
    ///
    /// ```no_run
    /// # async fn program(mut vm: debug_client::Debugger) -> Result<(), debug_client::Error> {
    /// use debug_client::{Expr, register};
    /// let round = vm.break_at("do_round").await?;
    /// // The argument is the address of a structure; its second field has 32 bits.
    /// let rounds = register("rdi")?.plus(Expr::constant(4)).load_u32();
    /// vm.stop_if(&round, [rounds.equals(Expr::constant(1000))]).await?;
    /// vm.run_until(&round, std::time::Duration::from_secs(60)).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// A condition is too large, the VMM has no such register, or the breakpoint is one of another debugger.
    pub async fn stop_if(
        &self,
        breakpoint: &Breakpoint,
        conditions: impl IntoIterator<Item = Expr>,
    ) -> Result<(), Error> {
        let conditions: Result<Vec<Condition>, Error> = conditions
            .into_iter()
            .map(|expression| {
                let verified = expression.assemble(Limits::default());
                let code = verified.map_err(|error| Error::BadCondition(error.to_string()))?;
                Ok(Condition {
                    code: code.code().to_vec(),
                })
            })
            .collect();
        let wanted = BreakpointConditions {
            breakpoint: breakpoint.in_table(),
            conditions: conditions?,
        };
        self.link
            .call("set a condition", DebugRequest::SetConditions, wanted)
            .await
    }
}
