use crate::running::Running;
use crate::running::kvm_here;

fn run(args: &[&str]) -> Option<crate::running::Ended> {
    kvm_here().then(|| Running::start(args).finish())
}

#[test]
fn the_guest_boots_and_switches_itself_off() {
    let Some(ended) = run(&["run", "--gdb", "off", "--cmdline", "scenario=poweroff"]) else {
        return;
    };
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    assert!(
        ended
            .output
            .contains("boot 1, command line: scenario=poweroff"),
        "{}",
        ended.output
    );
    assert!(
        ended.output.contains("demo guest: power off"),
        "{}",
        ended.output
    );
}

#[test]
fn every_kind_of_reset_starts_the_guest_again() {
    let scenarios = "scenario=reset,reset-kbd,triplefault,pagefault,poweroff";
    let Some(mut running) =
        kvm_here().then(|| Running::start(&["--gdb", "off", "--cmdline", scenarios]))
    else {
        return;
    };
    for text in [
        "demo guest: boot 1,",
        "demo guest: reset by port 0xcf9",
        "demo guest: boot 2,",
        "demo guest: reset by the keyboard controller",
        "demo guest: boot 3,",
        "demo guest: triple fault",
        "demo guest: boot 4,",
        "demo guest: page fault handled",
    ] {
        running.wait_for(text);
    }
    running.signal("INT");
    assert_eq!(running.finish().code, Some(130));
}

#[test]
fn without_reboot_a_reset_and_a_triple_fault_end_it_each_with_its_code() {
    for (scenario, code, text) in [
        ("scenario=reset", 3, "the guest asked for a reset"),
        ("scenario=reset-kbd", 3, "the guest asked for a reset"),
        ("scenario=triplefault", 4, "CPU 0 met a triple fault"),
    ] {
        let Some(ended) = run(&["--gdb", "off", "--no-reboot", "--cmdline", scenario]) else {
            return;
        };
        assert_eq!(ended.code, Some(code), "{}", ended.output);
        assert!(ended.output.contains(text), "{}", ended.output);
        assert!(!ended.output.contains("boot 2"), "{}", ended.output);
    }
}

#[test]
fn all_of_8_cpus_come_up_also_after_a_reset() {
    if !kvm_here() {
        return;
    }
    let mut running = Running::start(&["--gdb", "off", "--cpus", "8"]);
    for cpu in 1..8 {
        running.wait_for(&format!("demo guest: CPU {cpu} is up"));
    }
    drop(running);
    let mut running =
        Running::start(&["--gdb", "off", "--cpus", "3", "--cmdline", "scenario=reset"]);
    running.wait_for("demo guest: boot 2,");
    let after = std::cell::Cell::new(0);
    // Lines of the first boot may name the same CPUs. Count the lines behind the banner of the second boot.
    running.line("both further CPUs after the reset", |line| {
        if line.contains("is up") {
            after.set(after.get() + 1);
        }
        after.get() >= 2
    });
}

#[test]
fn one_cpu_is_enough() {
    let Some(ended) = run(&[
        "--gdb",
        "off",
        "--cpus",
        "1",
        "--memory",
        "16M",
        "--cmdline",
        "scenario=poweroff",
    ]) else {
        return;
    };
    assert_eq!(ended.code, Some(0), "{}", ended.output);
}

#[test]
fn memory_beyond_the_device_hole_does_no_harm() {
    let Some(ended) = run(&[
        "--gdb",
        "off",
        "--memory",
        "5G",
        "--cmdline",
        "scenario=poweroff",
    ]) else {
        return;
    };
    assert_eq!(ended.code, Some(0), "{}", ended.output);
}

#[test]
fn the_serial_port_goes_to_a_file_or_nowhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("serial");
    let place = format!("file:{}", file.display());
    let Some(ended) = run(&[
        "--gdb",
        "off",
        "--serial",
        &place,
        "--cmdline",
        "scenario=poweroff",
    ]) else {
        return;
    };
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    assert!(!ended.output.contains("demo guest:"), "{}", ended.output);
    let written = std::fs::read_to_string(&file).expect("the file");
    assert!(
        written.contains(
            "demo guest: power off
"
        ),
        "{written}"
    );

    let Some(ended) = run(&[
        "--gdb",
        "off",
        "--serial",
        "off",
        "--cmdline",
        "scenario=poweroff",
    ]) else {
        return;
    };
    assert_eq!(
        (ended.code, ended.output.contains("demo guest:")),
        (Some(0), false),
        "{}",
        ended.output
    );
}

#[test]
fn a_signal_ends_it_whether_the_guest_runs_or_is_held() {
    if !kvm_here() {
        return;
    }
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let mut running = Running::start(&["--gdb", "off"]);
        running.wait_for("demo guest: boot 1");
        running.signal(signal);
        assert_eq!(running.finish().code, Some(code));

        let mut held = Running::start(&["--gdb", "127.0.0.1:0"]);
        held.wait_for("gdb: listening on");
        held.signal(signal);
        let ended = held.finish();
        assert_eq!(ended.code, Some(code));
        assert!(
            !ended.output.contains("boot 1"),
            "the guest was to be held: {}",
            ended.output
        );
    }
}

#[test]
fn with_no_wait_the_guest_runs_without_a_debugger() {
    if !kvm_here() {
        return;
    }
    let mut running = Running::start(&["--gdb", "127.0.0.1:0", "--no-wait"]);
    running.wait_for("gdb: listening on 127.0.0.1:");
    running.wait_for("demo guest: boot 1");
}
