from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Aarch64FpState(_message.Message):
    __slots__ = ["fpcr", "fpsr", "v"]
    FPCR_FIELD_NUMBER: _ClassVar[int]
    FPSR_FIELD_NUMBER: _ClassVar[int]
    V_FIELD_NUMBER: _ClassVar[int]
    fpcr: int
    fpsr: int
    v: bytes
    def __init__(self, v: _Optional[bytes] = ..., fpsr: _Optional[int] = ..., fpcr: _Optional[int] = ...) -> None: ...

class Aarch64VpState(_message.Message):
    __slots__ = ["cpsr", "fp", "pc", "sctlr_el1", "sp_el0", "sp_el1", "tcr_el1", "ttbr0_el1", "ttbr1_el1", "x"]
    CPSR_FIELD_NUMBER: _ClassVar[int]
    FP_FIELD_NUMBER: _ClassVar[int]
    PC_FIELD_NUMBER: _ClassVar[int]
    SCTLR_EL1_FIELD_NUMBER: _ClassVar[int]
    SP_EL0_FIELD_NUMBER: _ClassVar[int]
    SP_EL1_FIELD_NUMBER: _ClassVar[int]
    TCR_EL1_FIELD_NUMBER: _ClassVar[int]
    TTBR0_EL1_FIELD_NUMBER: _ClassVar[int]
    TTBR1_EL1_FIELD_NUMBER: _ClassVar[int]
    X_FIELD_NUMBER: _ClassVar[int]
    cpsr: int
    fp: Aarch64FpState
    pc: int
    sctlr_el1: int
    sp_el0: int
    sp_el1: int
    tcr_el1: int
    ttbr0_el1: int
    ttbr1_el1: int
    x: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, x: _Optional[_Iterable[int]] = ..., sp_el0: _Optional[int] = ..., sp_el1: _Optional[int] = ..., pc: _Optional[int] = ..., cpsr: _Optional[int] = ..., sctlr_el1: _Optional[int] = ..., tcr_el1: _Optional[int] = ..., ttbr0_el1: _Optional[int] = ..., ttbr1_el1: _Optional[int] = ..., fp: _Optional[_Union[Aarch64FpState, _Mapping]] = ...) -> None: ...

class Avx512State(_message.Message):
    __slots__ = ["hi16_zmm", "opmask", "zmm_hi256"]
    HI16_ZMM_FIELD_NUMBER: _ClassVar[int]
    OPMASK_FIELD_NUMBER: _ClassVar[int]
    ZMM_HI256_FIELD_NUMBER: _ClassVar[int]
    hi16_zmm: bytes
    opmask: _containers.RepeatedScalarFieldContainer[int]
    zmm_hi256: bytes
    def __init__(self, opmask: _Optional[_Iterable[int]] = ..., zmm_hi256: _Optional[bytes] = ..., hi16_zmm: _Optional[bytes] = ...) -> None: ...

class DebugRegisters(_message.Message):
    __slots__ = ["db", "dr6", "dr7"]
    DB_FIELD_NUMBER: _ClassVar[int]
    DR6_FIELD_NUMBER: _ClassVar[int]
    DR7_FIELD_NUMBER: _ClassVar[int]
    db: _containers.RepeatedScalarFieldContainer[int]
    dr6: int
    dr7: int
    def __init__(self, db: _Optional[_Iterable[int]] = ..., dr6: _Optional[int] = ..., dr7: _Optional[int] = ...) -> None: ...

class ReadMsr(_message.Message):
    __slots__ = ["index", "vp"]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    VP_FIELD_NUMBER: _ClassVar[int]
    index: int
    vp: int
    def __init__(self, vp: _Optional[int] = ..., index: _Optional[int] = ...) -> None: ...

class SegmentRegister(_message.Message):
    __slots__ = ["attributes", "base", "limit", "selector"]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    attributes: int
    base: int
    limit: int
    selector: int
    def __init__(self, base: _Optional[int] = ..., limit: _Optional[int] = ..., selector: _Optional[int] = ..., attributes: _Optional[int] = ...) -> None: ...

class SetVpState(_message.Message):
    __slots__ = ["state", "vp"]
    STATE_FIELD_NUMBER: _ClassVar[int]
    VP_FIELD_NUMBER: _ClassVar[int]
    state: VpState
    vp: int
    def __init__(self, vp: _Optional[int] = ..., state: _Optional[_Union[VpState, _Mapping]] = ...) -> None: ...

class SseState(_message.Message):
    __slots__ = ["mxcsr", "xmm"]
    MXCSR_FIELD_NUMBER: _ClassVar[int]
    XMM_FIELD_NUMBER: _ClassVar[int]
    mxcsr: int
    xmm: bytes
    def __init__(self, xmm: _Optional[bytes] = ..., mxcsr: _Optional[int] = ...) -> None: ...

class TableRegister(_message.Message):
    __slots__ = ["base", "limit"]
    BASE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    base: int
    limit: int
    def __init__(self, base: _Optional[int] = ..., limit: _Optional[int] = ...) -> None: ...

class VpState(_message.Message):
    __slots__ = ["aarch64", "x86_64"]
    AARCH64_FIELD_NUMBER: _ClassVar[int]
    X86_64_FIELD_NUMBER: _ClassVar[int]
    aarch64: Aarch64VpState
    x86_64: X86VpState
    def __init__(self, x86_64: _Optional[_Union[X86VpState, _Mapping]] = ..., aarch64: _Optional[_Union[Aarch64VpState, _Mapping]] = ...) -> None: ...

class WriteMsr(_message.Message):
    __slots__ = ["index", "value", "vp"]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    VP_FIELD_NUMBER: _ClassVar[int]
    index: int
    value: int
    vp: int
    def __init__(self, vp: _Optional[int] = ..., index: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...

class X86VpState(_message.Message):
    __slots__ = ["apic_base", "avx", "avx512", "cr0", "cr2", "cr3", "cr4", "cr8", "cs", "debug", "ds", "efer", "es", "fs", "gdtr", "gp", "gs", "idtr", "kernel_gs_base", "ldtr", "pkru", "rflags", "rip", "ss", "sse", "tr", "x87", "xcr0"]
    APIC_BASE_FIELD_NUMBER: _ClassVar[int]
    AVX512_FIELD_NUMBER: _ClassVar[int]
    AVX_FIELD_NUMBER: _ClassVar[int]
    CR0_FIELD_NUMBER: _ClassVar[int]
    CR2_FIELD_NUMBER: _ClassVar[int]
    CR3_FIELD_NUMBER: _ClassVar[int]
    CR4_FIELD_NUMBER: _ClassVar[int]
    CR8_FIELD_NUMBER: _ClassVar[int]
    CS_FIELD_NUMBER: _ClassVar[int]
    DEBUG_FIELD_NUMBER: _ClassVar[int]
    DS_FIELD_NUMBER: _ClassVar[int]
    EFER_FIELD_NUMBER: _ClassVar[int]
    ES_FIELD_NUMBER: _ClassVar[int]
    FS_FIELD_NUMBER: _ClassVar[int]
    GDTR_FIELD_NUMBER: _ClassVar[int]
    GP_FIELD_NUMBER: _ClassVar[int]
    GS_FIELD_NUMBER: _ClassVar[int]
    IDTR_FIELD_NUMBER: _ClassVar[int]
    KERNEL_GS_BASE_FIELD_NUMBER: _ClassVar[int]
    LDTR_FIELD_NUMBER: _ClassVar[int]
    PKRU_FIELD_NUMBER: _ClassVar[int]
    RFLAGS_FIELD_NUMBER: _ClassVar[int]
    RIP_FIELD_NUMBER: _ClassVar[int]
    SSE_FIELD_NUMBER: _ClassVar[int]
    SS_FIELD_NUMBER: _ClassVar[int]
    TR_FIELD_NUMBER: _ClassVar[int]
    X87_FIELD_NUMBER: _ClassVar[int]
    XCR0_FIELD_NUMBER: _ClassVar[int]
    apic_base: int
    avx: bytes
    avx512: Avx512State
    cr0: int
    cr2: int
    cr3: int
    cr4: int
    cr8: int
    cs: SegmentRegister
    debug: DebugRegisters
    ds: SegmentRegister
    efer: int
    es: SegmentRegister
    fs: SegmentRegister
    gdtr: TableRegister
    gp: _containers.RepeatedScalarFieldContainer[int]
    gs: SegmentRegister
    idtr: TableRegister
    kernel_gs_base: int
    ldtr: SegmentRegister
    pkru: int
    rflags: int
    rip: int
    ss: SegmentRegister
    sse: SseState
    tr: SegmentRegister
    x87: X87State
    xcr0: int
    def __init__(self, gp: _Optional[_Iterable[int]] = ..., rip: _Optional[int] = ..., rflags: _Optional[int] = ..., cr0: _Optional[int] = ..., cr2: _Optional[int] = ..., cr3: _Optional[int] = ..., cr4: _Optional[int] = ..., cr8: _Optional[int] = ..., efer: _Optional[int] = ..., apic_base: _Optional[int] = ..., kernel_gs_base: _Optional[int] = ..., es: _Optional[_Union[SegmentRegister, _Mapping]] = ..., cs: _Optional[_Union[SegmentRegister, _Mapping]] = ..., ss: _Optional[_Union[SegmentRegister, _Mapping]] = ..., ds: _Optional[_Union[SegmentRegister, _Mapping]] = ..., fs: _Optional[_Union[SegmentRegister, _Mapping]] = ..., gs: _Optional[_Union[SegmentRegister, _Mapping]] = ..., tr: _Optional[_Union[SegmentRegister, _Mapping]] = ..., ldtr: _Optional[_Union[SegmentRegister, _Mapping]] = ..., gdtr: _Optional[_Union[TableRegister, _Mapping]] = ..., idtr: _Optional[_Union[TableRegister, _Mapping]] = ..., debug: _Optional[_Union[DebugRegisters, _Mapping]] = ..., x87: _Optional[_Union[X87State, _Mapping]] = ..., sse: _Optional[_Union[SseState, _Mapping]] = ..., avx: _Optional[bytes] = ..., avx512: _Optional[_Union[Avx512State, _Mapping]] = ..., pkru: _Optional[int] = ..., xcr0: _Optional[int] = ...) -> None: ...

class X87State(_message.Message):
    __slots__ = ["fcs", "fcw", "fdp", "fds", "fip", "fop", "fsw", "ftw", "st"]
    FCS_FIELD_NUMBER: _ClassVar[int]
    FCW_FIELD_NUMBER: _ClassVar[int]
    FDP_FIELD_NUMBER: _ClassVar[int]
    FDS_FIELD_NUMBER: _ClassVar[int]
    FIP_FIELD_NUMBER: _ClassVar[int]
    FOP_FIELD_NUMBER: _ClassVar[int]
    FSW_FIELD_NUMBER: _ClassVar[int]
    FTW_FIELD_NUMBER: _ClassVar[int]
    ST_FIELD_NUMBER: _ClassVar[int]
    fcs: int
    fcw: int
    fdp: int
    fds: int
    fip: int
    fop: int
    fsw: int
    ftw: int
    st: bytes
    def __init__(self, st: _Optional[bytes] = ..., fcw: _Optional[int] = ..., fsw: _Optional[int] = ..., ftw: _Optional[int] = ..., fop: _Optional[int] = ..., fip: _Optional[int] = ..., fcs: _Optional[int] = ..., fdp: _Optional[int] = ..., fds: _Optional[int] = ...) -> None: ...
