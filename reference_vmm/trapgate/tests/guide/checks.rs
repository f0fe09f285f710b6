//! The table of the console blocks: the text of each block, and its check.

/// The check of a block, in addition to the comparison of its text.
pub(crate) enum Check {
    /// The commands are not run, because they build, boot other kernels or take long. `--help` has to know each
    /// subcommand and option, and each test program of `cargo test` has to exist.
    Options,
    /// The first command is run, with the debug build and a free port. These parts of its output have to be in the
    /// block, and have to be printed.
    Trapgate(&'static [&'static str]),
    /// The commands behind `(gdb)` are typed into a real GDB.
    Gdb {
        /// The options with which the demo guest is started.
        guest: &'static [&'static str],
        /// Commands that the block does not show.
        before: &'static [&'static str],
        /// Parts of the block that GDB prints.
        shown: &'static [&'static str],
        /// Parts that GDB prints and the block does not contain.
        printed: &'static [&'static str],
    },
    /// The commands behind `(lldb)` are typed into a real LLDB, which has to print these parts.
    Lldb(&'static [&'static str]),
}

pub(crate) struct Row {
    pub page: &'static str,
    /// The whole block.
    pub text: &'static str,
    pub check: Check,
}

pub(crate) const ROWS: [Row; 17] = [
    Row {
        page: "README.md",
        text: r#"$ cargo run --release    # boots the built-in demo guest on /dev/kvm, held at its first instruction, and prints the gdb line to paste
$ cargo xtask test       # everything CI runs; installs what it needs from Debian's packages and says what it could not run
"#,
        check: Check::Options,
    },
    Row {
        page: "README.md",
        text: r#"$ cargo run --release
trapgate: the demo guest, 2 CPUs, 512 MiB, held at its first instruction until gdb continues it (--no-wait: run at once)
gdb: listening on 127.0.0.1:1234

    gdb -ex 'target remote 127.0.0.1:1234' ~/.cache/trapgate/demo-guest.elf
"#,
        check: Check::Trapgate(&[
            "trapgate: the demo guest, 2 CPUs, 512 MiB, held at its first instruction until gdb continues it (--no-wait: run at once)",
            "gdb: listening on 127.0.0.1:",
            "    gdb -ex 'target remote 127.0.0.1:",
            "trapgate/demo-guest.elf",
        ]),
    },
    Row {
        page: "README.md",
        text: r#"pvh_start () at .../demo_guest/guest/boot.S:58
58	    cli
(gdb) break do_round
Breakpoint 1 at 0x10073f: file .../demo_guest/guest/main.c, line 75.
(gdb) continue
Thread 2 "vCPU 1" hit Breakpoint 1, do_round (cpu=cpu@entry=0x14b028 <cpus+40>) at .../demo_guest/guest/main.c:75
75	{
(gdb) bt
#0  do_round (cpu=cpu@entry=0x14b028 <cpus+40>) at .../demo_guest/guest/main.c:75
#1  0x000000000010088e in cpu_loop (cpu=cpu@entry=0x14b028 <cpus+40>) at .../demo_guest/guest/main.c:122
#2  0x00000000001009f3 in next_cpu_main (id=1) at .../demo_guest/guest/main.c:277
#3  0x00000000001000a1 in next_cpu_64 () at .../demo_guest/guest/boot.S:99
(gdb) info threads
  Id   Target Id                                              Frame
  1    Thread 1 "vCPU 0" (VP 0: stopped, 64-bit mode, ring 0) 0x00000000001009fa in lapic_write (...) at .../demo_guest/guest/machine.c:36
* 2    Thread 2 "vCPU 1" (VP 1: stopped, 64-bit mode, ring 0) do_round (cpu=cpu@entry=0x14b028 <cpus+40>) at .../demo_guest/guest/main.c:75
(gdb) monitor translate 0x10073f
VP 1
level 4  entry at 0x000000103000 = 0x0000000000104023
level 3  entry at 0x000000104000 = 0x0000000000105023
level 2  entry at 0x000000105000 = 0x00000000000000e3
0x10073f -> physical 0x10073f in a page of 2 MiB; write: yes, user: no, execute: yes
(gdb) detach
[Inferior 1 (Remote target) detached]
"#,
        check: Check::Gdb {
            guest: &[],
            before: &[],
            shown: &[
                "pvh_start () at ",
                "demo_guest/guest/boot.S:58",
                "58\t    cli",
                "Breakpoint 1 at 0x10073f: file ",
                "demo_guest/guest/main.c, line 75.",
                "hit Breakpoint 1, do_round (cpu=",
                "demo_guest/guest/main.c:75",
                "75\t{",
                "#0  do_round (cpu=",
                "in cpu_loop (cpu=",
                "demo_guest/guest/main.c:122",
                "  Id   Target Id ",
                "Thread 1 \"vCPU 0\" (VP 0: stopped, 64-bit mode, ring 0)",
                // The CPU that stops first, and the state of the other CPU, differ between hosts.
                "Thread 2 \"vCPU 1\" (VP 1: ",
                "VP ",
                "0x10073f -> physical 0x10073f ",
                "[Inferior 1 (Remote target) detached]",
            ],
            printed: &[],
        },
    },
    Row {
        page: "CONTRIBUTING.md",
        text: r#"$ cargo run --release            # the demo guest, held at its first instruction
$ cargo xtask test               # everything CI runs; installs what it needs from Debian's packages
$ cargo xtask fmt                # rustfmt and our own lints (`--check` changes nothing)
$ cargo xtask conformance        # the conformance tests with `trapgate exec` around QEMU, beside QEMU's own stub
$ cargo xtask nested             # the real-guest tests inside a Debian kernel with real kvm-amd, and some with kvm-intel, on any machine
$ cargo xtask wire               # the Rust types of the wire, from the `.proto` files
$ cargo xtask pictures           # the SVG files of README and Guide, from their texts (`--record`: the GDB session anew)
$ cargo xtask nested -- COMMAND  # COMMAND inside, with kvm-amd (`--kvm intel`: with kvm-intel)
$ cargo xtask hunt TEST          # TEST in the nested kvm-intel under 200 timings; those under which it fails (`--races`: the Guide's table)
$ cargo xtask soak --minutes 30  # the tests that repeat something, for longer and from fresh seeds
$ cargo xtask bench              # side by side with QEMU's stub; JSON and a chart in target/bench/ (`--nested`: in the bed)
"#,
        check: Check::Options,
    },
    Row {
        page: "Guide/src/exec.md",
        text: r#"$ trapgate exec --wait -- qemu-system-x86_64 -accel kvm -kernel bzImage
$ trapgate exec --gdb 127.0.0.1:0 -- qemu-system-x86_64 -accel kvm -smp 2 disk.qcow2
$ trapgate exec --gdb unix:/run/me/gdb --log debug -- qemu-system-x86_64 -accel kvm disk.qcow2
"#,
        check: Check::Options,
    },
    Row {
        page: "Guide/src/use.md",
        text: r#"$ trapgate run --kernel bzImage --initrd initrd.img --cmdline 'console=ttyS0' --cpus 4 --memory 2G
$ trapgate run --kernel vmlinux --gdb unix:/run/me/gdb --serial file:console.txt
$ trapgate run --gdb off --no-wait         # no debug server: an ordinary small VMM
"#,
        check: Check::Options,
    },
    Row {
        page: "Guide/src/use.md",
        text: r#"$ trapgate gdb
$ trapgate gdb -- -ex 'break do_round' -ex continue
$ trapgate gdb --connect unix:/run/me/gdb --symbols vmlinux
$ trapgate lldb --connect 127.0.0.1:1234
"#,
        check: Check::Options,
    },
    Row {
        page: "Guide/src/use.md",
        text: r#"$ trapgate run --isolate require --dump-dir dumps --log info
"#,
        check: Check::Options,
    },
    Row {
        page: "Guide/src/use.md",
        text: r#"$ trapgate run --log json,debug --metrics unix:/run/me/metrics
"#,
        check: Check::Options,
    },
    Row {
        page: "Guide/src/use.md",
        text: r#"(gdb) set non-stop on
(gdb) target remote 127.0.0.1:1234
(gdb) break do_round thread 1
(gdb) continue &
(gdb) info threads
(gdb) thread 2
(gdb) interrupt
(gdb) continue -a &
(gdb) interrupt -a
"#,
        check: Check::Gdb {
            guest: &[],
            before: &[],
            shown: &[],
            printed: &["Breakpoint 1 at ", "(running)", "[Switching to thread 2"],
        },
    },
    Row {
        page: "Guide/src/use.md",
        text: r#"(gdb) target remote 127.0.0.1:1234
(gdb) break do_round
(gdb) continue
(gdb) info threads
(gdb) thread 2
(gdb) stepi
(gdb) p $cr3
(gdb) x/8i $pc
(gdb) detach
"#,
        check: Check::Gdb {
            guest: &[],
            before: &[],
            shown: &[],
            printed: &[
                "Breakpoint 1 at 0x",
                "hit Breakpoint 1, do_round (cpu=",
                "  Id   Target Id ",
                "[Switching to thread 2 ",
                "$1 = ",
                "=> 0x",
                "[Inferior 1 (Remote target) detached]",
            ],
        },
    },
    Row {
        page: "Guide/src/use.md",
        text: r#"The guest asked to be switched off on VP 0. `continue` carries it out.

Thread 1 "vCPU 0" received signal SIGQUIT, Quit.
(gdb) continue
[Inferior 1 (Remote target) exited normally]
"#,
        check: Check::Gdb {
            guest: &["--cmdline", "scenario=poweroff"],
            before: &["continue"],
            shown: &[
                "The guest asked to be switched off on VP 0. `continue` carries it out.",
                "Thread 1 \"vCPU 0\" received signal SIGQUIT, Quit.",
                "[Inferior 1 (Remote target) exited normally]",
            ],
            printed: &[],
        },
    },
    Row {
        page: "Guide/src/use.md",
        text: r#"$ lldb
(lldb) gdb-remote 127.0.0.1:1234
(lldb) register read
(lldb) thread step-inst
(lldb) process detach
"#,
        check: Check::Lldb(&[
            "rip = 0x",
            "eflags = 0x",
            "k_gs_base = 0x",
            "stop reason = instruction step into",
            "detached",
        ]),
    },
    Row {
        page: "Guide/src/testing.md",
        text: r#"$ cargo xtask nested                                   # the real-guest tests, each program in a fresh boot, some in both KVMs
$ cargo xtask nested --only vp_runner/stepping
$ cargo xtask nested --jobs 1                          # one boot at a time, with its output as it comes
$ cargo xtask nested -- trapgate doctor                # any command, with its exit status
$ cargo xtask nested --kvm intel --only vp_runner/stepping --seed 7 --twice
$ cargo xtask hunt vp_runner/races::a_break_that_crosses vp_runner/many_vps --seeds 1..200
$ cargo xtask hunt --races --seeds 1..20                 # the tests of the Guide's table of races
"#,
        check: Check::Options,
    },
    Row {
        page: "Guide/src/conformance.md",
        text: r#"$ export TRAPGATE_CONFORMANCE_VMM='qemu-system-x86_64 -accel kvm -smp {cpus} -nodefaults -display none -serial stdio -m 64M -kernel {guest} -S -gdb tcp:{address}'
$ cargo test -p conformance --test packets --test gdb --test clients -- --test-threads=1
"#,
        check: Check::Options,
    },
    Row {
        page: "Guide/src/programs.md",
        text: r#"$ trapgate run --gdb off --rpc unix:/run/me/vm.rpc
$ trapgate exec --rpc unix:/run/me/vm.rpc -- qemu-system-x86_64 -accel kvm -kernel bzImage
"#,
        check: Check::Options,
    },
    Row {
        page: "Guide/src/programs.md",
        text: r#"$ trapgate rpc --socket unix:/run/me/vm.rpc status
$ trapgate rpc --socket unix:/run/me/vm.rpc read_memory '[{"Gpa":1048576},16]'
"#,
        check: Check::Options,
    },
];
