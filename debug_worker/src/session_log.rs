//! The session in the lines of the log.

use tracing::Span;
use tracing::level_filters::LevelFilter;

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct SessionLog {
    /// Warnings name the session, so the span has their level.
    span: Span,
}

impl SessionLog {
    pub(crate) fn new(remote_addr: &str) -> Self {
        Self {
            span: tracing::warn_span!("session", remote_addr),
        }
    }

    /// Writes a warning that names the session.
    pub(crate) fn warn(&self, write: impl FnOnce()) {
        self.span.in_scope(write);
    }

    /// The span for each poll of the session. To enter a span that is enabled takes 3 % of the instructions of a stop, so a log of warnings alone goes without.
    pub(crate) fn polled(&self) -> Span {
        match LevelFilter::current() >= LevelFilter::INFO {
            true => self.span.clone(),
            false => Span::none(),
        }
    }
}
