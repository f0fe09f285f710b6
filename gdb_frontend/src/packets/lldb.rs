//! The packets of LLDB's document "GDB Remote Protocol Extensions" (LLDB 22), and packets that LLDB sends without a word in the document.

use super::Packet;
use super::no;
use super::yes;

const MACHINE: &str =
    "the guest is a machine, and no program that the server could start or choose";
const PLATFORM_MODE: &str = "only a platform answers this, `lldb-server platform`";
const FILES: &str = "the server opens no file for a client";
const DARWIN: &str = "only for Darwin";
const TRACE: &str = "KVM gives the host no processor trace of a guest";
const ACCELERATOR: &str = "a guest has no accelerator that its own debug server serves";
const WASM: &str = "only for WebAssembly";
const LOADER: &str =
    "the guest's kernel has no list of libraries; load its symbols with `target modules load`";

/// What a debugger asks of a debug server.
pub(super) const PACKETS: &[Packet] = &[
    no(
        "_M",
        "_M1000,rwx",
        "all memory and page tables belong to the guest",
    ),
    no(
        "_m",
        "_m1000",
        "all memory and page tables belong to the guest",
    ),
    no(
        "D1",
        "D1",
        "a guest that stays stopped without a debugger would look like one that hangs; `--on-disconnect` decides",
    ),
    no(
        "qSupportsDetachAndStayStopped",
        "qSupportsDetachAndStayStopped:",
        "as `D1`",
    ),
    no(
        "jAddressSpacesInfo",
        "jAddressSpacesInfo",
        "the server shows one address space, that of the page tables; `monitor xp` and `Qqemu.PhyMemMode` read physical memory",
    ),
    yes(
        "jMultiBreakpoint",
        "jMultiBreakpoint:{\"breakpoint_requests\":[\"Z0,1000,1\"]}",
        &["lldb_breakpoints.txt"],
    )
    .announced("jMultiBreakpoint+"),
    no(
        "jThreadExtendedInfo",
        "jThreadExtendedInfo:{\"thread\":1}",
        DARWIN,
    ),
    yes(
        "jThreadsInfo",
        "jThreadsInfo",
        &[
            "threads_stop_info.txt",
            "lldb_counts_what_the_guest_counts_whatever_is_done_at_a_stop",
        ],
    ),
    yes(
        "MultiMemRead",
        "MultiMemRead:ranges:1000,4,2000,4;",
        &[
            "lldb_memory.txt",
            "ranges_that_do_not_fit_a_packet_are_cut_and_their_lengths_say_so",
        ],
    )
    .announced("MultiMemRead+"),
    no(
        "QEnableCompression",
        "QEnableCompression:type:zlib-deflate;",
        "a debugger sits on the same host or network, where compression costs more time than it saves",
    ),
    yes(
        "QEnableErrorStrings",
        "QEnableErrorStrings",
        &["connect_lldb.txt", "lldb_threads.txt"],
    ),
    yes(
        "QListThreadsInStopReply",
        "QListThreadsInStopReply",
        &[
            "connect_lldb.txt",
            "lldb_threads.txt",
            "lldb_gets_threads_and_registers_with_a_stop_and_does_not_ask_for_them",
        ],
    ),
    no(
        "QSaveRegisterState",
        "QSaveRegisterState",
        "only calls of functions need it, and LLDB cannot call without memory of its own (`_M`)",
    ),
    no(
        "QRestoreRegisterState",
        "QRestoreRegisterState:1",
        "as `QSaveRegisterState`",
    ),
    no(
        "QSetDetachOnError",
        "QSetDetachOnError:1",
        "`--on-disconnect` decides",
    ),
    yes(
        "QThreadSuffixSupported",
        "QThreadSuffixSupported",
        &[
            "connect_lldb.txt",
            "lldb_threads.txt",
            "lldb_gets_threads_and_registers_with_a_stop_and_does_not_ask_for_them",
        ],
    ),
    no("qFileLoadAddress", "qFileLoadAddress:2f", LOADER),
    yes(
        "qGDBServerVersion",
        "qGDBServerVersion",
        &["lldb_threads.txt"],
    ),
    yes("qHostInfo", "qHostInfo", &["connect_lldb.txt"]),
    yes(
        "qMemoryRegionInfo",
        "qMemoryRegionInfo:1000",
        &[
            "memory_regions.txt",
            "memory_regions_are_those_of_the_page_tables",
            "save_core_writes_a_file_that_lldb_opens",
        ],
    ),
    yes("qProcessInfo", "qProcessInfo", &["connect_lldb.txt"]),
    no(
        "qRegisterInfo",
        "qRegisterInfo0",
        "`qXfer:features:read` describes the registers",
    ),
    no("qShlibInfoAddr", "qShlibInfoAddr", LOADER),
    no(
        "qSpeedTest",
        "qSpeedTest:response_size:10;",
        "only LLDB's own tests of a connection send it",
    ),
    no("qStructuredDataPlugins", "qStructuredDataPlugins", DARWIN),
    yes(
        "qThreadStopInfo",
        "qThreadStopInfo1",
        &[
            "threads_stop_info.txt",
            "lldb_counts_what_the_guest_counts_whatever_is_done_at_a_stop",
        ],
    ),
    yes(
        "qWatchpointSupportInfo",
        "qWatchpointSupportInfo:",
        &["lldb_breakpoints.txt"],
    ),
    no(
        "x in its form before GDB 16",
        "",
        "LLDB 21 takes the form of GDB 16; after our reply to `x0,0`, LLDB 14 and 19 use `m`",
    ),
    no(
        "SupportedWatchpointTypes",
        "",
        "the sizes of x86-64 are what LLDB assumes",
    ),
    no(
        "qEcho",
        "qEcho:1",
        "LLDB sends it only after a reply that came too late, if it is announced",
    ),
    no(
        "qSyncThreadStateSupported",
        "qSyncThreadStateSupported",
        DARWIN,
    ),
    no("jGetDyldProcessState", "jGetDyldProcessState", DARWIN),
    no(
        "jGetLoadedDynamicLibrariesInfos",
        "jGetLoadedDynamicLibrariesInfos:{\"fetch_all_solibs\":true}",
        DARWIN,
    ),
    no("jGetSharedCacheInfo", "jGetSharedCacheInfo:{}", DARWIN),
    no("jModulesInfo", "jModulesInfo:[]", LOADER),
    no("qModuleInfo", "qModuleInfo:2f;61", LOADER),
    no("jSignalsInfo", "jSignalsInfo", "a guest has no signals"),
    no("jLLDBTraceSupported", "jLLDBTraceSupported", TRACE),
    no(
        "jLLDBTraceStart",
        "jLLDBTraceStart:{\"type\":\"intel-pt\"}",
        TRACE,
    ),
    no(
        "jLLDBTraceStop",
        "jLLDBTraceStop:{\"type\":\"intel-pt\"}",
        TRACE,
    ),
    no(
        "jLLDBTraceGetState",
        "jLLDBTraceGetState:{\"type\":\"intel-pt\"}",
        TRACE,
    ),
    no(
        "jLLDBTraceGetBinaryData",
        "jLLDBTraceGetBinaryData:{\"type\":\"intel-pt\"}",
        TRACE,
    ),
    no(
        "jAcceleratorPluginInitialize",
        "jAcceleratorPluginInitialize",
        ACCELERATOR,
    ),
    no(
        "jAcceleratorPluginBreakpointHit",
        "jAcceleratorPluginBreakpointHit:{}",
        ACCELERATOR,
    ),
    no("qWasmCallStack", "qWasmCallStack:1", WASM),
    no("qWasmGlobal", "qWasmGlobal:0;2", WASM),
    no("qWasmLocal", "qWasmLocal:0;2", WASM),
    no("qWasmStackValue", "qWasmStackValue:0;2", WASM),
];

/// What a debugger asks of a platform, of a server that starts programs, and of files.
pub(super) const PLATFORM: &[Packet] = &[
    no("QEnvironment", "QEnvironment:a=b", MACHINE),
    no("QLaunchArch", "QLaunchArch:x86_64", MACHINE),
    no("QSetDisableASLR", "QSetDisableASLR:1", MACHINE),
    no("QSetSTDIN", "QSetSTDIN:2f", MACHINE),
    no("QSetSTDOUT", "QSetSTDOUT:2f", MACHINE),
    no("QSetSTDERR", "QSetSTDERR:2f", MACHINE),
    no(
        "QSetSTDIOWindowSize",
        "QSetSTDIOWindowSize:cols=80;rows=24",
        MACHINE,
    ),
    no("qLaunchSuccess", "qLaunchSuccess", MACHINE),
    no(
        "qVAttachOrWaitSupported",
        "qVAttachOrWaitSupported",
        MACHINE,
    ),
    no("vAttachName", "vAttachName;61", MACHINE),
    no("vAttachOrWait", "vAttachOrWait;61", MACHINE),
    no("vAttachWait", "vAttachWait;61", MACHINE),
    no("qfProcessInfo", "qfProcessInfo", PLATFORM_MODE),
    no("qsProcessInfo", "qsProcessInfo", PLATFORM_MODE),
    no("qProcessInfoPID", "qProcessInfoPID:1", PLATFORM_MODE),
    no("qGetWorkingDir", "qGetWorkingDir", PLATFORM_MODE),
    no(
        "qKillSpawnedProcess",
        "qKillSpawnedProcess:1",
        PLATFORM_MODE,
    ),
    no(
        "qLaunchGDBServer",
        "qLaunchGDBServer:port:0;",
        PLATFORM_MODE,
    ),
    no("qQueryGDBServer", "qQueryGDBServer", PLATFORM_MODE),
    no("qPathComplete", "qPathComplete:0,2f", PLATFORM_MODE),
    no("qPlatform_mkdir", "qPlatform_mkdir:1ff,2f", PLATFORM_MODE),
    no("qPlatform_chmod", "qPlatform_chmod:1ff,2f", PLATFORM_MODE),
    no("qPlatform_shell", "qPlatform_shell:6c73,0", PLATFORM_MODE),
    no("vFile:chmod", "vFile:chmod:1ff,2f", FILES),
    no("vFile:exists", "vFile:exists:2f", FILES),
    no("vFile:MD5", "vFile:MD5:2f", FILES),
    no("vFile:mode", "vFile:mode:2f", FILES),
    no("vFile:size", "vFile:size:2f", FILES),
    no("vFile:symlink", "vFile:symlink:2f,2f", FILES),
];
