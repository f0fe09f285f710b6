// The program whose Rust conditions record.py compiles with GDB.
#![no_std]
#![no_main]

pub struct Point {
    pub x: i16,
    pub y: u64,
}

#[used]
#[no_mangle]
pub static COUNT: u32 = 4_000_000_001;

#[inline(never)]
fn visit(point: &Point, small: i8, flag: bool) -> u64 {
    let local: i64 = i64::from(point.x) - 5;
    core::hint::black_box((&local, small, flag)); // stop 1
    point.y
}

#[no_mangle]
pub extern "C" fn _start() -> ! {
    let point = Point { x: -2, y: 1 << 50 };
    core::hint::black_box(visit(&point, -8, true));
    loop {
        core::hint::spin_loop();
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
