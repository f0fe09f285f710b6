//! Any bytes are refused, or are evaluated within their budget, without a panic. What the context was asked and what the result is are the same each time.

#![no_main]

use agent_expr::Context;
use agent_expr::Expression;
use agent_expr::Limits;
use agent_expr::Refused;
use agent_expr::Steps;
use libfuzzer_sys::fuzz_target;

/// More steps take the fuzzer longer, and show nothing else.
const STEPS: Steps = Steps(2000);

/// A guest in which every fourth page is missing, and every fourth register.
#[derive(Default)]
struct Guest {
    variable: u64,
    asked: usize,
    printed: usize,
}

fn if_it_is_there(number: u64) -> Result<u64, Refused> {
    match number % 4 {
        3 => Err(Refused),
        _ => Ok(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
    }
}

impl Context for Guest {
    fn register(&mut self, number: u16) -> Result<u64, Refused> {
        self.asked += 1;
        if_it_is_there(number.into())
    }

    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), Refused> {
        self.asked += 1;
        assert!(address.checked_add(into.len() as u64 - 1).is_some());
        if_it_is_there(address >> 12)?;
        for (at, byte) in (address..=u64::MAX).zip(into) {
            [*byte, ..] = (at / 3).to_le_bytes();
        }
        Ok(())
    }

    fn variable(&mut self, number: u16) -> Result<u64, Refused> {
        self.asked += 1;
        if_it_is_there(number.into())?;
        Ok(self.variable)
    }

    fn set_variable(&mut self, number: u16, value: u64) -> Result<(), Refused> {
        self.asked += 1;
        if_it_is_there(number.into())?;
        self.variable = value;
        Ok(())
    }

    fn trace_memory(&mut self, address: u64, _length: u64) -> Result<(), Refused> {
        self.asked += 1;
        if_it_is_there(address).map(drop)
    }

    fn trace_string(&mut self, address: u64, _limit: u64) -> Result<(), Refused> {
        self.asked += 1;
        if_it_is_there(address).map(drop)
    }

    fn trace_variable(&mut self, number: u16) -> Result<(), Refused> {
        self.asked += 1;
        if_it_is_there(number.into()).map(drop)
    }

    fn print(&mut self, text: &[u8]) -> Result<(), Refused> {
        self.printed += text.len();
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(expression) = Expression::verify(bytes, Limits::default()) else {
        return;
    };
    assert_eq!(expression.code(), bytes);
    let mut guest = Guest::default();
    let result = expression.evaluate(&mut guest, STEPS);
    assert!(guest.printed <= 2000);
    if expression.has_value() {
        assert_ne!(result, Ok(None));
    }
    let mut again = Guest::default();
    assert_eq!(expression.evaluate(&mut again, STEPS), result);
    assert_eq!((again.asked, again.printed), (guest.asked, guest.printed));
});
