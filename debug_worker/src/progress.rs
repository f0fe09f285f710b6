//! What tells a client that a long operation is under way.

use crate::monitor;
use crate::operation;
use gdb_frontend::target::TargetOp;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

const MIB: u64 = 1 << 20;

/// The sign of life of an operation.
#[derive(Debug)]
pub(crate) enum Beat {
    /// The operation is short.
    None,
    /// A `+`. GDB takes the answer to a search for lost if it receives nothing for a few seconds (`set remotetimeout`), and would take the late answer for that of its
    /// next packet. Before a packet, it skips an acknowledgement that it does not expect.
    Plus,
    /// A line on the console.
    Progress(Progress),
}

impl Beat {
    /// The time between two signs of life.
    pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

    /// That of this operation. `progress` is that of `monitor dump`.
    pub(crate) fn of(op: &TargetOp, progress: &Progress) -> Self {
        match op {
            op if monitor::is_dump(op) => Self::Progress(progress.clone()),
            op if operation::searches(op) => Self::Plus,
            _ => Self::None,
        }
    }
}

/// The bytes that a command has done, of those it has to do. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Arc<Bytes>);

#[derive(Debug, Default)]
struct Bytes {
    done: AtomicU64,
    all: AtomicU64,
}

impl Progress {
    /// The command begins, with this many bytes to do.
    pub(crate) fn begin(&self, all: u64) {
        self.0.done.store(0, Ordering::Relaxed);
        self.0.all.store(all, Ordering::Relaxed);
    }

    /// The command has done this many bytes more.
    pub(crate) fn add(&self, bytes: u64) {
        self.0.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A line for the console.
    pub(crate) fn line(&self) -> String {
        let done = self.0.done.load(Ordering::Relaxed) / MIB;
        match self.0.all.load(Ordering::Relaxed) {
            0 => "the dump begins: the mapped pages are listed\n".to_owned(),
            all => format!("{done} of {} MiB written\n", all.div_ceil(MIB)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_much_is_done() {
        let progress = Progress::default();
        let seen = progress.clone();
        assert_eq!(
            seen.line(),
            "the dump begins: the mapped pages are listed\n"
        );
        progress.begin(5 * MIB + 1);
        progress.add(2 * MIB);
        progress.add(MIB - 1);
        assert_eq!(seen.line(), "2 of 6 MiB written\n");
        progress.begin(MIB);
        assert_eq!(seen.line(), "0 of 1 MiB written\n");
    }
}
