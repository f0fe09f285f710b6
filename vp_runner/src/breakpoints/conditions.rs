//! The conditions of breakpoints, which the VP that has hit a breakpoint evaluates on its own thread.

use super::command_output::CommandOutput;
use super::hit_counts::HitCount;
use super::hit_counts::HitCounts;
use super::trace::Point;
use agent_expr::Context;
use agent_expr::EvaluationError;
use agent_expr::Expression;
use agent_expr::Limits;
use agent_expr::Refused;
use agent_expr::Steps;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::condition::BreakpointConditions;
use vmm_core_defs::condition::Condition;
use vmm_core_defs::condition::ConditionRegister;
use vmm_core_defs::debug_rpc::DebugError;

/// The most steps of one evaluation. An expression of a debugger has no loop and some hundred instructions.
const MOST_STEPS: u32 = 10_000;

/// The most steps at one hit, which the conditions share: a VP that evaluates cannot be stopped.
const MOST_STEPS_OF_HIT: u32 = 100_000;

/// The most conditions of one breakpoint: a client may send one for each breakpoint that its user has set at the address.
const MOST: usize = 1_000;

/// The most bytes of code of all conditions together. In memory a byte of code becomes up to some 40 bytes.
const MOST_CODE: usize = 4 << 20;

/// Whether a hit is a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Stops,
    GoesOn,
}

/// The conditions of all breakpoints that have any.
#[derive(Debug, Default)]
pub(crate) struct Conditions {
    of: BTreeMap<Breakpoint, Arc<Checked>>,
    /// The conditions with which the guest ran last.
    in_force: BTreeMap<Breakpoint, Arc<Checked>>,
    /// The bytes of code of all conditions.
    code: usize,
}

/// The conditions of one breakpoint.
#[derive(Debug)]
pub(crate) struct Checked {
    /// The address of the breakpoint.
    address: Gva,
    conditions: Vec<Expression>,
    commands: Vec<Expression>,
    /// The tracepoints there. If there are any, this is all that happens at a hit.
    tracepoints: Vec<Arc<Point>>,
    /// For each of them.
    budget: Steps,
    /// Why the last evaluation of a VP has failed, until the stop is reported.
    failures: Mutex<BTreeMap<VpIndex, EvaluationError>>,
    count: Arc<HitCount>,
    output: Arc<CommandOutput>,
}

impl Conditions {
    /// Sets the conditions of a breakpoint.
    ///
    /// # Errors
    /// [`DebugError::BadCondition`].
    pub(crate) fn set(
        &mut self,
        wanted: &BreakpointConditions,
        counts: &mut HitCounts,
        output: &Arc<CommandOutput>,
    ) -> Result<(), DebugError> {
        let BreakpointConditions {
            breakpoint,
            conditions,
            commands,
        } = wanted;
        let address = breakpoint.address;
        let refused = |problem| DebugError::BadCondition { address, problem };
        let all = conditions.len() + commands.len();
        if all > MOST {
            return Err(refused(format!("there are more than {MOST}; merge some")));
        }
        let before = self.of.get(breakpoint).map_or(0, |before| before.code());
        let wanted = conditions.iter().chain(commands);
        let added: usize = wanted.map(|wanted| wanted.code.len()).sum();
        let code = self.code - before + added;
        if code > MOST_CODE {
            let limit = format!("all conditions have more than {MOST_CODE} bytes; remove some");
            return Err(refused(limit));
        }
        let conditions: Result<Vec<_>, _> = conditions.iter().map(condition).collect();
        let commands: Result<Vec<_>, _> = commands.iter().map(check).collect();
        let checked = Checked {
            address,
            conditions: conditions.map_err(refused)?,
            commands: commands.map_err(refused)?,
            tracepoints: Vec::new(),
            budget: budget(all),
            failures: Mutex::default(),
            count: counts.of(breakpoint),
            output: output.clone(),
        };
        match all == 0 {
            true => self.of.remove(breakpoint),
            false => self.of.insert(*breakpoint, Arc::new(checked)),
        };
        self.code = code;
        Ok(())
    }

    /// Sets what is recorded at a breakpoint of the kind [`Trace`](vmm_core_defs::breakpoint::BreakpointKind::Trace).
    pub(crate) fn trace(
        &mut self,
        breakpoint: Breakpoint,
        tracepoints: Vec<Arc<Point>>,
        counts: &mut HitCounts,
        output: &Arc<CommandOutput>,
    ) {
        let expressions = tracepoints.iter().map(|point| point.expressions()).sum();
        let checked = Checked {
            address: breakpoint.address,
            conditions: Vec::new(),
            commands: Vec::new(),
            tracepoints,
            budget: budget(expressions),
            failures: Mutex::default(),
            count: counts.of(&breakpoint),
            output: output.clone(),
        };
        self.of.insert(breakpoint, Arc::new(checked));
    }

    /// Whether each hit of any breakpoint is a stop.
    pub(crate) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// The conditions of a breakpoint. `None`: each hit is a stop.
    pub(crate) fn of(&self, breakpoint: &Breakpoint) -> Option<Arc<Checked>> {
        self.of.get(breakpoint).cloned()
    }

    /// The guest runs, with the present conditions from now on.
    pub(crate) fn come_into_force(&mut self) {
        self.in_force.clone_from(&self.of);
    }

    /// Whether a hit of this breakpoint that was found when the guest ran last has to be decided again, because other conditions are set now.
    pub(crate) fn are_others_now(&self, breakpoint: &Breakpoint) -> bool {
        let code = |checked: &Arc<Checked>| -> Vec<Vec<u8>> {
            let all = checked.conditions.iter().chain(&checked.commands);
            all.map(|code| code.code().to_vec()).collect()
        };
        let now = self.of.get(breakpoint);
        now.is_some_and(|now| {
            let then = self.in_force.get(breakpoint);
            then.is_none_or(|then| !Arc::ptr_eq(now, then) && code(now) != code(then))
        })
    }

    /// Forgets the conditions of breakpoints that are not set any more.
    pub(crate) fn keep(&mut self, is_set: impl Fn(&Breakpoint) -> bool) {
        self.of.retain(|breakpoint, _| is_set(breakpoint));
        self.code = self.of.values().map(|checked| checked.code()).sum();
    }

    /// Why the last stop at this breakpoint was one, if that is because a condition cannot be evaluated.
    pub(crate) fn take_failure(
        &self,
        vp: VpIndex,
        breakpoint: &Breakpoint,
    ) -> Option<EvaluationError> {
        self.of.get(breakpoint)?.failures().remove(&vp)
    }
}

/// The most steps of each of so many conditions.
fn budget(conditions: usize) -> Steps {
    let conditions = u32::try_from(conditions).unwrap_or(u32::MAX).max(1);
    Steps((MOST_STEPS_OF_HIT / conditions).min(MOST_STEPS))
}

/// # Errors
/// The problem in words.
pub(super) fn condition(condition: &Condition) -> Result<Expression, String> {
    let expression = check(condition)?;
    match expression.has_value() {
        true => Ok(expression),
        false => Err("it has no value".to_owned()),
    }
}

/// # Errors
/// The problem in words.
pub(super) fn check(code: &Condition) -> Result<Expression, String> {
    let expression = Expression::verify(&code.code, Limits::default());
    let expression = expression.map_err(|err| err.to_string())?;
    let unknown = expression
        .registers()
        .find(|number| ConditionRegister::with_number(*number).is_none());
    match unknown {
        Some(number) => Err(format!("conditions have no register {number}")),
        None => Ok(expression),
    }
}

impl Checked {
    /// Evaluates the conditions for this VP, up to the first that holds or fails. If the hit would be a stop, executes the commands instead, if there are any. Where there are
    /// commands, a condition that fails prints the reason.
    pub(crate) fn evaluate(&self, vp: VpIndex, context: &mut impl Context) -> Verdict {
        if !self.tracepoints.is_empty() {
            for point in &self.tracepoints {
                point.hit(vp, context, self.budget);
            }
            self.count.passed();
            return Verdict::GoesOn;
        }
        match self.holds(context) {
            Ok(true) if self.commands.is_empty() => {
                // An evaluation that failed may not have been reported, because another breakpoint of that hit was.
                self.failures().remove(&vp);
                return Verdict::Stops;
            }
            Ok(true) => self.execute(context),
            Ok(false) => {}
            Err(error) if self.has_commands() => {
                let text = format!(
                    "a condition of the breakpoint at {} cannot be evaluated: {error}",
                    self.address
                );
                self.output.print(format!("({text})\n").as_bytes());
            }
            Err(error) => {
                self.failures().insert(vp, error);
                return Verdict::Stops;
            }
        }
        self.count.passed();
        Verdict::GoesOn
    }

    fn holds(&self, context: &mut impl Context) -> Result<bool, EvaluationError> {
        for condition in &self.conditions {
            self.count.evaluated();
            if condition.evaluate(context, self.budget)? != Some(0) {
                return Ok(true);
            }
        }
        Ok(self.conditions.is_empty())
    }

    fn execute(&self, context: &mut impl Context) {
        let mut printing = Printing {
            context,
            text: Vec::new(),
        };
        for command in &self.commands {
            if let Err(error) = command.evaluate(&mut printing, self.budget) {
                let address = self.address;
                let text = format!("(a command of the breakpoint at {address} failed: {error})\n");
                printing.text.extend(text.bytes());
            }
        }
        self.output.print(&printing.text);
    }

    /// Whether something is to be done at a hit, also if another breakpoint is the stop.
    pub(crate) fn has_commands(&self) -> bool {
        !self.commands.is_empty() || !self.tracepoints.is_empty()
    }

    fn code(&self) -> usize {
        let all = self.conditions.iter().chain(&self.commands);
        all.map(|expression| expression.code().len()).sum()
    }

    fn failures(&self) -> MutexGuard<'_, BTreeMap<VpIndex, EvaluationError>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The context of commands, whose output is collected.
struct Printing<'a, C> {
    context: &'a mut C,
    text: Vec<u8>,
}

impl<C: Context> Context for Printing<'_, C> {
    fn register(&mut self, number: u16) -> Result<u64, Refused> {
        self.context.register(number)
    }

    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), Refused> {
        self.context.read(address, into)
    }

    fn print(&mut self, text: &[u8]) -> Result<(), Refused> {
        self.text.extend(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_expr::Expr;
    use vmm_core_defs::breakpoint::BreakpointKind;

    const VP: VpIndex = VpIndex::BSP;

    /// Register 0 has this value, and there is nothing else.
    struct One(u64);

    impl Context for One {
        fn register(&mut self, number: u16) -> Result<u64, Refused> {
            (number == 0).then_some(self.0).ok_or(Refused)
        }

        fn read(&mut self, _: u64, _: &mut [u8]) -> Result<(), Refused> {
            Err(Refused)
        }
    }

    fn at(address: u64) -> Breakpoint {
        Breakpoint {
            kind: BreakpointKind::Software,
            address: Gva::new(address),
            len: 1,
        }
    }

    fn wanted(address: u64, conditions: &[Vec<u8>]) -> BreakpointConditions {
        let conditions = conditions.iter().cloned();
        BreakpointConditions {
            breakpoint: at(address),
            conditions: conditions.map(|code| Condition { code }).collect(),
            commands: Vec::new(),
        }
    }

    fn code(expression: &Expr) -> Vec<u8> {
        let expression = expression.assemble(Limits::default()).unwrap();
        expression.code().to_vec()
    }

    fn is(value: u64) -> Vec<u8> {
        code(&Expr::register(0).equals(Expr::constant(value)))
    }

    #[test]
    fn a_condition_that_fails_prints_the_reason_where_a_hit_prints() {
        let mut conditions = Conditions::default();
        let output = Arc::new(CommandOutput::default());
        let mut wanted = wanted(0x1000, &[code(&Expr::constant(0x1234).load_u8())]);
        let text = agent_expr::Printf::new("hit", []).assemble(Limits::default());
        let command = text.unwrap().code().to_vec();
        wanted.commands = vec![Condition { code: command }];
        conditions
            .set(&wanted, &mut HitCounts::default(), &output)
            .unwrap();
        let checked = conditions.of(&at(0x1000)).unwrap();
        assert_eq!(checked.evaluate(VP, &mut One(0)), Verdict::GoesOn);
        assert_eq!(conditions.take_failure(VP, &at(0x1000)), None);
        let (reply, answer) = mesh::oneshot();
        output.ask(mesh::rpc::Rpc((), reply), true);
        let printed = futures::FutureExt::now_or_never(answer).unwrap();
        let printed = String::from_utf8(printed.unwrap().unwrap()).unwrap();
        assert!(
            printed.starts_with("(a condition of the breakpoint at 0x1000"),
            "{printed}"
        );
        assert!(
            !printed.contains("hit)") && printed.ends_with(")\n"),
            "{printed}"
        );
    }

    #[test]
    fn the_first_condition_that_holds_or_fails_decides() {
        let mut conditions = Conditions::default();
        let mut counts = HitCounts::default();
        let unreadable = code(&Expr::constant(0x1234).load_u8());
        let four = wanted(0x1000, &[is(1), is(2), unreadable, is(3)]);
        conditions.set(&four, &mut counts, &Arc::default()).unwrap();
        let checked = conditions.of(&at(0x1000)).unwrap();
        for (value, failed) in [(1, false), (2, false), (3, true), (4, true)] {
            assert_eq!(checked.evaluate(VP, &mut One(value)), Verdict::Stops);
            let failure = conditions.take_failure(VP, &at(0x1000));
            assert_eq!(failure.is_some(), failed, "{value}");
            assert_eq!(conditions.take_failure(VP, &at(0x1000)), None);
        }
        // Each VP has its own failure.
        let vps = [VpIndex::new(1), VpIndex::new(2)];
        for vp in vps {
            assert_eq!(checked.evaluate(vp, &mut One(3)), Verdict::Stops);
        }
        assert!(vps.map(|vp| conditions.take_failure(vp, &at(0x1000)).is_some()) == [true; 2]);
        let two = wanted(0x1000, &[is(1), is(2)]);
        conditions.set(&two, &mut counts, &Arc::default()).unwrap();
        let checked = conditions.of(&at(0x1000)).unwrap();
        assert_eq!(checked.evaluate(VP, &mut One(3)), Verdict::GoesOn);
        assert!(conditions.of(&at(0x1001)).is_none());
        let [counted] = counts.list()[..] else {
            panic!("{counts:?}");
        };
        assert_eq!(
            (counted.evaluations, counted.passes),
            (1 + 2 + 3 + 3 + 3 + 3 + 2, 1)
        );
    }

    #[test]
    fn commands_are_executed_where_a_condition_holds_and_the_hit_is_no_stop() {
        let (mut conditions, mut counts) = (Conditions::default(), HitCounts::default());
        let output = Arc::new(CommandOutput::default());
        // `printf("n=%d\n", register 0)` with a function and a channel of 0: `reg 0; const8 0; const8 0; printf 1`.
        let mut prints = vec![0x26, 0, 0, 0x22, 0, 0x22, 0, 0x34, 1, 0, 6];
        prints.extend(b"n=%d\n\0\x27");
        let fails = code(&Expr::constant(0x1234).load_u8());
        let mut with = wanted(0x1000, &[is(7)]);
        with.commands = [prints, fails].map(|code| Condition { code }).to_vec();
        conditions.set(&with, &mut counts, &output).unwrap();
        let checked = conditions.of(&at(0x1000)).unwrap();
        for value in [6, 7] {
            assert_eq!(checked.evaluate(VP, &mut One(value)), Verdict::GoesOn);
        }
        let (reply, answer) = mesh::oneshot();
        output.ask(mesh::rpc::Rpc((), reply), true);
        let text = futures::executor::block_on(answer).unwrap().unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.starts_with("n=7\n(a command of the breakpoint at 0x1000 failed: "),
            "{text}"
        );
        assert_eq!(counts.list()[0].passes, 2);
    }

    #[test]
    fn many_conditions_share_their_steps() {
        let steps = [0, 1, 10, 11, MOST].map(|conditions| budget(conditions).0);
        assert_eq!(steps, [10_000, 10_000, 10_000, 9_090, 100]);
    }

    #[test]
    fn a_hit_is_decided_again_where_the_conditions_have_changed_since() {
        let (mut conditions, mut counts) = (Conditions::default(), HitCounts::default());
        let (here, first, second) = (at(0x1000), [is(1)], [is(2)]);
        let mut set = |conditions: &mut Conditions, to: &[Vec<u8>]| {
            conditions
                .set(&wanted(0x1000, to), &mut counts, &Arc::default())
                .unwrap();
            conditions.are_others_now(&here)
        };
        assert!(set(&mut conditions, &first));
        conditions.come_into_force();
        assert!(!conditions.are_others_now(&here));
        // Some clients remove their breakpoints at each stop, and set them again.
        conditions.keep(|_| false);
        assert!(!conditions.are_others_now(&here));
        assert!(!set(&mut conditions, &first));
        assert!(set(&mut conditions, &second));
        // Without a condition each hit is a stop.
        assert!(!set(&mut conditions, &[]));
    }

    #[test]
    fn all_conditions_together_have_a_limit_that_counts_what_is_there() {
        let mut conditions = Conditions::default();
        let mut counts = HitCounts::default();
        // Each condition is as long as one may be.
        let mut long = [0x22, 1, 0x29].repeat(1300);
        long.extend([0x22, 1, 0x27]);
        let many = vec![long.clone(); 512];
        let size = 512 * long.len();
        let fit = MOST_CODE / size;
        for address in 0..fit {
            conditions
                .set(&wanted(address as u64, &many), &mut counts, &Arc::default())
                .unwrap();
        }
        let mut counts_of_full = HitCounts::default();
        let mut full = |conditions: &mut Conditions| {
            let refused = conditions.set(
                &wanted(0x1_0000, &many),
                &mut counts_of_full,
                &Arc::default(),
            );
            matches!(refused, Err(DebugError::BadCondition { .. }))
        };
        assert!(full(&mut conditions));
        // Other conditions in the place of those that are there.
        conditions
            .set(&wanted(0, &many), &mut counts, &Arc::default())
            .unwrap();
        assert!(full(&mut conditions));
        conditions
            .set(&wanted(0, &[]), &mut counts, &Arc::default())
            .unwrap();
        assert!(!full(&mut conditions));
        assert!(
            conditions
                .set(&wanted(0, &many), &mut counts, &Arc::default())
                .is_err()
        );
        conditions.keep(|breakpoint| breakpoint.address != Gva::new(1));
        conditions
            .set(&wanted(0, &many), &mut counts, &Arc::default())
            .unwrap();
        conditions.keep(|_| false);
        assert_eq!(conditions.code, 0);
    }
}
