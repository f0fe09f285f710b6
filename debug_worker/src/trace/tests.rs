use super::*;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::trace::TracedMemory;
use vmm_core_defs::trace::TracedRegister;

const LAYOUT: Layout = Layout::X86_64 {
    avx: false,
    avx512: false,
    pkru: false,
};

fn frame(pieces: &[(u64, &[u8])]) -> TraceFrame {
    let pieces = pieces.iter().map(|(address, data)| TracedMemory {
        address: Gva::new(*address),
        data: data.to_vec(),
    });
    TraceFrame {
        index: 0,
        number: 0x102,
        address: Gva::new(0x1000),
        vp: VpIndex::BSP,
        registers: Vec::new(),
        memory: pieces.collect(),
    }
}

#[test]
fn memory_of_a_frame_ends_at_its_first_gap() {
    let frame = frame(&[
        (0x10, &[1, 2]),
        (0x12, &[3]),
        (0x20, &[4]),
        (u64::MAX, &[5]),
    ]);
    assert_eq!(memory(&frame, 0x10, 8), [1, 2, 3]);
    assert_eq!(memory(&frame, 0x11, 1), [2]);
    assert!(memory(&frame, 0x13, 1).is_empty());
    assert_eq!(memory(&frame, u64::MAX, 2), [5]);
}

#[test]
fn overlapping_pieces_are_one_range() {
    let frame = frame(&[
        (0x20, &[0; 4]),
        (0x10, &[0; 8]),
        (0x14, &[0; 2]),
        (0x18, &[0; 1]),
    ]);
    assert_eq!(collected(&frame), [(0x10, 9), (0x20, 4)]);
}

#[test]
fn a_frame_in_a_trace_file_has_blocks_of_at_most_16_bits() {
    let mut long = frame(&[(0x10, &[7; 0x1_0001])]);
    let mut bytes = Vec::new();
    append(&mut bytes, LAYOUT, &long);
    let data = 11 + 0xffff + 11 + 2;
    assert_eq!(bytes.len(), 6 + data);
    assert_eq!(bytes[..6], [0x02, 0x01, 0x17, 0x00, 0x01, 0x00]);
    assert_eq!(bytes[6..17], [b'M', 0x10, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    assert_eq!(
        bytes[6 + 11 + 0xffff..][..11],
        [b'M', 0x0f, 0, 1, 0, 0, 0, 0, 0, 2, 0]
    );
    long.memory.clear();
    long.registers = vec![TracedRegister {
        register: 0,
        value: 0x1234,
    }];
    bytes.clear();
    append(&mut bytes, LAYOUT, &long);
    assert_eq!(bytes.len(), 6 + 1 + LAYOUT.total_bytes());
    assert_eq!(bytes[6..9], [b'R', 0x34, 0x12]);
}

#[test]
fn a_frame_without_registers_knows_its_program_counter() {
    let block = registers(LAYOUT, &frame(&[]));
    let known = LAYOUT
        .table()
        .iter()
        .filter(|reg| block.get(reg.num).is_some());
    let names: Vec<_> = known.map(|reg| reg.name.as_str()).collect();
    assert_eq!(names, ["rip"]);
}

#[test]
fn definitions_have_limits() {
    let id = |number| TracepointId {
        number,
        address: 0x1000,
    };
    let define = |defined: &mut Defined, number, text: &str| {
        let tracepoint = Tracepoint {
            number,
            address: Gva::new(0x1000),
            enabled: true,
            pass_count: 0,
            condition: None,
            registers: Vec::new(),
            expressions: Vec::new(),
        };
        defined.define(tracepoint, text.to_owned())
    };
    let mut defined = Defined::default();
    for number in 0..1024 {
        define(&mut defined, number, "T").unwrap();
    }
    assert!(define(&mut defined, 5000, "T").is_err());
    let mut defined = Defined::default();
    define(&mut defined, 1, "T").unwrap();
    let actions = || vec![TraceAction::Registers(vec![0, 1, 0, 999])];
    assert!(
        defined
            .add(LAYOUT, id(2), actions(), String::new())
            .is_err()
    );
    for _ in 0..2 {
        defined
            .add(LAYOUT, id(1), actions(), "A".to_owned())
            .unwrap();
    }
    assert_eq!(defined.tracepoints[0].registers, [0, 3]);
    let long = "A".repeat(MOST_TRACE_CLIENT);
    assert!(defined.add(LAYOUT, id(1), actions(), long).is_err());
    assert_eq!(defined.lines, ["T", "A", "A"]);
}

/// `*var` on the stack, whose stack pointer GDB cuts to 8 bits.
#[test]
fn what_gdb_compiles_wrongly_is_refused() {
    let rsp = u8::try_from(
        LAYOUT
            .table()
            .iter()
            .position(|reg| reg.name == "rsp")
            .unwrap(),
    );
    let cut = [0x26, 0, rsp.unwrap(), 0x2a, 8, 0x0d, 1, 0x29, 0x27];
    let refused = trace_action(LAYOUT, &cut).unwrap_err();
    assert!(
        refused.text.contains("collect its address range"),
        "{}",
        refused.text
    );
    let whole = [0x26, 0, cut[2], 0x2a, 64, 0x0d, 1, 0x29, 0x27];
    assert!(trace_action(LAYOUT, &whole).is_ok());
    let shifts = vec![0x22, 1, 0x22, 2, 0x09, 0x27];
    assert!(trace_condition(LAYOUT, shifts).is_err());
}
