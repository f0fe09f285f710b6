//! What the VP that reaches a breakpoint does by itself: it evaluates conditions, and prints.

use crate::breakpoint::Breakpoint;
use crate::debugger::Debugger;
use crate::error::Error;
use agent_expr::Expr;
use agent_expr::Expression;
use agent_expr::Limits;
use agent_expr::Printf;
use pal_async::timer::Instant;
use std::time::Duration;
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

fn as_message(verified: &Expression) -> Condition {
    Condition {
        code: verified.code().to_vec(),
    }
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
        self.at_hits(breakpoint, conditions, None).await
    }

    /// Makes a hit of the breakpoint print this text if one of the conditions holds, or if there is none. No hit is a stop. [`printed`](Self::printed) returns the text. Conditions and text of an earlier
    /// call, also of [`stop_if`](Self::stop_if), end.
    ///
    /// A condition or a value that cannot be evaluated prints the reason.
    ///
    /// ```no_run
    /// # async fn program(mut vm: debug_client::Debugger) -> Result<(), debug_client::Error> {
    /// use debug_client::{Expr, Printf, register};
    /// let round = vm.break_at("do_round").await?;
    /// let id = register("rdi")?.load_u32();
    /// vm.print_at(&round, Printf::new("CPU %u\n", [id]), []).await?;
    /// vm.resume()?;
    /// print!("{}", vm.printed(std::time::Duration::from_secs(1)).await?);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`stop_if`](Self::stop_if). The format is wrong, or the values do not match it.
    pub async fn print_at(
        &self,
        breakpoint: &Breakpoint,
        text: Printf,
        conditions: impl IntoIterator<Item = Expr>,
    ) -> Result<(), Error> {
        self.at_hits(breakpoint, conditions, Some(text)).await
    }

    async fn at_hits(
        &self,
        breakpoint: &Breakpoint,
        conditions: impl IntoIterator<Item = Expr>,
        text: Option<Printf>,
    ) -> Result<(), Error> {
        let limits = Limits::default();
        let condition = |one: Expr| match one.assemble(limits) {
            Ok(code) => Ok(as_message(&code)),
            Err(error) => Err(Error::BadCondition(error.to_string())),
        };
        let command = |one: &Printf| match one.assemble(limits) {
            Ok(code) => Ok(as_message(&code)),
            Err(error) => Err(Error::BadText(error.to_string())),
        };
        let wanted = BreakpointConditions {
            breakpoint: breakpoint.in_table(),
            conditions: conditions
                .into_iter()
                .map(condition)
                .collect::<Result<_, _>>()?,
            commands: text.iter().map(command).collect::<Result<_, _>>()?,
        };
        self.link
            .call("set a condition", DebugRequest::SetConditions, wanted)
            .await
    }

    /// What breakpoints have printed since the last call. If nothing is there and the guest runs, the method waits for text, or for the next stop, or until the time is over. Bytes that are no UTF-8 are replaced by `U+FFFD`.
    ///
    /// A stop comes behind all text before it. The VMM keeps 64 KiB; if this program does not fetch more than that in time, a line in the text says how many bytes are lost.
    ///
    /// # Errors
    /// The VMM is gone, does not answer although the guest is stopped, or is of an older version that does not print. Text that came before the error is returned first.
    pub async fn printed(&mut self, timeout: Duration) -> Result<String, Error> {
        match self.fetch_printed(timeout).await {
            Err(error) if self.text.is_empty() => Err(error),
            // The next call meets the error again.
            Ok(()) | Err(_) => {
                let text = std::mem::take(&mut self.text);
                Ok(String::from_utf8_lossy(&text).into_owned())
            }
        }
    }

    async fn fetch_printed(&mut self, timeout: Duration) -> Result<(), Error> {
        let request = "fetch what breakpoints have printed";
        loop {
            let runs = self.run.running();
            // A request that has no answer in time stays, because its answer has the next text.
            let asked = self
                .printing
                .get_or_insert_with(|| self.link.send(DebugRequest::CommandOutput, ()));
            let answers = &self.link.answers;
            let limit = match runs {
                true => timeout,
                false => answers.limit,
            };
            let deadline = Instant::now().checked_add(limit);
            let answer = match answers.before(deadline, asked).await {
                Some(answer) => answer,
                None if runs => return Ok(()),
                None => return Err(Error::NoAnswer { request, limit }),
            };
            self.printing = None;
            let printed = answers.checked(request, answer).await?;
            self.text.extend(&printed);
            // The request of a guest that has stopped since may have been answered before.
            if runs || printed.is_empty() {
                return Ok(());
            }
        }
    }
}
