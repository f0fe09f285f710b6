//! Spins briefly, without a clock: a few polls instead of a time.

use shuttle::rand::Rng as _;
use shuttle::rand::thread_rng;
use shuttle::thread;
use std::time::Instant;

#[derive(Debug)]
pub(crate) struct Busy(());

impl Busy {
    pub(crate) fn new() -> Self {
        Self(())
    }
}

pub(crate) fn awake<T>(mut poll: impl FnMut() -> Option<T>) -> Option<T> {
    for _ in 0..thread_rng().gen_range(0..4) {
        if let Some(found) = poll() {
            return Some(found);
        }
        thread::yield_now();
    }
    None
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    Soon,
    #[default]
    Whenever,
}

impl Expected {
    pub(crate) fn awake<T>(self, poll: impl FnMut() -> Option<T>) -> Option<T> {
        match self {
            Self::Soon => awake(poll),
            Self::Whenever => None,
        }
    }

    pub(crate) fn after(_: Instant) -> Self {
        match thread_rng().gen_bool(0.5) {
            true => Self::Soon,
            false => Self::Whenever,
        }
    }
}
