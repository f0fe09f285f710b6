//! The log of one thread.

use std::io;
use std::io::Write;
use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::Mutex;
use tracing::Dispatch;
use tracing::level_filters::LevelFilter;

/// A second subscriber, which is never used. While a process has one subscriber, tracing-core asks only the calling thread's default whether a place in the
/// code is logged, and keeps the answer for all threads. So a test without a log would switch lines off for a test that reads them.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| {
    let silent = tracing_subscriber::fmt().with_max_level(LevelFilter::OFF);
    Dispatch::new(silent.finish())
});

/// The text of a log.
#[derive(Debug, Clone, Default)]
pub(crate) struct Text(Arc<Mutex<Vec<u8>>>);

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Text {
    /// The lines at WARN and above that `act` logs on this thread.
    pub(crate) fn of_warnings(act: impl FnOnce()) -> String {
        Self::of(tracing::Level::WARN, act)
    }

    /// The lines at this level and above that `act` logs on this thread.
    pub(crate) fn of(level: tracing::Level, act: impl FnOnce()) -> String {
        LazyLock::force(&SECOND);
        let text = Self::default();
        let writer = text.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(level)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, act);
        String::from_utf8(text.0.lock().unwrap().clone()).unwrap()
    }
}
