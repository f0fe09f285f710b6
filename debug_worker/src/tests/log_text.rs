//! The log of one thread.

use std::io;
use std::io::Write;
use std::sync::Arc;
use std::sync::Mutex;

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
