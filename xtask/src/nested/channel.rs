//! The channels from the machine, each in one direction: a socket or a named pipe in the file system, and a thread that reads it to its end.

use anyhow::Context as _;
use rustix::fs::CWD;
use rustix::fs::Mode;
use std::fs::File;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::thread::JoinHandle;

/// The kind of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A socket to which the machine connects.
    Socket,
    /// A named pipe. The machine opens it for the first byte, and writes byte by byte.
    Pipe,
}

/// A channel with the thread that serves it.
pub(super) struct Channel {
    path: PathBuf,
    end: End,
    thread: JoinHandle<()>,
}

/// Ends a thread that still waits for the machine.
enum End {
    /// A connection that is made only to wake the thread.
    Connect,
    /// Our own writing end of the pipe, which is the last one.
    Writer(File),
}

impl Channel {
    /// Makes the channel at `path`. `serve` gets the stream when the machine has connected.
    pub(super) fn open(
        kind: Kind,
        path: &Path,
        serve: impl FnOnce(&mut dyn Read) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let _ = std::fs::remove_file(path);
        let made = || format!("cannot make the channel {}", path.display());
        let (end, thread) = match kind {
            Kind::Socket => {
                let listener = UnixListener::bind(path).with_context(made)?;
                let thread = std::thread::spawn(move || {
                    if let Ok((mut stream, _)) = listener.accept() {
                        serve(&mut stream);
                    }
                });
                (End::Connect, thread)
            }
            Kind::Pipe => {
                rustix::fs::mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).with_context(made)?;
                // A pipe that is opened for reading and writing waits for no other end (Linux, fifo(7)).
                let writer = File::options().read(true).write(true).open(path)?;
                let mut pipe = File::open(path)?;
                (
                    End::Writer(writer),
                    std::thread::spawn(move || serve(&mut pipe)),
                )
            }
        };
        Ok(Self {
            path: path.to_owned(),
            end,
            thread,
        })
    }

    /// Ends the thread. The streams of a machine that has ended are at their end. If the machine has never connected, the thread still waits and is woken.
    pub(super) fn finish(self) {
        match self.end {
            End::Connect => drop(UnixStream::connect(&self.path)),
            End::Writer(writer) => drop(writer),
        }
        let _ = self.thread.join();
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::sync::mpsc;

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("xtask-channel-{}-{name}", std::process::id()))
    }

    fn connect(kind: Kind, path: &Path) -> Box<dyn std::io::Write> {
        match kind {
            Kind::Socket => Box::new(UnixStream::connect(path).unwrap()),
            Kind::Pipe => Box::new(File::options().write(true).open(path).unwrap()),
        }
    }

    #[test]
    fn what_is_written_arrives_at_once_and_all_of_it_by_the_end() {
        for kind in [Kind::Socket, Kind::Pipe] {
            let path = scratch(&format!("{kind:?}"));
            let (sender, received) = mpsc::channel();
            let channel = Channel::open(kind, &path, move |stream| {
                let mut first = [0];
                stream.read_exact(&mut first).unwrap();
                sender.send(first[0]).unwrap();
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).unwrap();
                sender.send(*rest.last().unwrap()).unwrap();
            })
            .unwrap();
            let mut machine = connect(kind, &path);
            machine.write_all(b"1").unwrap();
            assert_eq!(received.recv().unwrap(), b'1');
            machine.write_all(b"23").unwrap();
            drop(machine);
            channel.finish();
            assert_eq!(received.recv().unwrap(), b'3');
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_machine_that_never_comes_keeps_nobody_waiting() {
        for kind in [Kind::Socket, Kind::Pipe] {
            let path = scratch(&format!("never-{kind:?}"));
            let channel = Channel::open(kind, &path, |stream| {
                assert_eq!(stream.read(&mut [0]).unwrap(), 0);
            })
            .unwrap();
            channel.finish();
        }
    }
}
