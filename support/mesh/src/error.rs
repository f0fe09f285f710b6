//! Errors that have crossed a channel.

use std::error::Error;
use std::fmt;

/// Any error that can be moved between threads.
pub type BoxedError = Box<dyn Error + Send + Sync + 'static>;

/// A result whose error came from the other side of a channel.
pub type RemoteResult<T> = Result<T, RemoteError>;

/// An error from the other side of a channel: its text, and the texts of its sources.
///
/// The type of the original error is lost, because the sender may be another process. Code that has to distinguish
/// errors puts its own enum into the message.
pub struct RemoteError {
    message: String,
    source: Option<Box<Self>>,
}

impl RemoteError {
    /// Keeps the text of `error` and of its sources.
    pub fn new<T: Into<BoxedError>>(error: T) -> Self {
        let error = error.into();
        Self::from_error(error.as_ref())
    }

    fn from_error(error: &(dyn Error + 'static)) -> Self {
        Self {
            message: error.to_string(),
            source: error
                .source()
                .map(|source| Box::new(Self::from_error(source))),
        }
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.message, f)?;
        match &self.source {
            Some(source) => write!(f, ": {source:?}"),
            None => Ok(()),
        }
    }
}

impl Error for RemoteError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_of_sources_is_kept_as_text() {
        let error = anyhow::anyhow!("no such file")
            .context("open the kernel")
            .context("start");
        let remote = RemoteError::new(error);
        let chain: Vec<_> = anyhow::Error::from(remote)
            .chain()
            .map(ToString::to_string)
            .collect();
        assert_eq!(chain, ["start", "open the kernel", "no such file"]);
    }
}
