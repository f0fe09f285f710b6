//! The packets of GDB's tracepoints (GDB manual, node "Tracepoint Packets").

use super::Packet;
use super::no;

const NOT_YET: &str =
    "tracepoints are not implemented; a `dprintf` in agent style prints without stopping the guest";
const IN_THE_GUEST: &str = "fast and static tracepoints need an agent in the guest";

/// Node "Tracepoint Packets", and the parts of `qXfer` and of `qSupported` about tracepoints.
pub(super) const PACKETS: &[Packet] = &[
    no("QTinit", "QTinit", NOT_YET),
    no("QTDP", "QTDP:1:1000:E:0:0", NOT_YET),
    no("QTDPsrc", "QTDPsrc:1:1000:at:0:1:61", NOT_YET),
    no("QTDV", "QTDV:1:0:0:61", NOT_YET),
    no("QTFrame", "QTFrame:0", NOT_YET),
    no("qTMinFTPILen", "qTMinFTPILen", IN_THE_GUEST),
    no("QTStart", "QTStart", NOT_YET),
    no("QTStop", "QTStop", NOT_YET),
    no("QTEnable", "QTEnable:1:1000", NOT_YET),
    no("QTDisable", "QTDisable:1:1000", NOT_YET),
    no("QTro", "QTro:1000,2000", NOT_YET),
    no("QTDisconnected", "QTDisconnected:1", NOT_YET),
    no("qTStatus", "qTStatus", NOT_YET),
    no("qTP", "qTP:1:1000", NOT_YET),
    no("qTV", "qTV:1", NOT_YET),
    no("qTfP", "qTfP", NOT_YET),
    no("qTsP", "qTsP", NOT_YET),
    no("qTfV", "qTfV", NOT_YET),
    no("qTsV", "qTsV", NOT_YET),
    no("qTfSTM", "qTfSTM", IN_THE_GUEST),
    no("qTsSTM", "qTsSTM", IN_THE_GUEST),
    no("qTSTMat", "qTSTMat:1000", IN_THE_GUEST),
    no("QTSave", "QTSave:61", NOT_YET),
    no("qTBuffer", "qTBuffer:0,100", NOT_YET),
    no("QTBuffer:circular", "QTBuffer:circular:1", NOT_YET),
    no("QTBuffer:size", "QTBuffer:size:1000", NOT_YET),
    no("QTNotes", "QTNotes:user:61", NOT_YET),
    no(
        "qXfer:traceframe-info:read",
        "qXfer:traceframe-info:read::0,100",
        NOT_YET,
    ),
    no("qXfer:sdata:read", "qXfer:sdata:read::0,100", IN_THE_GUEST),
    no(
        "ConditionalTracepoints, TracepointSource, EnableDisableTracepoints and tracenz",
        "",
        NOT_YET,
    ),
    no(
        "FastTracepoints, StaticTracepoints and InstallInTrace",
        "",
        IN_THE_GUEST,
    ),
];
