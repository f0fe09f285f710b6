//! The packets of GDB's tracepoints (GDB manual, node "Tracepoint Packets").

use super::Packet;
use super::no;
use super::yes;

const IN_THE_GUEST: &str = "fast and static tracepoints need an agent in the guest";
const NO_FILE: &str =
    "the server writes no files; `tsave` without `-r` writes the file on the client's machine";

const DEFINED: &[&str] = &[
    "tracepoints.txt",
    "there_is_a_frame_for_each_round_that_the_guest_counts",
];
const BUFFERED: &[&str] = &[
    "tracepoints.txt",
    "a_buffer_that_is_full_ends_the_trace_and_a_circular_one_keeps_the_last_frames",
];
const KEPT: &[&str] = &[
    "tracepoints.txt",
    "a_client_that_comes_back_has_its_frames_its_tracepoints_and_a_file",
];

/// Node "Tracepoint Packets", and the parts of `qXfer` and of `qSupported` about tracepoints.
pub(super) const PACKETS: &[Packet] = &[
    yes("QTinit", "QTinit", DEFINED),
    yes("QTDP", "QTDP:1:1000:E:0:0", DEFINED),
    yes("QTDPsrc", "QTDPsrc:1:1000:at:0:1:61", DEFINED).announced("TracepointSource+"),
    no(
        "QTDV",
        "QTDV:1:0:0:61",
        "there are no trace state variables; collect registers and memory",
    ),
    yes("QTFrame", "QTFrame:0", DEFINED),
    no("qTMinFTPILen", "qTMinFTPILen", IN_THE_GUEST),
    yes("QTStart", "QTStart", DEFINED),
    yes("QTStop", "QTStop", DEFINED),
    yes("QTEnable", "QTEnable:1:1000", &["tracepoints.txt"]).announced("EnableDisableTracepoints+"),
    yes("QTDisable", "QTDisable:1:1000", &["tracepoints.txt"]),
    yes("QTro", "QTro:1000,2000", &["tracepoints.txt"]),
    yes("QTDisconnected", "QTDisconnected:0", KEPT),
    yes("qTStatus", "qTStatus", DEFINED),
    yes("qTP", "qTP:1:1000", DEFINED),
    no("qTV", "qTV:1", "there are no trace state variables"),
    yes("qTfP", "qTfP", KEPT),
    yes("qTsP", "qTsP", KEPT),
    yes("qTfV", "qTfV", KEPT),
    yes("qTsV", "qTsV", KEPT),
    no("qTfSTM", "qTfSTM", IN_THE_GUEST),
    no("qTsSTM", "qTsSTM", IN_THE_GUEST),
    no("qTSTMat", "qTSTMat:1000", IN_THE_GUEST),
    no("QTSave", "QTSave:61", NO_FILE),
    yes("qTBuffer", "qTBuffer:0,100", DEFINED),
    yes("QTBuffer:circular", "QTBuffer:circular:1", BUFFERED),
    yes("QTBuffer:size", "QTBuffer:size:1000", BUFFERED).announced("QTBuffer:size+"),
    yes("QTNotes", "QTNotes:user:61", &["tracepoints.txt"]),
    yes(
        "qXfer:traceframe-info:read",
        "qXfer:traceframe-info:read::0,100",
        DEFINED,
    )
    .announced("qXfer:traceframe-info:read+"),
    no("qXfer:sdata:read", "qXfer:sdata:read::0,100", IN_THE_GUEST),
    yes("ConditionalTracepoints", "", DEFINED).announced("ConditionalTracepoints+"),
    yes("tracenz", "", DEFINED).announced("tracenz+"),
    no(
        "FastTracepoints, StaticTracepoints and InstallInTrace",
        "",
        IN_THE_GUEST,
    ),
];
