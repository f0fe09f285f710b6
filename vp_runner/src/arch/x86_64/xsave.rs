//! The x87, SSE, AVX, AVX-512 and PKRU registers inside an XSAVE area (SDM volume 1, chapter "Managing State Using the XSAVE Feature Set").
//!
//! Pure functions of bytes. KVM's area always has the standard format, so CPUID leaf 0Dh gives the offset of each component, even if the guest uses the compacted
//! format. A component whose bit in XSTATE_BV is clear is in its initial state, whatever its bytes are. Writing a component sets its bit.

use kvm_bindings::kvm_cpuid_entry2;
use vmm_core_defs::regs::XFeatures;
use vmm_core_defs::regs::x86_64::Avx512State;
use vmm_core_defs::regs::x86_64::SseState;
use vmm_core_defs::regs::x86_64::X87State;

mod x87;

const MXCSR: usize = 24;
const MXCSR_MASK: usize = 28;
const XMM: usize = 160;
const XSTATE_BV: usize = 512;
/// The size of the legacy area and the header, which are always present.
const MIN_LEN: usize = 576;

const MXCSR_INIT: u32 = 0x1f80;
/// The mask that an MXCSR_MASK of zero means (SDM volume 1, "Guidelines for Writing to the MXCSR Register").
const MXCSR_DEFAULT_MASK: u32 = 0xffbf;

/// State components by their number, which is their bit in XCR0 and XSTATE_BV.
mod component {
    pub(super) const X87: u32 = 0;
    pub(super) const SSE: u32 = 1;
    pub(super) const AVX: u32 = 2;
    pub(super) const OPMASK: u32 = 5;
    pub(super) const ZMM_HI256: u32 = 6;
    pub(super) const HI16_ZMM: u32 = 7;
    pub(super) const PKRU: u32 = 9;
}

/// The offsets of a vCPU's extended components.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct XsaveLayout {
    avx: Option<usize>,
    avx512: Option<Avx512Offsets>,
    pkru: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Avx512Offsets {
    opmask: usize,
    zmm_hi256: usize,
    hi16_zmm: usize,
}

/// The registers that an XSAVE area holds, as the register file has them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct VectorState {
    /// x87.
    pub x87: X87State,
    /// XMM0-15 and MXCSR.
    pub sse: SseState,
    /// Upper halves of YMM0-15. `None` if the vCPU has none.
    pub avx: Option<[u128; 16]>,
    /// AVX-512. `None` if the vCPU does not have it.
    pub avx512: Option<Box<Avx512State>>,
    /// PKRU. `None` if the vCPU has none.
    pub pkru: Option<u32>,
}

impl XsaveLayout {
    /// The layout by a vCPU's CPUID entries, for an area of `area_len` bytes.
    ///
    /// A component is present if leaf 0Dh enumerates it, its size is large enough for the registers, and it is inside the area.
    pub(crate) fn from_cpuid(entries: &[kvm_cpuid_entry2], area_len: usize) -> Self {
        let leaf = |subleaf: u32| {
            entries
                .iter()
                .find(|e| e.function == 0xd && e.index == subleaf)
        };
        let supported = leaf(0).map_or(0, |e| e.eax);
        let offset = |number: u32, len: usize| {
            let entry = leaf(number).filter(|_| supported >> number & 1 != 0)?;
            let offset = usize::try_from(entry.ebx).ok()?;
            let size = usize::try_from(entry.eax).ok()?;
            let end = offset.checked_add(len)?;
            (size >= len && offset >= MIN_LEN && end <= area_len).then_some(offset)
        };
        Self {
            avx: offset(component::AVX, 256),
            avx512: (|| {
                Some(Avx512Offsets {
                    opmask: offset(component::OPMASK, 64)?,
                    zmm_hi256: offset(component::ZMM_HI256, 512)?,
                    hi16_zmm: offset(component::HI16_ZMM, 1024)?,
                })
            })(),
            pkru: offset(component::PKRU, 4),
        }
    }

    /// Which optional register sets are present.
    pub(crate) const fn features(&self) -> XFeatures {
        let mut features = XFeatures::NONE;
        features.avx = self.avx.is_some();
        features.avx512 = self.avx512.is_some();
        features.pkru = self.pkru.is_some();
        features
    }

    /// The registers in `area`.
    ///
    /// # Panics
    /// If `area` is shorter than the area for which the layout was made.
    pub(crate) fn read(&self, area: &[u8]) -> VectorState {
        let present = |number: u32| u64_at(area, XSTATE_BV) >> number & 1 != 0;
        let sse_present = present(component::SSE);
        VectorState {
            x87: if present(component::X87) {
                x87::read(area)
            } else {
                x87::INIT
            },
            sse: SseState {
                xmm: if sse_present {
                    vectors(area, XMM)
                } else {
                    [0; 16]
                },
                // MXCSR is loaded with either component (SDM volume 1, "MXCSR State").
                mxcsr: if sse_present || present(component::AVX) {
                    u32_at(area, MXCSR)
                } else {
                    MXCSR_INIT
                },
            },
            avx: self.avx.map(|offset| {
                if present(component::AVX) {
                    vectors(area, offset)
                } else {
                    [0; 16]
                }
            }),
            avx512: self.avx512.map(|at| {
                let mut state = Box::<Avx512State>::default();
                if present(component::OPMASK) {
                    state.opmask = std::array::from_fn(|n| u64_at(area, at.opmask + 8 * n));
                }
                if present(component::ZMM_HI256) {
                    state.zmm_hi256 = std::array::from_fn(|n| vectors(area, at.zmm_hi256 + 32 * n));
                }
                if present(component::HI16_ZMM) {
                    state.hi16_zmm = std::array::from_fn(|n| vectors(area, at.hi16_zmm + 64 * n));
                }
                state
            }),
            // KVM keeps PKRU outside the area and copies it into the area regardless of XSTATE_BV.
            pkru: self.pkru.map(|offset| u32_at(area, offset)),
        }
    }

    /// Writes the components in which `new` differs from `old`, and leaves every other byte as it is.
    ///
    /// A register set that the layout does not have is not written. The caller checks that no such set changes.
    ///
    /// # Panics
    /// If `area` is shorter than the area for which the layout was made.
    pub(crate) fn write(&self, area: &mut [u8], old: &VectorState, new: &VectorState) {
        let mut written = 0u64;
        if new.x87 != old.x87 {
            let was_init = u64_at(area, XSTATE_BV) >> component::X87 & 1 == 0;
            x87::write(area, &new.x87, old.x87.ftw != new.x87.ftw, was_init);
            written |= 1 << component::X87;
        }
        if new.sse != old.sse {
            put_vectors(area, XMM, &new.sse.xmm);
            put(area, MXCSR, &new.sse.mxcsr.to_le_bytes());
            written |= 1 << component::SSE;
        }
        if let (Some(offset), Some(avx)) = (self.avx, &new.avx)
            && new.avx != old.avx
        {
            put_vectors(area, offset, avx);
            // Otherwise the AVX bit alone would load an MXCSR that was in its initial state.
            put(area, MXCSR, &new.sse.mxcsr.to_le_bytes());
            written |= 1 << component::AVX;
        }
        if let (Some(at), Some(avx512)) = (self.avx512, &new.avx512)
            && new.avx512 != old.avx512
        {
            for (n, mask) in avx512.opmask.iter().enumerate() {
                put(area, at.opmask + 8 * n, &mask.to_le_bytes());
            }
            for (n, half) in avx512.zmm_hi256.iter().enumerate() {
                put_vectors(area, at.zmm_hi256 + 32 * n, half);
            }
            for (n, zmm) in avx512.hi16_zmm.iter().enumerate() {
                put_vectors(area, at.hi16_zmm + 64 * n, zmm);
            }
            written |=
                1 << component::OPMASK | 1 << component::ZMM_HI256 | 1 << component::HI16_ZMM;
        }
        if let (Some(offset), Some(pkru)) = (self.pkru, new.pkru) {
            if new.pkru != old.pkru {
                put(area, offset, &pkru.to_le_bytes());
            }
            // KVM_SET_XSAVE sets PKRU to zero if the bit is clear, whatever KVM_GET_XSAVE returned.
            written |= 1 << component::PKRU;
        }
        let xstate_bv = u64_at(area, XSTATE_BV) | written;
        put(area, XSTATE_BV, &xstate_bv.to_le_bytes());
    }
}

/// The MXCSR bits that the processor has. Setting another bit raises #GP.
pub(crate) fn mxcsr_mask(area: &[u8]) -> u32 {
    match u32_at(area, MXCSR_MASK) {
        0 => MXCSR_DEFAULT_MASK,
        mask => mask,
    }
}

fn bytes<const N: usize>(area: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&area[at..at + N]);
    out
}

fn u32_at(area: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes(area, at))
}

fn u64_at(area: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes(area, at))
}

fn vectors<const N: usize>(area: &[u8], at: usize) -> [u128; N] {
    std::array::from_fn(|n| u128::from_le_bytes(bytes(area, at + 16 * n)))
}

fn put(area: &mut [u8], at: usize, value: &[u8]) {
    area[at..at + value.len()].copy_from_slice(value);
}

fn put_vectors(area: &mut [u8], at: usize, values: &[u128]) {
    for (n, value) in values.iter().enumerate() {
        put(area, at + 16 * n, &value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests;
