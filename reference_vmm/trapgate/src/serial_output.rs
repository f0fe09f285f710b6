//! Writes the serial port's output without making a VP wait.

use crate::devices::lock;
use std::fs::File;
use std::io;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

/// The maximum output that is not written yet. A stopped terminal (Ctrl-S) or a pipe without a reader must not stop the
/// guest. Output that does not fit is lost, as on a line without flow control.
const MAX_PENDING: usize = 256 << 10;

/// The maximum time for which the program waits at its end until the output is written.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// Takes the guest's output byte by byte. Clones write to the same destination.
#[derive(Clone)]
pub(crate) struct SerialOutput(Arc<Mutex<Option<SyncSender<u8>>>>);

/// Ends the output and waits until it is written.
pub(crate) struct SerialDrain {
    output: SerialOutput,
    done: Option<Receiver<()>>,
}

impl SerialOutput {
    /// Drops all output.
    pub(crate) fn off() -> (Self, SerialDrain) {
        let output = Self(Arc::default());
        (output.clone(), SerialDrain { output, done: None })
    }

    /// Writes the output to standard output.
    pub(crate) fn stdout() -> io::Result<(Self, SerialDrain)> {
        Self::to(Box::new(io::stdout()))
    }

    /// Writes the output to a file, which is created or truncated.
    pub(crate) fn file(path: &Path) -> io::Result<(Self, SerialDrain)> {
        Self::to(Box::new(File::create(path)?))
    }

    fn to(out: Box<dyn Write + Send>) -> io::Result<(Self, SerialDrain)> {
        let (sender, bytes) = mpsc::sync_channel(MAX_PENDING);
        let (done, drained) = mpsc::channel();
        thread::Builder::new()
            .name("serial output".to_owned())
            .spawn(move || {
                if let Err(error) = write_all(out, &bytes) {
                    tracing::warn!(%error, "the serial port's output is lost from here on");
                }
                drop(done);
            })?;
        let output = Self(Arc::new(Mutex::new(Some(sender))));
        Ok((
            output.clone(),
            SerialDrain {
                output,
                done: Some(drained),
            },
        ))
    }
}

/// Writes all available bytes at a time until every sender is dropped.
fn write_all(mut out: impl Write, bytes: &Receiver<u8>) -> io::Result<()> {
    while let Ok(first) = bytes.recv() {
        let mut batch = vec![first];
        batch.extend(bytes.try_iter());
        out.write_all(&batch)?;
        out.flush()?;
    }
    Ok(())
}

impl Write for SerialOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(sender) = &*lock(&self.0) {
            for &byte in bytes {
                // The queue is full or closed, so the byte is lost.
                let _ = sender.try_send(byte);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl SerialDrain {
    /// Takes no more output and waits until all output is written. The time is limited, because a reader may not exist.
    pub(crate) fn wait(self) {
        lock(&self.output.0).take();
        if let Some(done) = self.done
            && let Err(RecvTimeoutError::Timeout) = done.recv_timeout(DRAIN_TIME)
        {
            tracing::warn!(
                "the end of the serial port's output is lost, because no reader takes it"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_output_is_in_the_file_once_drained() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("serial");
        let (mut output, drain) = SerialOutput::file(&path).expect("a new file");
        output.clone().write_all(b"one ").expect("never fails");
        output.write_all(&[b'x'; 10_000]).expect("never fails");
        drain.wait();
        let written = std::fs::read(path).expect("the file");
        assert_eq!(written.len(), 10_004);
        assert!(written.starts_with(b"one xx"));
    }

    #[test]
    fn a_reader_that_never_reads_does_not_stop_the_guest() {
        let (_unread, writer) = io::pipe().expect("a pipe");
        let (mut output, _drain) = SerialOutput::to(Box::new(writer)).expect("a thread");
        output
            .write_all(&vec![0; 2 * MAX_PENDING])
            .expect("never fails");
    }
}
