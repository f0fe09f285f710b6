//! Register files.

use super::Field;
use super::Value;
use super::message;
use super::missing;
use super::out_of_range;
use super::proto;
use super::required;
use super::tuple;
use crate::addr::VpIndex;
use crate::debug_rpc::BadMessage;
use crate::regs::Aarch64VpState;
use crate::regs::DebuggerVpState;
use crate::regs::X86VpState;
use crate::regs::aarch64::Aarch64FpState;
use crate::regs::x86_64::Avx512State;
use crate::regs::x86_64::DebugRegisters;
use crate::regs::x86_64::SegmentRegister;
use crate::regs::x86_64::SseState;
use crate::regs::x86_64::TableRegister;
use crate::regs::x86_64::X87State;
use bytes::Bytes;
use bytes::BytesMut;

message! {
    X86VpState {
        gp, rip, rflags, cr0, cr2, cr3, cr4, cr8, efer, apic_base, kernel_gs_base, es, cs, ss, ds, fs, gs, tr, ldtr, gdtr, idtr, debug, x87, sse, avx,
        avx512, pkru, xcr0,
    }
    SegmentRegister { base, limit, selector, attributes }
    TableRegister { base, limit }
    DebugRegisters { db, dr6, dr7 }
    X87State { st, fcw, fsw, ftw, fop, fip, fcs, fdp, fds }
    SseState { xmm, mxcsr }
    Avx512State { opmask, zmm_hi256, hi16_zmm }
    Aarch64VpState { x, sp_el0, sp_el1, pc, cpsr, sctlr_el1, tcr_el1, ttbr0_el1, ttbr1_el1, fp }
    Aarch64FpState { v, fpsr, fpcr }
}

tuple! {
    (VpIndex, Box<DebuggerVpState>) => SetVpState (vp, state);
    (VpIndex, u32) => ReadMsr (vp, index);
    (VpIndex, u32, u64) => WriteMsr (vp, index, value);
}

required!(DebuggerVpState);

impl Value for DebuggerVpState {
    type Wire = proto::VpState;

    fn into_wire(self) -> proto::VpState {
        use proto::vp_state::Kind;
        let kind = match self {
            Self::X86_64(state) => Kind::X8664(Box::new(state.into_wire())),
            Self::Aarch64(state) => Kind::Aarch64(state.into_wire()),
        };
        proto::VpState { kind: Some(kind) }
    }

    fn from_wire(wire: proto::VpState) -> Result<Self, BadMessage> {
        use proto::vp_state::Kind;
        match wire.kind.ok_or_else(|| missing("VpState"))? {
            Kind::X8664(state) => Value::from_wire(*state).map(Self::X86_64),
            Kind::Aarch64(state) => Value::from_wire(state).map(Self::Aarch64),
        }
    }
}

impl<const N: usize> Field for [u64; N] {
    type Wire = Vec<u64>;

    fn into_field(self) -> Vec<u64> {
        self.into()
    }

    fn from_field(wire: Vec<u64>, name: &str) -> Result<Self, BadMessage> {
        wire.try_into().map_err(|_| out_of_range(name))
    }
}

/// The length of a vector register or of a part of it, in bytes.
const VECTOR: usize = size_of::<u128>();

impl<const N: usize> Value for [u128; N] {
    type Wire = Bytes;

    fn into_wire(self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(N * VECTOR);
        for vector in self {
            bytes.extend_from_slice(&vector.to_le_bytes());
        }
        bytes.freeze()
    }

    fn from_wire(wire: Bytes) -> Result<Self, BadMessage> {
        Self::from_field(wire, "vectors")
    }
}

impl<const N: usize> Field for [u128; N] {
    type Wire = Bytes;

    fn into_field(self) -> Bytes {
        self.into_wire()
    }

    fn from_field(wire: Bytes, name: &str) -> Result<Self, BadMessage> {
        let (vectors, rest) = wire.as_chunks::<VECTOR>();
        let vectors = <&[_; N]>::try_from(vectors).map_err(|_| out_of_range(name))?;
        match rest.is_empty() {
            true => Ok(vectors.map(u128::from_le_bytes)),
            false => Err(out_of_range(name)),
        }
    }
}

/// Vectors of `M` parts, with the lowest part first.
impl<const N: usize, const M: usize> Field for [[u128; M]; N] {
    type Wire = Bytes;

    fn into_field(self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(N * M * VECTOR);
        for part in self.as_flattened() {
            bytes.extend_from_slice(&part.to_le_bytes());
        }
        bytes.freeze()
    }

    fn from_field(wire: Bytes, name: &str) -> Result<Self, BadMessage> {
        let (parts, rest) = wire.as_chunks::<VECTOR>();
        let (vectors, incomplete) = parts.as_chunks::<M>();
        let vectors = <&[_; N]>::try_from(vectors).map_err(|_| out_of_range(name))?;
        match rest.is_empty() && incomplete.is_empty() {
            true => Ok(vectors.map(|vector: [_; M]| vector.map(u128::from_le_bytes))),
            false => Err(out_of_range(name)),
        }
    }
}
