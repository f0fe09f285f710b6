//! Runs several test programs at a time: the number for which this machine has room, and the queue from which their threads take work.

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

/// Memory that stays free for the rest of this machine: page cache for the disk images, and other work.
const SPARE_MIB: u64 = 1024;

/// The number of cores, or fewer if the free memory does not suffice for that many times `each_mib` MiB. At least one.
pub(super) fn room(each_mib: u32) -> NonZeroUsize {
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    // If the kernel does not report its free memory, one is assumed to fit.
    fitting(cores, available_mib(&meminfo).unwrap_or(0), each_mib)
}

fn fitting(cores: NonZeroUsize, available_mib: u64, each_mib: u32) -> NonZeroUsize {
    let beds = available_mib.saturating_sub(SPARE_MIB) / u64::from(each_mib.max(1));
    let beds = usize::try_from(beds).unwrap_or(usize::MAX);
    NonZeroUsize::new(beds).map_or(NonZeroUsize::MIN, |beds| beds.min(cores))
}

/// `MemAvailable` of `/proc/meminfo`, which is in KiB (proc_meminfo(5)).
fn available_mib(meminfo: &str) -> Option<u64> {
    let value = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = value.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

/// Does the pieces of work `0..count`, begun in this order, on at most `at_a_time` threads. `done` gets each result on the caller's thread as soon as the piece has
/// ended.
///
/// After an error no further piece begins. The pieces in progress end, and `done` gets their results. The first error is returned.
pub(super) fn in_parallel<R: Send>(
    count: usize,
    at_a_time: NonZeroUsize,
    work: impl Fn(usize) -> anyhow::Result<R> + Sync,
    mut done: impl FnMut(R),
) -> anyhow::Result<()> {
    let next = AtomicUsize::new(0);
    let (sender, results) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..at_a_time.get().min(count) {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= count {
                        break;
                    }
                    let result = work(number);
                    if result.is_err() {
                        next.fetch_max(count, Ordering::SeqCst);
                    }
                    // The receiver lives longer than this thread.
                    let _ = sender.send(result);
                }
            });
        }
        drop(sender);
        let mut first_error = None;
        for result in results {
            match result {
                Ok(result) => done(result),
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
        }
        first_error.map_or(Ok(()), Err)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;
    use std::cell::RefCell;
    use std::sync::Barrier;
    use std::sync::Mutex;
    use std::sync::mpsc::Sender;

    fn number(value: usize) -> NonZeroUsize {
        NonZeroUsize::new(value).unwrap()
    }

    #[test]
    fn there_is_room_for_as_many_as_cores_and_memory_allow_and_always_for_one() {
        for (cores, available, expected) in [
            (2, 24_000, 2),
            (16, 24_000, 11),
            (16, SPARE_MIB + 2 * 2048, 2),
            (16, SPARE_MIB + 2 * 2048 - 1, 1),
            (16, SPARE_MIB, 1),
            (16, 0, 1),
            (1, u64::MAX, 1),
        ] {
            let beds = fitting(number(cores), available, 2048);
            assert_eq!(beds.get(), expected, "{cores} cores, {available} MiB");
        }
    }

    #[test]
    fn free_memory_is_read_from_meminfo() {
        let meminfo = "MemTotal:       24683520 kB\nMemFree:         1000000 kB\nMemAvailable:   23958016 kB\n";
        assert_eq!(available_mib(meminfo), Some(23_396));
        assert_eq!(available_mib("MemTotal: 1 kB\n"), None);
        assert_eq!(available_mib("MemAvailable: many kB\n"), None);
    }

    #[test]
    fn each_piece_is_done_once() {
        let begun = Mutex::new(Vec::new());
        let mut ended = Vec::new();
        in_parallel(
            100,
            number(3),
            |number| {
                begun.lock().unwrap().push(number);
                Ok(number)
            },
            |number| ended.push(number),
        )
        .unwrap();
        let mut begun = begun.into_inner().unwrap();
        begun.sort_unstable();
        ended.sort_unstable();
        assert_eq!(begun, (0..100).collect::<Vec<_>>());
        assert_eq!(ended, begun);
    }

    #[test]
    fn one_at_a_time_keeps_the_order() {
        let mut ended = Vec::new();
        in_parallel(20, number(1), Ok, |number| ended.push(number)).unwrap();
        assert_eq!(ended, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn as_many_run_at_once_as_asked() {
        // Each piece waits for two others. With fewer threads the test would never end.
        let together = Barrier::new(3);
        let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        in_parallel(
            9,
            number(3),
            |_| {
                let now = running.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                together.wait();
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            },
            |()| {},
        )
        .unwrap();
        assert_eq!(most.into_inner(), 3);
    }

    #[test]
    fn after_an_error_nothing_is_begun_and_what_runs_is_carried_to_its_end() {
        thread_local! {
            /// Dropped when its thread ends.
            static OF_THIS_THREAD: RefCell<Option<Sender<()>>> = const { RefCell::new(None) };
        }
        let both_run = Barrier::new(2);
        let (sender, other_thread) = mpsc::channel::<()>();
        let (sender, other_thread) = (Mutex::new(Some(sender)), Mutex::new(other_thread));
        let begun = Mutex::new(Vec::new());
        let mut ended = Vec::new();
        let error = in_parallel(
            50,
            number(2),
            |number| {
                begun.lock().unwrap().push(number);
                match number {
                    0 => {
                        both_run.wait();
                        OF_THIS_THREAD.set(sender.lock().unwrap().take());
                        bail!("the bed broke");
                    }
                    1 => {
                        both_run.wait();
                        let end = other_thread.lock().unwrap().recv();
                        assert_eq!(end, Err(mpsc::RecvError));
                        Ok(number)
                    }
                    _ => Ok(number),
                }
            },
            |number| ended.push(number),
        )
        .unwrap_err();
        assert_eq!(error.to_string(), "the bed broke");
        assert_eq!(ended, [1]);
        let mut begun = begun.into_inner().unwrap();
        begun.sort_unstable();
        assert_eq!(begun, [0, 1]);
    }
}
