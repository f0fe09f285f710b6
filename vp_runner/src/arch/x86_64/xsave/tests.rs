use super::*;
use proptest::prelude::*;

const AREA_LEN: usize = 2696;
const AREA_END: u32 = 2696;

fn subleaf(index: u32, eax: u32, ebx: u32) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 {
        function: 0xd,
        index,
        eax,
        ebx,
        ..Default::default()
    }
}

/// The standard layout of a processor with AVX-512 and PKRU.
fn cpuid() -> Vec<kvm_cpuid_entry2> {
    vec![
        subleaf(0, 0x2e7, AREA_END),
        subleaf(2, 256, 576),
        subleaf(5, 64, 1088),
        subleaf(6, 512, 1152),
        subleaf(7, 1024, 1664),
        subleaf(9, 8, 2688),
    ]
}

fn layout() -> XsaveLayout {
    XsaveLayout::from_cpuid(&cpuid(), AREA_LEN)
}

/// Every register with its own value.
fn distinct(seed: u128) -> VectorState {
    let st = |n: usize| 0x4000_8000_0000_0000_0000 + seed + n as u128;
    let v = |n: usize| u128::MAX / 3 + seed * 1000 + n as u128;
    VectorState {
        x87: X87State {
            st: std::array::from_fn(st),
            fcw: 0x27f,
            fsw: 0x3800,
            ftw: 0,
            fop: 0x123,
            fip: 0x1234_5678,
            fcs: 0x9abc,
            fdp: 0x8765_4321,
            fds: 0xcba9,
        },
        sse: SseState {
            xmm: std::array::from_fn(v),
            mxcsr: 0x1fa0,
        },
        avx: Some(std::array::from_fn(|n| v(100 + n))),
        avx512: Some(Box::new(Avx512State {
            opmask: std::array::from_fn(|n| 0x1111 * n as u64 + 7),
            zmm_hi256: std::array::from_fn(|n| [v(200 + 2 * n), v(201 + 2 * n)]),
            hi16_zmm: std::array::from_fn(|n| std::array::from_fn(|k| v(300 + 4 * n + k))),
        })),
        pkru: Some(0x5555_5554),
    }
}

#[test]
fn an_area_with_nothing_in_use_reads_as_the_initial_state_whatever_its_bytes() {
    let mut area = vec![0xa5; AREA_LEN];
    area[XSTATE_BV..XSTATE_BV + 8].fill(0);
    area[2688..2692].fill(0);
    let state = layout().read(&area);
    assert_eq!(state.x87, x87::INIT);
    assert_eq!(state.sse.mxcsr, MXCSR_INIT);
    assert_eq!(state.sse.xmm, [0; 16]);
    assert_eq!(state.avx, Some([0; 16]));
    assert_eq!(state.avx512, Some(Box::default()));
    assert_eq!(state.pkru, Some(0));
}

#[test]
fn every_component_is_read_back_as_written_and_marked_as_in_use() {
    let mut area = vec![0; AREA_LEN];
    let old = layout().read(&area);
    let new = distinct(1);
    layout().write(&mut area, &old, &new);
    assert_eq!(layout().read(&area), new);
    assert_eq!(u64_at(&area, XSTATE_BV), 0x2e7);
}

#[test]
fn registers_lie_where_the_manual_says() {
    let mut area = vec![0; AREA_LEN];
    let new = distinct(1);
    layout().write(&mut area, &layout().read(&vec![0; AREA_LEN]), &new);
    assert_eq!(area[0..2], 0x27fu16.to_le_bytes());
    assert_eq!(area[8..12], 0x1234_5678u32.to_le_bytes());
    assert_eq!(area[24..28], 0x1fa0u32.to_le_bytes());
    assert_eq!(area[160..176], new.sse.xmm[0].to_le_bytes());
    assert_eq!(
        area[576 + 15 * 16..][..16],
        new.avx.unwrap()[15].to_le_bytes()
    );
    let avx512 = new.avx512.unwrap();
    assert_eq!(area[1088 + 56..][..8], avx512.opmask[7].to_le_bytes());
    assert_eq!(
        area[1152 + 16..][..16],
        avx512.zmm_hi256[0][1].to_le_bytes()
    );
    assert_eq!(area[1664 + 64..][..16], avx512.hi16_zmm[1][0].to_le_bytes());
}

#[test]
fn a_write_touches_only_the_component_that_differs() {
    let mut area = vec![0x5a; AREA_LEN];
    area[XSTATE_BV..XSTATE_BV + 8].copy_from_slice(&0x2e7u64.to_le_bytes());
    let before = area.clone();
    let old = layout().read(&area);
    let mut new = old.clone();
    new.sse.xmm[3] = 1;
    layout().write(&mut area, &old, &new);
    let at = XMM + 3 * 16;
    assert_eq!(area[..at], before[..at]);
    assert_eq!(area[at..at + 16], 1u128.to_le_bytes());
    assert_eq!(area[at + 16..], before[at + 16..]);
}

#[test]
fn an_avx_write_does_not_bring_in_a_stale_mxcsr() {
    let mut area = vec![0; AREA_LEN];
    let old = layout().read(&area);
    let mut new = old.clone();
    new.avx = Some([9; 16]);
    layout().write(&mut area, &old, &new);
    assert_eq!(
        layout().read(&area),
        new,
        "MXCSR reads as its initial value still"
    );
}

#[test]
fn pkru_keeps_its_bit_when_something_else_is_written() {
    let mut area = vec![0; AREA_LEN];
    area[2688..2692].copy_from_slice(&4u32.to_le_bytes());
    let old = layout().read(&area);
    let mut new = old.clone();
    new.x87.fcw = 0x27f;
    layout().write(&mut area, &old, &new);
    assert_ne!(u64_at(&area, XSTATE_BV) >> component::PKRU & 1, 0);
    assert_eq!(layout().read(&area).pkru, Some(4));
}

#[test]
fn components_that_cpuid_does_not_enumerate_or_that_pass_the_area_are_absent() {
    let none = XsaveLayout::from_cpuid(&[], AREA_LEN);
    assert_eq!(none.features(), XFeatures::default());
    let short = XsaveLayout::from_cpuid(&cpuid(), 1088);
    assert_eq!(
        (short.features().avx, short.features().avx512),
        (true, false)
    );
    let mut hostile = cpuid();
    hostile[1].ebx = u32::MAX;
    assert!(!XsaveLayout::from_cpuid(&hostile, AREA_LEN).features().avx);
    let mut masked = cpuid();
    masked[0].eax = 0x7;
    let masked = XsaveLayout::from_cpuid(&masked, AREA_LEN).features();
    assert!(masked.avx && !masked.avx512 && !masked.pkru);
}

#[test]
fn an_mxcsr_mask_of_zero_stands_for_the_first_processors() {
    assert_eq!(mxcsr_mask(&vec![0; AREA_LEN]), 0xffbf);
}

proptest! {
    #[test]
    fn any_two_states_can_follow_each_other(a in 1u128..1 << 40, b in 1u128..1 << 40) {
        let mut area = vec![0; AREA_LEN];
        let init = layout().read(&area);
        layout().write(&mut area, &init, &distinct(a));
        layout().write(&mut area, &distinct(a), &distinct(b));
        prop_assert_eq!(layout().read(&area), distinct(b));
    }
}
