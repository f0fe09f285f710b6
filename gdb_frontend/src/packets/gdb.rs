//! The packets of the GDB manual, appendix "Remote Protocol", and of QEMU.

use super::Packet;
use super::no;
use super::yes;

const EXTENDED: &str = "run_resets_the_machine_and_kill_leaves_it_for_run_or_attach";
const REAL_GDB: &str = "gdb_reads_writes_steps_and_detaches";
const THREADS: &str = "each_cpu_is_a_thread_with_its_own_registers_and_stack";
const WATCH: &str = "watchpoints_hit_or_are_refused_in_words";
const BREAK: &str = "a_breakpoint_shows_where_it_is_and_how_it_got_there";

const OLD: &str = "no client sends this old packet";
const MACHINE: &str =
    "the guest is a machine, and no program that the server could start or choose";
const BACKWARDS: &str = "the processor keeps no record by which it could run backwards";
const SYSTEM_CALLS: &str = "the server does not know the guest's operating system";
const FLASH: &str = "no memory of the guest is flash";
const TAGS: &str = "x86-64 has no memory tags";
const BRANCHES: &str = "KVM gives the host no branch trace of a guest";
const FILES: &str = "the client may read the file with the symbols of the guest, and nothing else";
const MEMORY_MAP: &str = "a map hinders GDB. GDB 13.1, 16.3 and 18.1 take a map of physical memory for a map of virtual addresses, and GDB 13.1 reads it only once in a session, before the guest turns paging on: with a map that ended at 0x140000, \
     `p cpus[0]` of the demo guest, at 0x14b000, was `Cannot access memory` until `set mem inaccessible-by-default off`, as each address of a kernel's upper half would be; `break` in a range of ROM became a hardware breakpoint. \
     `info os memory`, `monitor info mtree` and `monitor info mem` show the ranges";
const SYMBOLS: &[&str] = &[
    "symbol_file.txt",
    "every_gdb_without_an_argument_has_the_symbols_of_the_guest_isolated_and_in_process",
    "a_client_of_a_worker_gets_no_other_file",
];
const NON_STOP: &[&str] = &[
    "non_stop.txt",
    "every_hit_is_told_once_on_one_to_eight_vcpus_with_breakpoints_of_both_kinds",
];
const LOADER: &str =
    "the guest's kernel has no list of libraries; load its symbols with `symbol-file`";

/// Node "Packets".
pub(super) const PACKETS: &[Packet] = &[
    yes("!", "!", &["extended.txt", EXTENDED]),
    yes(
        "?",
        "?",
        &[
            "resume.txt",
            "connect_gdb.txt",
            "the_guest_is_held_at_its_first_instruction_with_source_lines",
        ],
    ),
    no("A", "A4,0,6161", MACHINE),
    no("b", "b9600", OLD),
    no("B", "B1000,S", OLD),
    no("bc", "bc", BACKWARDS),
    no("bs", "bs", BACKWARDS),
    yes("c", "c", &["resume.txt", "resume_old_client.txt"]),
    yes("C", "C05", &["resume.txt"]),
    no("d", "d", OLD),
    yes(
        "D",
        "D",
        &[
            "detach.txt",
            "detach_running.txt",
            "by_detach_which_lets_the_guest_run_whatever_the_setting",
        ],
    ),
    no("F", "F0", "the server asks the client for no system calls"),
    yes("g", "g", &["registers.txt", "runs.txt", THREADS]),
    yes("G", "G", &["registers_written_by_g_come_back"]),
    yes("H", "Hg1", &["threads.txt", THREADS]),
    no("i", "i", OLD),
    no("I", "I", OLD),
    yes("k", "k", &["kill.txt", "kill_lldb.txt", "by_kill"]),
    yes(
        "m",
        "m1000,4",
        &[
            "memory.txt",
            "memory_is_read_and_written_and_errors_are_told",
        ],
    ),
    yes(
        "M",
        "M1000,1:00",
        &[
            "memory.txt",
            "memory_is_read_and_written_and_errors_are_told",
        ],
    ),
    yes("p", "p0", &["registers.txt"]),
    yes(
        "P",
        "P0=0000000000000000",
        &["registers.txt", "each_register_is_written_alone"],
    ),
    no("r", "r", OLD),
    yes("R", "R00", &["extended.txt"]),
    yes(
        "s",
        "s",
        &[
            "resume.txt",
            "stepping_goes_instruction_by_instruction_and_line_by_line",
        ],
    ),
    yes("S", "S05", &["resume.txt"]),
    no("t", "t1000:0,0", OLD),
    yes("T", "T1", &["threads.txt"]),
    yes("vAttach", "vAttach;1", &["extended.txt", EXTENDED]),
    yes(
        "vCont",
        "vCont;c",
        &["vcont.txt", "each_thread_does_what_it_is_told"],
    )
    .announced("vContSupported+"),
    yes("vCont?", "vCont?", &["vcont.txt", "connect_gdb.txt"]),
    yes("vCtrlC", "vCtrlC", &["interrupt.txt"]),
    no("vFlashErase", "vFlashErase:0,1000", FLASH),
    no("vFlashWrite", "vFlashWrite:0:a", FLASH),
    no("vFlashDone", "vFlashDone", FLASH),
    yes(
        "vKill",
        "vKill;1",
        &[
            "vkill.txt",
            "gdbs_kill_leaves_the_guest_running_unless_the_policy_says_otherwise",
        ],
    ),
    no(
        "vMustReplyEmpty",
        "vMustReplyEmpty",
        "the manual requires an empty reply",
    ),
    yes("vRun", "vRun;", &["extended.txt", EXTENDED]),
    yes("vStopped", "vStopped", NON_STOP),
    yes(
        "x",
        "x1000,4",
        &["connect_gdb16.txt", "a_large_reply_arrives_whole"],
    )
    .announced("binary-upload+"),
    yes("X", "X1000,0:", &["memory.txt"]),
    yes("Z0", "Z0,1000,1", &["breakpoints.txt", BREAK]),
    yes("z0", "z0,1000,1", &["breakpoints.txt", BREAK]),
    yes(
        "Z1",
        "Z1,1000,1",
        &[
            "breakpoints.txt",
            "hardware_breakpoints_and_steps_stay_right_through_every_mode",
        ],
    ),
    yes("z1", "z1,1000,1", &["breakpoints.txt"]),
    yes("Z2", "Z2,1000,4", &["breakpoints.txt", WATCH]),
    yes("z2", "z2,1000,4", &["breakpoints.txt", WATCH]),
    yes("Z3", "Z3,1000,4", &["breakpoints.txt", WATCH]),
    yes("z3", "z3,1000,4", &["breakpoints.txt", WATCH]),
    yes("Z4", "Z4,1000,4", &["breakpoints.txt", WATCH]),
    yes("z4", "z4,1000,4", &["breakpoints.txt", WATCH]),
];

/// Node "General Query Packets".
pub(super) const QUERIES: &[Packet] = &[
    no("QAgent", "QAgent:1", "no agent runs in the guest"),
    no(
        "QAllow",
        "QAllow:WriteReg:1",
        "a client that may not write would need a policy of the server and not of the client",
    ),
    yes(
        "qAttached",
        "qAttached",
        &["queries.txt", "connect_gdb.txt"],
    ),
    yes("qC", "qC", &["threads.txt"]),
    no("QCatchSyscalls", "QCatchSyscalls:1", SYSTEM_CALLS),
    yes(
        "qCRC",
        "qCRC:1000,10",
        &[
            "checksum.txt",
            "compare_sections_compares_in_the_server_and_sees_the_bytes_of_the_guest",
        ],
    ),
    no("QDisableRandomization", "QDisableRandomization:1", MACHINE),
    no(
        "QEnvironmentHexEncoded",
        "QEnvironmentHexEncoded:613d62",
        MACHINE,
    ),
    no("QEnvironmentReset", "QEnvironmentReset", MACHINE),
    no("QEnvironmentUnset", "QEnvironmentUnset:61", MACHINE),
    yes("qExecAndArgs", "qExecAndArgs", &["extended.txt", EXTENDED]),
    yes("qfThreadInfo", "qfThreadInfo", &["threads.txt"]),
    no("qGetTIBAddr", "qGetTIBAddr:1", SYSTEM_CALLS),
    no("qGetTLSAddr", "qGetTLSAddr:1,0,0", SYSTEM_CALLS),
    no("qIsAddressTagged", "qIsAddressTagged:1000", TAGS),
    no("qL", "qL0100000000000000000", OLD),
    no("qMemTags", "qMemTags:1000,10:1", TAGS),
    no("QMemTags", "QMemTags:1000,10:1:00", TAGS),
    yes(
        "QNonStop",
        "QNonStop:1",
        &[
            "non_stop.txt",
            "gdb_stops_steps_and_inspects_one_vcpu_while_the_others_run",
        ],
    )
    .announced("QNonStop+"),
    no(
        "qOffsets",
        "qOffsets",
        "the addresses of the symbol file are those of the guest; for another place use `symbol-file -o`",
    ),
    no("qP", "qP0000001f0000000000000001", OLD),
    no("QPassSignals", "QPassSignals:e", "a guest has no signals"),
    no(
        "QProgramSignals",
        "QProgramSignals:e",
        "a guest has no signals",
    ),
    yes(
        "qRcmd",
        "qRcmd,68656c70",
        &["queries.txt", "the_monitor_commands_answer"],
    ),
    yes(
        "qSearch:memory",
        "qSearch:memory:1000;10;a",
        &[
            "search_memory.txt",
            "find_searches_in_the_server_and_sees_the_bytes_of_the_guest",
        ],
    ),
    no("QSetWorkingDir", "QSetWorkingDir:2f", MACHINE),
    yes("qsThreadInfo", "qsThreadInfo", &["threads.txt"]),
    yes(
        "QStartNoAckMode",
        "QStartNoAckMode",
        &["acknowledgements.txt"],
    )
    .announced("QStartNoAckMode+"),
    no("QStartupWithShell", "QStartupWithShell:1", MACHINE),
    yes(
        "qSupported",
        "qSupported:swbreak+",
        &["connect_gdb.txt", "connect_gdb16.txt", "pwndbg.txt"],
    ),
    no(
        "qSymbol",
        "qSymbol::",
        "the server needs no symbols; `monitor help` names the command that takes one",
    ),
    yes(
        "qThreadExtraInfo",
        "qThreadExtraInfo,2",
        &["threads.txt", THREADS],
    ),
    no(
        "QThreadEvents",
        "QThreadEvents:1",
        "vCPUs do not come and go while the guest runs",
    ),
    no(
        "QThreadOptions",
        "QThreadOptions;1",
        "a vCPU makes no other threads",
    ),
    no("qXfer:auxv:read", "qXfer:auxv:read::0,100", SYSTEM_CALLS),
    no("qXfer:btrace:read", "qXfer:btrace:read:all:0,100", BRANCHES),
    no(
        "qXfer:btrace-conf:read",
        "qXfer:btrace-conf:read::0,100",
        BRANCHES,
    ),
    no("Qbtrace:bts", "Qbtrace:bts", BRANCHES),
    no("Qbtrace:pt", "Qbtrace:pt", BRANCHES),
    no("Qbtrace:off", "Qbtrace:off", BRANCHES),
    no(
        "Qbtrace-conf:bts:size",
        "Qbtrace-conf:bts:size=1000",
        BRANCHES,
    ),
    no(
        "Qbtrace-conf:pt:size",
        "Qbtrace-conf:pt:size=1000",
        BRANCHES,
    ),
    no(
        "Qbtrace-conf:pt:ptwrite",
        "Qbtrace-conf:pt:ptwrite=yes",
        BRANCHES,
    ),
    no(
        "Qbtrace-conf:pt:event-tracing",
        "Qbtrace-conf:pt:event-tracing=yes",
        BRANCHES,
    ),
    yes(
        "qXfer:exec-file:read",
        "qXfer:exec-file:read::0,100",
        SYMBOLS,
    )
    .announced_with_symbols("qXfer:exec-file:read+"),
    no("qXfer:fdpic:read", "qXfer:fdpic:read:exec:0,100", LOADER),
    yes(
        "qXfer:features:read",
        "qXfer:features:read:target.xml:0,100",
        &[
            "queries.txt",
            "connect_gdb.txt",
            "gdb_shows_the_registers_of_x86",
        ],
    )
    .announced("qXfer:features:read+"),
    no(
        "qXfer:libraries:read",
        "qXfer:libraries:read::0,100",
        LOADER,
    ),
    no(
        "qXfer:libraries-svr4:read",
        "qXfer:libraries-svr4:read::0,100",
        LOADER,
    ),
    no(
        "qXfer:memory-map:read",
        "qXfer:memory-map:read::0,100",
        MEMORY_MAP,
    ),
    yes(
        "qXfer:osdata:read",
        "qXfer:osdata:read::0,100",
        &["tables.txt", "info_os_shows_vcpus_breakpoints_and_memory"],
    )
    .announced("qXfer:osdata:read+"),
    no(
        "qXfer:siginfo:read",
        "qXfer:siginfo:read::0,100",
        "a guest has no signals",
    ),
    no(
        "qXfer:siginfo:write",
        "qXfer:siginfo:write::0:a",
        "a guest has no signals",
    ),
    yes(
        "qXfer:threads:read",
        "qXfer:threads:read::0,100",
        &["threads.txt", THREADS],
    )
    .announced("qXfer:threads:read+"),
    no(
        "qXfer:uib:read",
        "qXfer:uib:read:0:0,100",
        "only OpenVMS on Itanium has unwind information blocks",
    ),
];

/// Node "Host I/O Packets".
pub(super) const HOST_IO: &[Packet] = &[
    yes("vFile:setfs", "vFile:setfs:0", SYMBOLS),
    yes("vFile:open", "vFile:open:2f,0,0", SYMBOLS),
    yes("vFile:close", "vFile:close:3", SYMBOLS),
    yes("vFile:pread", "vFile:pread:3,10,0", SYMBOLS),
    no("vFile:pwrite", "vFile:pwrite:3,0,a", FILES),
    yes("vFile:fstat", "vFile:fstat:3", SYMBOLS),
    no("vFile:stat", "vFile:stat:2f", FILES),
    no("vFile:lstat", "vFile:lstat:2f", FILES),
    no("vFile:unlink", "vFile:unlink:2f", FILES),
    yes("vFile:readlink", "vFile:readlink:2f", &["symbol_file.txt"]),
];

/// Nodes "Stop Reply Packets", "Notification Packets" and "General Query Packets" (`qSupported`).
pub(super) const REPLIES: &[Packet] = &[
    no("S", "", "a `T` reply says more"),
    yes("T", "", &["resume.txt", REAL_GDB]),
    yes("T with swbreak", "", &["resume.txt"]).announced("swbreak+"),
    yes("T with hwbreak", "", &["resume.txt"]).announced("hwbreak+"),
    yes("T with watch, rwatch or awatch", "", &["resume.txt", WATCH]),
    no(
        "T with several watch",
        "",
        "the debug registers of x86 are shown one watchpoint a stop; feature `multi-wp-addr`",
    ),
    no(
        "T with core",
        "",
        "a thread is a vCPU; the host's cores are the scheduler's business",
    ),
    no(
        "T with create, clone, fork, vfork, vforkdone, exec, syscall_entry, syscall_return or library",
        "",
        SYSTEM_CALLS,
    ),
    no("T with replaylog", "", BACKWARDS),
    yes("W", "", &["guest_ends.txt"]),
    yes("X", "", &["guest_ends_badly.txt"]),
    no("w and N", "", "the last vCPU does not end before the guest"),
    yes(
        "O",
        "",
        &[
            "queries.txt",
            "a_dprintf_in_agent_style_prints_each_hit_in_order",
        ],
    ),
    no(
        "F",
        "",
        "a guest has no system calls that a client could carry out",
    ),
    yes("%Stop", "", NON_STOP),
    yes(
        "0x03 (Ctrl-C)",
        "",
        &[
            "interrupt.txt",
            "a_running_guest_stops_when_asked_and_goes_on",
            "ctrl_c_stops_a_guest_with_a_dprintf",
        ],
    ),
    yes(
        "+ and -",
        "",
        &[
            "acknowledgements.txt",
            "bad_framing.txt",
            "damaged_packets_are_asked_for_again",
        ],
    ),
    yes(
        "Run-length encoding",
        "",
        &["runs.txt", "hex_with_runs_round_trips"],
    ),
    yes(
        "ConditionalBreakpoints",
        "",
        &["a_condition_of_gdb_is_evaluated_by_each_vcpu_that_reaches_the_breakpoint"],
    )
    .announced("ConditionalBreakpoints+"),
    yes(
        "BreakpointCommands",
        "",
        &["a_dprintf_in_agent_style_prints_each_hit_in_order"],
    )
    .announced("BreakpointCommands+"),
    yes(
        "error-message",
        "",
        &[
            "connect_gdb16.txt",
            "client_features_are_taken_only_with_a_plus",
        ],
    )
    .announced_with_error_message("error-message+"),
    no("multiprocess", "", "there is one guest"),
    no(
        "fork-events, vfork-events and exec-events",
        "",
        SYSTEM_CALLS,
    ),
    no(
        "no-resumed",
        "",
        "the last vCPU does not end before the guest",
    ),
    no("ReverseStep and ReverseContinue", "", BACKWARDS),
    no("memory-tagging", "", TAGS),
    no("single-inf-arg", "", MACHINE),
    no("qRelocInsn", "", "there are no fast tracepoints"),
];

/// QEMU's packets. Scripts and plug-ins send some of them with either first letter.
pub(super) const QEMU: &[Packet] = &[
    yes("qqemu.sstepbits", "qqemu.sstepbits", &["qemu_steps.txt"]),
    yes("qqemu.sstep", "qqemu.sstep", &["qemu_steps.txt"]),
    yes(
        "Qqemu.sstep",
        "Qqemu.sstep=3",
        &[
            "qemu_steps.txt",
            "no_step_of_ten_thousand_lands_in_the_handler",
        ],
    ),
    yes("qqemu.Supported", "qqemu.Supported", &["qemu_steps.txt"]),
    yes(
        "qqemu.PhyMemMode",
        "qqemu.PhyMemMode",
        &["qemu_physical_memory.txt", "gef.txt"],
    ),
    yes(
        "Qqemu.PhyMemMode",
        "Qqemu.PhyMemMode:0",
        &[
            "qemu_physical_memory.txt",
            "physical_memory_is_read_and_written_while_the_mode_is_on",
        ],
    ),
];
