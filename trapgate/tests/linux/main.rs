//! A stock Linux kernel as the guest, where one is given by the variables that `cargo xtask nested` sets, and a KVM that can run it.

#[path = "../running/mod.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod running;

#[path = "../gdb/gdb_client.rs"]
#[expect(dead_code, reason = "shared with other tests")]
mod gdb_client;

use gdb_client::gdb;
use gdb_client::in_order;
use running::Running;
use running::kvm_here;

/// The kernel's files, or `None` with the reason printed.
struct Linux {
    kernel: String,
    initrd: String,
    symbols: String,
}

impl Linux {
    fn given() -> Option<Self> {
        let variable = |name: &str| match std::env::var(name) {
            Ok(path) => Some(path),
            Err(_) => {
                assert!(
                    std::env::var_os("TRAPGATE_NESTED").is_none(),
                    "the nested bed does not set {name}"
                );
                println!(
                    "SKIP: {name} names no file; `cargo xtask nested` runs this test with a Debian kernel"
                );
                None
            }
        };
        let given = Self {
            kernel: variable("TRAPGATE_TEST_LINUX_KERNEL")?,
            initrd: variable("TRAPGATE_TEST_LINUX_INITRD")?,
            symbols: variable("TRAPGATE_TEST_LINUX_SYMS")?,
        };
        kvm_here().then_some(given)
    }

    /// Starts it; `cmdline` comes after what every test needs.
    fn start(&self, args: &[&str], cmdline: &str) -> Running {
        let cmdline = format!("console=ttyS0 quiet nokaslr panic=-1 {cmdline}");
        let kernel = [
            "run",
            "--kernel",
            &self.kernel,
            "--initrd",
            &self.initrd,
            "--no-reboot",
            "--cmdline",
            &cmdline,
        ];
        Running::start(&[&kernel[..], args].concat())
    }

    fn symbol(&self, name: &str) -> String {
        let symbols = std::fs::read_to_string(&self.symbols).expect("a readable file");
        let line = symbols
            .lines()
            .find(|line| line.split_whitespace().nth(2) == Some(name));
        let line = line.unwrap_or_else(|| panic!("{name} is in no line of {}", self.symbols));
        format!("0x{}", line.split_whitespace().next().expect("an address"))
    }
}

#[test]
fn it_boots_to_its_init_and_switches_off() {
    let Some(linux) = Linux::given() else { return };
    let ended = linux
        .start(&["--gdb", "off", "--cpus", "1"], "trapgate.poweroff")
        .finish();
    assert!(
        ended.output.contains("trapgate-init: up"),
        "{}",
        ended.output
    );
    assert_eq!(ended.code, Some(0), "{}", ended.output);
}

#[test]
fn it_finds_every_cpu() {
    let Some(linux) = Linux::given() else { return };
    let mut running = linux.start(
        &["--gdb", "off", "--cpus", "2"],
        "loglevel=7 trapgate.poweroff",
    );
    running.wait_for("Brought up 1 node, 2 CPUs");
    running.wait_for("trapgate-init: up");
    assert_eq!(running.finish().code, Some(0));
}

#[test]
fn a_panic_resets_the_machine() {
    let Some(linux) = Linux::given() else { return };
    let ended = linux
        .start(
            &["--gdb", "off", "--cpus", "1"],
            "rdinit=/nowhere root=/dev/nowhere",
        )
        .finish();
    assert!(ended.output.contains("Kernel panic"), "{}", ended.output);
    assert_eq!(ended.code, Some(3), "{}", ended.output);
}

#[test]
fn after_a_reset_it_boots_again() {
    let Some(linux) = Linux::given() else { return };
    let cmdline = "console=ttyS0 nokaslr panic=-1 rdinit=/nowhere root=/dev/nowhere";
    let args = [
        "--gdb",
        "off",
        "--cpus",
        "1",
        "--kernel",
        &linux.kernel,
        "--initrd",
        &linux.initrd,
        "--cmdline",
        cmdline,
    ];
    let mut running = Running::start(&args);
    let panics = std::cell::Cell::new(0);
    // A clock page or an interrupt controller left over from the first boot would show before the second panic.
    running.line("a second panic", |line| {
        panics.set(panics.get() + u32::from(line.contains("Kernel panic - not syncing: VFS")));
        panics.get() == 2
    });
    running.signal("TERM");
    assert_eq!(running.finish().code, Some(143));
}

#[test]
fn gdb_goes_with_it_from_its_first_instruction_to_its_init() {
    let Some(linux) = Linux::given() else { return };
    let mut running = linux.start(&["--gdb", "127.0.0.1:0", "--cpus", "1"], "");
    let (start_kernel, jiffies) = (linux.symbol("start_kernel"), linux.symbol("jiffies_64"));
    let text = gdb(
        &mut running,
        &[
            "p/x $rip",
            "stepi",
            &format!("hbreak *{start_kernel}"),
            "continue",
            "p/x $rip",
            "info registers",
            "x/2i $pc",
            "stepi",
            "delete",
            &format!("watch *(unsigned long *) {jiffies}"),
            "continue",
            "continue",
            "continue",
            "delete",
            "detach",
        ],
    );
    in_order(
        &text,
        &[
            "$1 = 0x100200",
            "Breakpoint 1, ",
            &format!("$2 = {start_kernel}"),
            "cr3 ",
            "LME LMA",
            "=> ",
            "Hardware watchpoint 2: ",
            "Old value = ",
            "New value = ",
            "Old value = ",
            "New value = ",
            "Old value = ",
            "detached",
        ],
    );
    running.wait_for("trapgate-init: up");
    running.wait_for("trapgate-init: tick 2");
    running.signal("INT");
    assert_eq!(running.finish().code, Some(130));
}

#[test]
fn gdb_interrupts_it_and_reads_every_cpu() {
    let Some(linux) = Linux::given() else { return };
    let mut running = linux.start(&["--gdb", "127.0.0.1:0", "--no-wait", "--cpus", "2"], "");
    running.wait_for("trapgate-init: tick 1");
    let text = gdb(
        &mut running,
        &[
            "python import gdb, threading",
            "python threading.Timer(0.5, lambda: gdb.post_event(lambda: gdb.execute('interrupt'))).start()",
            "continue",
            "info threads",
            "thread apply all -q p/x $cr0 & 0x80000001",
            "thread apply all -q p $xmm1",
            "detach",
        ],
    );
    in_order(
        &text,
        &[
            "SIGINT",
            "vCPU 0",
            "vCPU 1",
            "= 0x80000001",
            "= 0x80000001",
            "v4_float",
            "v4_float",
            "detached",
        ],
    );
    running.wait_for("trapgate-init: tick 3");
}
