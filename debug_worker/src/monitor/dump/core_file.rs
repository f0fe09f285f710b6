//! The layout of a guest as an ELF core file, and the bytes before its memory. (Sources: the ELF specification; the notes have the format of Linux for x86-64, which
//! debuggers read.)
//!
//! ```text
//!  ELF header | program headers | notes: registers of each VP | guest RAM, once, in the order of its addresses
//!                     |                                            ^
//!                     +-- one for each virtual range that is mapped to RAM; several may refer to the same bytes
//! ```

use vmm_core_defs::memory::MappedPage;
use vmm_core_defs::memory::RamRange;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::regs::x86_64::Gp;

/// The maximum number of ranges in a file. Their headers take 14 MiB.
const MAX_SEGMENTS: usize = 1 << 18;

const ELF_HEADER: u64 = 64;
const PROGRAM_HEADER: u64 = 56;
const SECTION_HEADER: u64 = 64;
const PAGE: u64 = 4096;

const ET_CORE: u16 = 4;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PF_X: u32 = 1;
const PF_W: u32 = 2;
const PF_R: u32 = 4;
/// The ELF header has this count if the number of program headers is larger. The first section header then contains the
/// number.
const PN_XNUM: u16 = 0xffff;

const NT_PRSTATUS: u32 = 1;
const NT_FPREGSET: u32 = 2;

/// A virtual range that is mapped to contiguous RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    gva: u64,
    gpa: u64,
    len: u64,
    flags: u32,
}

/// The virtual ranges that are mapped to RAM.
#[derive(Debug)]
pub(super) struct Segments {
    ram: Vec<RamRange>,
    list: Vec<Segment>,
}

impl Segments {
    /// `ram` has to be sorted by address.
    pub(super) fn new(ram: Vec<RamRange>) -> Self {
        let list = Vec::new();
        Self { ram, list }
    }

    /// Adds all RAM with virtual addresses equal to the physical addresses, as a VP without paging uses it.
    pub(super) fn add_all(&mut self) {
        for RamRange { gpa, len } in self.ram.clone() {
            self.push(Segment {
                gva: gpa.value(),
                gpa: gpa.value(),
                len,
                flags: PF_R | PF_W | PF_X,
            });
        }
    }

    /// Adds the part of a page that is RAM. Returns false if no more ranges fit.
    pub(super) fn add(&mut self, page: &MappedPage) -> bool {
        let mut flags = PF_R;
        flags |= if page.writable { PF_W } else { 0 };
        flags |= if page.executable { PF_X } else { 0 };
        let first = page.gpa.value();
        let end = first.saturating_add(page.size);
        for at in 0..self.ram.len() {
            let RamRange { gpa, len } = self.ram[at];
            let from = first.max(gpa.value());
            let to = end.min(gpa.value().saturating_add(len));
            if from < to {
                self.push(Segment {
                    gva: page.gva.value() + (from - first),
                    gpa: from,
                    len: to - from,
                    flags,
                });
            }
        }
        self.list.len() < MAX_SEGMENTS
    }

    fn push(&mut self, next: Segment) {
        match self.list.last_mut() {
            Some(last)
                if last.gva.checked_add(last.len) == Some(next.gva)
                    && last.gpa.checked_add(last.len) == Some(next.gpa)
                    && last.flags == next.flags =>
            {
                last.len += next.len;
            }
            _ => self.list.push(next),
        }
    }

    /// The layout of a file with these ranges and `vps`. Each VP has the linear address of its next instruction.
    pub(super) fn into_file(mut self, vps: &[(u64, X86VpState)]) -> CoreFile {
        self.list.sort_by_key(|segment| segment.gva);
        let notes = notes(vps);
        let count = self.list.len() as u64 + 1;
        let extended = count >= u64::from(PN_XNUM);
        let sections = ELF_HEADER + PROGRAM_HEADER * count;
        let notes_at = sections + if extended { SECTION_HEADER } else { 0 };
        let memory_at = (notes_at + notes.len() as u64).next_multiple_of(PAGE);
        let mut memory = Vec::with_capacity(self.ram.len());
        let mut len = memory_at;
        for range in &self.ram {
            memory.push((len, *range));
            len += range.len;
        }
        let mut head = Bytes::default();
        head.elf_header(count, extended.then_some(sections));
        head.program_header(PT_NOTE, 0, notes_at, 0, 0, notes.len() as u64);
        for segment in &self.list {
            let holds = |(_, range): &&(u64, RamRange)| {
                (range.gpa.value()..range.gpa.value() + range.len).contains(&segment.gpa)
            };
            let (at, range) = memory.iter().find(holds).expect("a segment lies in RAM");
            let at = at + (segment.gpa - range.gpa.value());
            let Segment {
                gva,
                gpa,
                len,
                flags,
            } = *segment;
            head.program_header(PT_LOAD, flags, at, gva, gpa, len);
        }
        if extended {
            head.first_section(count);
        }
        head.0.extend(notes);
        CoreFile {
            head: head.0,
            memory,
            len,
            segments: self.list.len(),
        }
    }
}

/// The layout of a core file.
#[derive(Debug)]
pub(super) struct CoreFile {
    /// The bytes before the memory.
    pub(super) head: Vec<u8>,
    /// The RAM ranges, each with its offset in the file.
    pub(super) memory: Vec<(u64, RamRange)>,
    /// The length of the file, in bytes.
    pub(super) len: u64,
    /// The number of virtual ranges in the file.
    pub(super) segments: usize,
}

#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn u16(&mut self, value: u16) {
        self.0.extend(value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    fn u128(&mut self, value: u128) {
        self.0.extend(value.to_le_bytes());
    }

    fn zeros(&mut self, count: usize) {
        self.0.resize(self.0.len() + count, 0);
    }

    /// `sections` is the offset of the section header that contains the number of program headers, if it is needed.
    fn elf_header(&mut self, count: u64, sections: Option<u64>) {
        // 64 bits, little-endian, version 1, no operating system.
        self.0.extend(b"\x7fELF\x02\x01\x01\x00");
        self.zeros(8);
        self.u16(ET_CORE);
        self.u16(EM_X86_64);
        self.u32(1);
        self.u64(0);
        self.u64(ELF_HEADER);
        self.u64(sections.unwrap_or(0));
        self.u32(0);
        self.u16(64);
        self.u16(56);
        self.u16(match sections {
            Some(_) => PN_XNUM,
            None => u16::try_from(count).unwrap_or(PN_XNUM),
        });
        self.u16(64);
        self.u16(sections.is_some().into());
        self.u16(0);
    }

    fn program_header(&mut self, kind: u32, flags: u32, at: u64, gva: u64, gpa: u64, len: u64) {
        self.u32(kind);
        self.u32(flags);
        self.u64(at);
        self.u64(gva);
        self.u64(gpa);
        self.u64(len);
        self.u64(if kind == PT_LOAD { len } else { 0 });
        self.u64(if kind == PT_LOAD { PAGE } else { 4 });
    }

    fn first_section(&mut self, count: u64) {
        self.zeros(44);
        self.u32(u32::try_from(count).unwrap_or(u32::MAX));
        self.zeros(16);
    }

    fn note(&mut self, kind: u32, data: Self) {
        self.u32(5);
        self.u32(u32::try_from(data.0.len()).unwrap_or(0));
        self.u32(kind);
        self.0.extend(b"CORE\0\0\0\0");
        self.0.extend(data.0);
    }
}

/// The registers of each VP as the registers of a thread. VP `n` is thread `n + 1`, as in the GDB protocol.
fn notes(vps: &[(u64, X86VpState)]) -> Vec<u8> {
    let mut notes = Bytes::default();
    for (id, (pc, state)) in (1_u32..).zip(vps) {
        notes.note(NT_PRSTATUS, status(id, *pc, state));
        notes.note(NT_FPREGSET, floating_point(state));
    }
    notes.0
}

/// `struct elf_prstatus` of Linux.
fn status(id: u32, pc: u64, state: &X86VpState) -> Bytes {
    let mut bytes = Bytes::default();
    // SIGTRAP.
    bytes.u32(5);
    bytes.zeros(8);
    bytes.u16(5);
    bytes.zeros(2 + 16);
    bytes.u32(id);
    bytes.zeros(12 + 64);
    for register in [
        Gp::R15,
        Gp::R14,
        Gp::R13,
        Gp::R12,
        Gp::Rbp,
        Gp::Rbx,
        Gp::R11,
        Gp::R10,
        Gp::R9,
        Gp::R8,
        Gp::Rax,
        Gp::Rcx,
        Gp::Rdx,
        Gp::Rsi,
        Gp::Rdi,
    ] {
        bytes.u64(state.gp[register as usize]);
    }
    // The number of the interrupted system call: none.
    bytes.u64(u64::MAX);
    bytes.u64(pc);
    bytes.u64(state.cs.selector.into());
    bytes.u64(state.rflags);
    bytes.u64(state.gp[Gp::Rsp as usize]);
    bytes.u64(state.ss.selector.into());
    bytes.u64(state.fs.base);
    bytes.u64(state.gs.base);
    for segment in [&state.ds, &state.es, &state.fs, &state.gs] {
        bytes.u64(segment.selector.into());
    }
    bytes.u32(1);
    bytes.zeros(4);
    bytes
}

/// The FXSAVE area (SDM volume 1, "FXSAVE Area").
fn floating_point(state: &X86VpState) -> Bytes {
    let x87 = &state.x87;
    let mut bytes = Bytes::default();
    bytes.u16(x87.fcw);
    bytes.u16(x87.fsw);
    let used = (0..8_u16).filter(|register| x87.ftw >> (2 * register) & 3 != 3);
    bytes.u16(used.fold(0, |bits, register| bits | 1 << register));
    bytes.u16(x87.fop);
    bytes.u32(x87.fip);
    bytes.u32(x87.fcs.into());
    bytes.u32(x87.fdp);
    bytes.u32(x87.fds.into());
    bytes.u32(state.sse.mxcsr);
    bytes.u32(0xffff);
    for register in x87.st {
        bytes.u128(register & u128::MAX >> 48);
    }
    for register in state.sse.xmm {
        bytes.u128(register);
    }
    bytes.zeros(96);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use object::LittleEndian;
    use object::elf;
    use object::read::elf::FileHeader as _;
    use object::read::elf::ProgramHeader as _;
    use vmm_core_defs::addr::Gpa;
    use vmm_core_defs::addr::Gva;

    fn page(gva: u64, gpa: u64, size: u64, writable: bool) -> MappedPage {
        MappedPage {
            gva: Gva::new(gva),
            gpa: Gpa::new(gpa),
            size,
            writable,
            user: false,
            executable: true,
            entry: 0,
        }
    }

    fn ram() -> Vec<RamRange> {
        let range = |gpa, len| RamRange {
            gpa: Gpa::new(gpa),
            len,
        };
        vec![range(0, 0x8000), range(0x10_0000, 0x4000)]
    }

    fn number(bytes: &[u8], at: usize, len: usize) -> u64 {
        let mut number = [0; 8];
        number[..len].copy_from_slice(&bytes[at..at + len]);
        u64::from_le_bytes(number)
    }

    /// Type, flags, offset, virtual address, physical address and length of each program header, as the crate `object`
    /// parses them.
    fn headers(file: &CoreFile) -> Vec<[u64; 6]> {
        let elf = elf::FileHeader64::<LittleEndian>::parse(&*file.head).expect("an ELF file");
        let headers = elf
            .program_headers(LittleEndian, &*file.head)
            .expect("program headers");
        headers
            .iter()
            .map(|header| {
                [
                    header.p_type(LittleEndian).0.into(),
                    header.p_flags(LittleEndian).0.into(),
                    header.p_offset(LittleEndian),
                    header.p_vaddr(LittleEndian),
                    header.p_paddr(LittleEndian),
                    header.p_filesz(LittleEndian),
                ]
            })
            .collect()
    }

    #[test]
    fn ranges_lead_to_the_bytes_of_their_physical_addresses() {
        const HIGH: u64 = 0xffff_8000_0000_0000;
        let mut segments = Segments::new(ram());
        // The upper half comes first, so it is not lost if there are too many ranges.
        assert!(segments.add(&page(HIGH, 0x10_0000, 0x1000, true)));
        assert!(segments.add(&page(HIGH + 0x1000, 0x10_1000, 0x1000, true)));
        assert!(segments.add(&page(HIGH + 0x2000, 0x10_2000, 0x1000, false)));
        // A page larger than RAM, and a page outside RAM.
        assert!(segments.add(&page(0, 0, 0x20_0000, true)));
        assert!(segments.add(&page(0x4000_0000, 0x4000_0000, 0x1000, true)));
        let file = segments.into_file(&[(0x1234, X86VpState::default())]);
        let at = file.memory[0].0;
        assert_eq!((at % PAGE, file.len), (0, at + 0xc000));
        assert_eq!(file.memory[1].0, at + 0x8000);
        assert!(file.head.len() as u64 <= at);
        let listed = headers(&file);
        assert_eq!(listed[0][0], u64::from(PT_NOTE));
        assert_eq!(
            listed[1..],
            [
                [1, 7, at, 0, 0, 0x8000],
                [1, 7, at + 0x8000, 0x10_0000, 0x10_0000, 0x4000],
                [1, 7, at + 0x8000, HIGH, 0x10_0000, 0x2000],
                [1, 5, at + 0xa000, HIGH + 0x2000, 0x10_2000, 0x1000],
            ]
        );
    }

    #[test]
    fn notes_have_the_sizes_that_debuggers_expect() {
        let state = X86VpState::default();
        assert_eq!(floating_point(&state).0.len(), 512);
        let status = status(2, 0x1234, &state).0;
        assert_eq!(status.len(), 336);
        assert_eq!(number(&status, 32, 4), 2);
        assert_eq!(number(&status, 112 + 16 * 8, 8), 0x1234);
    }

    #[test]
    fn more_ranges_than_the_elf_header_counts_are_counted_in_a_section_header() {
        let mut segments = Segments::new(ram());
        let mut scattered = (0..70_000).map(|at| page(at << 13, 0x1000, 0x1000, true));
        assert!(scattered.all(|page| segments.add(&page)));
        let file = segments.into_file(&[]);
        let headers = headers(&file);
        assert_eq!(headers.len(), 70_001);
        assert_eq!(headers[70_000][3], 69_999 << 13);
    }

    #[test]
    fn page_tables_that_map_everything_make_no_endless_list() {
        let mut segments = Segments::new(ram());
        let mut pages = (0_u64..).map(|at| page(at << 13, 0x1000, 0x1000, true));
        let refused = pages.position(|page| !segments.add(&page));
        assert_eq!(refused, Some(MAX_SEGMENTS - 1));
    }
}
