//! Copies by the kernel: a `write` to a pipe reads our memory, a `read` from it writes our memory, and either says EFAULT where it cannot.
#![expect(
    unsafe_code,
    reason = "system calls on addresses that may not be mapped"
)]

use super::HostRange;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::FromRawFd;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::PoisonError;

/// A page of the host's, or a part of one: what the kernel can access or cannot, as a whole.
const PAGE: usize = 4096;

/// An empty pipe, but for the time of a copy.
pub(super) struct Pipe(Mutex<Ends>);

struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    pub(super) fn new() -> io::Result<Self> {
        let mut ends = [0; 2];
        // SAFETY: the call fills two descriptors in.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: both were made just now, and nobody else has them.
        let [read, write] = ends.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(Self(Mutex::new(Ends { read, write })))
    }

    pub(super) fn read(&self, from: HostRange, data: &mut [u8]) -> usize {
        let ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let len = from.len.min(data.len());
        let mut done = 0;
        while done < len {
            let at = from.at + done;
            let some = in_page(at, len - done);
            if ends.put(at, some) != some || !ends.take(&mut data[done..done + some]) {
                ends.drain();
                break;
            }
            done += some;
        }
        done
    }

    pub(super) fn write(&self, to: HostRange, data: &[u8]) -> usize {
        let ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let len = to.len.min(data.len());
        let mut done = 0;
        while done < len {
            let at = to.at + done;
            let some = in_page(at, len - done);
            let piece = data[done..done + some].as_ptr() as usize;
            if ends.put(piece, some) != some || ends.get(at, some) != some {
                ends.drain();
                break;
            }
            done += some;
        }
        done
    }
}

impl Ends {
    /// Into the pipe. Returns how many bytes.
    fn put(&self, at: usize, len: usize) -> usize {
        // SAFETY: the kernel reads the bytes, or says that it cannot.
        let put = unsafe { libc::write(self.write.as_raw_fd(), at as *const libc::c_void, len) };
        usize::try_from(put).unwrap_or(0)
    }

    /// Out of the pipe into guest memory. Returns how many bytes.
    fn get(&self, at: usize, len: usize) -> usize {
        // SAFETY: the kernel writes the guest's bytes, or says that it cannot.
        let got = unsafe { libc::read(self.read.as_raw_fd(), at as *mut libc::c_void, len) };
        usize::try_from(got).unwrap_or(0)
    }

    fn take(&self, data: &mut [u8]) -> bool {
        self.get(data.as_mut_ptr() as usize, data.len()) == data.len()
    }

    fn drain(&self) {
        let mut rest = [0; PAGE];
        while self.get(rest.as_mut_ptr() as usize, PAGE) > 0 {}
    }
}

/// How many of `len` bytes at `at` are in the same page.
fn in_page(at: usize, len: usize) -> usize {
    len.min(PAGE - at % PAGE)
}
