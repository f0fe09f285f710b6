//! Memory that cannot be accessed, with every kind of access, and the cost of the guard.

use super::odd_ram::CLOSED;
use super::odd_ram::PAGE;
use super::odd_ram::PLAIN;
use super::odd_ram::READ_ONLY;
use super::odd_ram::SHRUNK;
use super::odd_ram::odd_ram;
use super::*;
use std::hint::black_box;
use std::time::Duration;
use std::time::Instant;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;
use vm_memory::GuestMemoryMmap;

fn at(gpa: u64) -> Gpa {
    Gpa::new(gpa)
}

#[test]
fn a_copy_ends_at_the_first_byte_out_of_reach() {
    let ram = odd_ram();
    let end = SHRUNK + PAGE as u64;
    for (from, len, reached) in [
        (READ_ONLY, 64, 64),
        (CLOSED, 64, 0),
        (end, 64, 0),
        (end - 16, 64, 16),
        (end - 5, 64, 5),
        (end - 13, 2000, 13),
        (end - 4096, 8192, 4096),
        (end - 3, 3, 3),
        (end - 8, 8, 8),
        (end - 4, 8, 4),
        (SHRUNK + 2 * PAGE as u64, 8, 0),
        (READ_ONLY + PAGE as u64, 3 * PAGE, PAGE),
    ] {
        let mut data = vec![1; len];
        assert_eq!(read(&ram, at(from), &mut data), reached, "{from:#x}+{len}");
        assert_eq!(data[..reached], vec![0; reached], "{from:#x}+{len}");
        assert_eq!(data[reached..], vec![1; len - reached], "{from:#x}+{len}");
    }
    for (to, len, reached) in [
        (READ_ONLY, 1, 0),
        (READ_ONLY, 64, 0),
        (PLAIN as u64 - 20, 64, 20),
        (CLOSED, 8, 0),
        (end - 13, 2000, 13),
        (end - 3, 8, 3),
    ] {
        let data = vec![7; len];
        assert_eq!(write(&ram, at(to), &data), reached, "{to:#x}+{len}");
        let mut found = vec![0; reached];
        assert_eq!(read(&ram, at(to), &mut found), found.len());
        assert_eq!(found, vec![7; reached], "{to:#x}+{len}");
    }
}

#[test]
fn single_values_are_read_and_written_or_refused() {
    let ram = odd_ram();
    assert_eq!(write(&ram, at(0x100), &[1, 2, 3, 4, 5, 6, 7, 0x88]), 8);
    assert_eq!(load_u64(&ram, at(0x100)), Some(0x8807_0605_0403_0201));
    assert_eq!(load_u32(&ram, at(0x104)), Some(0x8807_0605));
    assert_eq!(load_u8(&ram, at(0x107)), Some(0x88));
    assert_eq!(store_u8(&ram, at(0x107), 9), Some(()));
    assert_eq!(load_u8(&ram, at(0x107)), Some(9));
    for len in [1, 2, 4, 8] {
        let (whole, mut back) = ([0xa5; 8], [0; 8]);
        assert_eq!(write(&ram, at(0x200), &whole[..len]), len);
        assert_eq!(read(&ram, at(0x200), &mut back[..len]), len);
        assert_eq!(back[..len], whole[..len]);
        assert_eq!(write(&ram, at(CLOSED), &whole[..len]), 0);
        assert_eq!(read(&ram, at(CLOSED), &mut back[..len]), 0);
    }
    for gone in [CLOSED, SHRUNK + PAGE as u64, 0xf_0000, u64::MAX] {
        assert_eq!(load_u8(&ram, at(gone)), None);
        assert_eq!(load_u32(&ram, at(gone)), None);
        assert_eq!(load_u64(&ram, at(gone)), None);
        assert_eq!(store_u8(&ram, at(gone), 0), None);
    }
    assert_eq!(store_u8(&ram, at(READ_ONLY), 0), None);
    assert_eq!(load_u64(&ram, at(READ_ONLY)), Some(0));
}

/// The fastest of several turns of each. The two take turns, so other load on the host affects both.
fn fastest(turns: u32, mut one: impl FnMut(), mut other: impl FnMut()) -> (Duration, Duration) {
    let timed = |act: &mut dyn FnMut()| {
        let start = Instant::now();
        act();
        start.elapsed()
    };
    let pairs = (0..turns).map(|_| (timed(&mut one), timed(&mut other)));
    pairs.fold((Duration::MAX, Duration::MAX), |best, pair| {
        (best.0.min(pair.0), best.1.min(pair.1))
    })
}

/// `cargo test -p trapgate-vp-runner --lib -- --nocapture the_guard_costs` shows the figures.
#[test]
fn the_guard_costs_bulk_copies_nothing() {
    let len = 16 << 20;
    let ram = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), len)]).unwrap();
    let ram = MemorySlots::from(ram);
    for chunk in [0x1000, 0x4000, 0x1_0000, 0x10_0000] {
        let (mut data, mut other) = (vec![1; chunk], vec![1; chunk]);
        let all = || (0..len as u64).step_by(chunk);
        let (guarded, plain) = fastest(
            15,
            || all().for_each(|from| assert_eq!(read(&ram, at(from), &mut data), chunk)),
            || {
                all().for_each(|from| {
                    ram.backing()
                        .read_slice(&mut other, GuestAddress(from))
                        .unwrap()
                })
            },
        );
        let (guarded_write, plain_write) = fastest(
            15,
            || all().for_each(|to| assert_eq!(write(&ram, at(to), black_box(&data)), chunk)),
            || {
                all().for_each(|to| {
                    ram.backing()
                        .write_slice(black_box(&data), GuestAddress(to))
                        .unwrap()
                })
            },
        );
        let rate = |took: Duration| (len as f64 / took.as_secs_f64() / 1e6).round();
        println!(
            "{chunk:8} bytes at a time: read {} MB/s, plain {} MB/s; write {} MB/s, plain {} MB/s",
            rate(guarded),
            rate(plain),
            rate(guarded_write),
            rate(plain_write)
        );
        // A second copy would cost more than this, and so would a system call for each piece.
        assert!(guarded < plain * 2, "{chunk}: {guarded:?}, plain {plain:?}");
        assert!(
            guarded_write < plain_write * 2,
            "{chunk}: {guarded_write:?}, plain {plain_write:?}"
        );
    }
}
