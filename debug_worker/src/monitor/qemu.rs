//! What QEMU's monitor shows of a VP and of memory, in the shape that scripts take apart (`CR3=`, `START-END SIZE urw`), for the scripts that people
//! have. Words and layout are our own where no script depends on them; what is not known here is left out rather than made up.
//!
//! Each answer about one VP names it in its first line. In `info mem` and `info tlb` scripts take *every* line apart, so there the first line
//! has it at its end. A line of `info mem` that is no range ends pwndbg's `vmmap`, `telescope` and `context`, so every line is one, and what else there is to say
//! stands at the end of a range.

use std::fmt::Write as _;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::memory::MappedPage;
use vmm_core_defs::memory::RamRange;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::regs::x86_64::Gp;
use vmm_core_defs::regs::x86_64::SegmentRegister;
use vmm_core_defs::regs::x86_64::TableRegister;
use vmm_core_defs::regs::x86_64::bits::efer;
use vmm_core_defs::regs::x86_64::segment_attributes;

/// Bits of an entry that maps a page (SDM volume 3, "4-Level Paging"), and the letters for them.
const ENTRY_BITS: [(u32, char); 9] = [
    (63, 'X'),
    (8, 'G'),
    (7, 'P'),
    (6, 'D'),
    (5, 'A'),
    (4, 'C'),
    (3, 'T'),
    (2, 'U'),
    (1, 'W'),
];

/// The general registers in the order they are shown in, four to a line.
const GENERAL: [(&str, Gp); 16] = [
    ("AX", Gp::Rax),
    ("BX", Gp::Rbx),
    ("CX", Gp::Rcx),
    ("DX", Gp::Rdx),
    ("SI", Gp::Rsi),
    ("DI", Gp::Rdi),
    ("BP", Gp::Rbp),
    ("SP", Gp::Rsp),
    ("R8 ", Gp::R8),
    ("R9 ", Gp::R9),
    ("R10", Gp::R10),
    ("R11", Gp::R11),
    ("R12", Gp::R12),
    ("R13", Gp::R13),
    ("R14", Gp::R14),
    ("R15", Gp::R15),
];

/// `info registers`. In 64-bit code registers are `RAX` and have 16 digits, else `EAX` and 8.
pub(super) fn registers(vp: VpIndex, halted: bool, state: &X86VpState) -> String {
    let long = state.efer & efer::LMA != 0 && state.cs.attributes & segment_attributes::LONG != 0;
    let (letter, count, digits) = if long { ('R', 16, 16) } else { ('E', 8, 8) };
    let mask = if long { u64::MAX } else { u64::from(u32::MAX) };
    let mut text = format!("VP {vp}, CPU#{vp}\n");
    for (index, (name, register)) in GENERAL[..count].iter().enumerate() {
        let value = state.gp[*register as usize] & mask;
        let letter = if index < 8 {
            letter.to_string()
        } else {
            String::new()
        };
        let end = if index % 4 == 3 { '\n' } else { ' ' };
        let _ = write!(text, "{letter}{name}={value:0digits$x}{end}");
    }
    let _ = writeln!(
        text,
        "{letter}IP={:0digits$x} {letter}FL={:08x} [{}] CPL={} HLT={}",
        state.rip & mask,
        state.rflags,
        flags(state.rflags),
        privilege(&state.ss),
        u8::from(halted),
    );
    for (name, register) in [
        ("ES ", &state.es),
        ("CS ", &state.cs),
        ("SS ", &state.ss),
        ("DS ", &state.ds),
        ("FS ", &state.fs),
        ("GS ", &state.gs),
        ("LDT", &state.ldtr),
        ("TR ", &state.tr),
    ] {
        let _ = writeln!(
            text,
            "{name}={:04x} {:0digits$x} {:08x} {:08x} DPL={}",
            register.selector,
            register.base & mask,
            register.limit,
            descriptor(register),
            privilege(register),
        );
    }
    for (name, TableRegister { base, limit }) in [("GDT", &state.gdtr), ("IDT", &state.idtr)] {
        let _ = writeln!(text, "{name}=     {:0digits$x} {limit:08x}", base & mask);
    }
    let _ = writeln!(
        text,
        "CR0={:08x} CR2={:0digits$x} CR3={:0digits$x} CR4={:08x}",
        state.cr0,
        state.cr2 & mask,
        state.cr3 & mask,
        state.cr4,
    );
    let debug = &state.debug;
    for (index, address) in debug.db.iter().enumerate() {
        let end = if index == 3 { '\n' } else { ' ' };
        let _ = write!(text, "DR{index}={:0digits$x}{end}", address & mask);
    }
    let _ = writeln!(
        text,
        "DR6={:0digits$x} DR7={:0digits$x}\nEFER={:016x}",
        debug.dr6, debug.dr7, state.efer
    );
    floating_point(&mut text, state, count);
    text
}

fn floating_point(text: &mut String, state: &X86VpState, count: usize) {
    let x87 = &state.x87;
    let top = x87.fsw >> 11 & 7;
    let valid = (0..8_u16).filter(|register| x87.ftw >> (2 * register) & 3 != 3);
    let valid = valid.fold(0_u8, |bits, register| bits | 1 << register);
    let _ = writeln!(
        text,
        "FCW={:04x} FSW={:04x} [ST={top}] FTW={valid:02x} MXCSR={:08x}",
        x87.fcw, x87.fsw, state.sse.mxcsr
    );
    for (index, value) in x87.st.iter().enumerate() {
        let end = if index % 2 == 1 { '\n' } else { ' ' };
        let digits = format!("{:020x}", value & u128::MAX >> 48);
        let (exponent, mantissa) = digits.split_at(4);
        let _ = write!(text, "FPR{index}={mantissa} {exponent}{end}");
    }
    for (index, value) in state.sse.xmm[..count].iter().enumerate() {
        let end = if index % 2 == 1 { '\n' } else { ' ' };
        let digits = format!("{value:032x}");
        let (high, low) = digits.split_at(16);
        let _ = write!(text, "XMM{index:02}={high} {low}{end}");
    }
}

/// The seven flags that conditions look at, by their letters.
fn flags(rflags: u64) -> String {
    let letters = [
        (10, 'D'),
        (11, 'O'),
        (7, 'S'),
        (6, 'Z'),
        (4, 'A'),
        (2, 'P'),
        (0, 'C'),
    ];
    let letter = |(bit, letter): (u32, char)| if rflags >> bit & 1 == 0 { '-' } else { letter };
    letters.into_iter().map(letter).collect()
}

const fn privilege(register: &SegmentRegister) -> u32 {
    register.attributes >> 5 & 3
}

/// The second half of the segment's descriptor, without the parts of base and limit in it.
const fn descriptor(register: &SegmentRegister) -> u32 {
    register.attributes << 8 & 0x00f0_ff00
}

/// `info mem`: ranges that are mapped with the same rights, and where the listing was given up.
pub(super) struct Ranges {
    text: String,
    vp: VpIndex,
    last: Option<Range>,
}

#[derive(Clone, Copy)]
struct Range {
    start: u64,
    /// The last byte: one past it has no number at the end of the address space.
    last: u64,
    user: bool,
    writable: bool,
}

/// `info mem` without paging: a linear address is a physical one.
pub(super) fn range_without_paging(vp: VpIndex) -> String {
    format!("0000000000000000-0000000100000000 0000000100000000 -rw,VP{vp},PG-disabled\n")
}

impl Ranges {
    pub(super) fn new(vp: VpIndex) -> Self {
        let (text, last) = (String::new(), None);
        Self { text, vp, last }
    }

    pub(super) fn add(&mut self, page: &MappedPage) {
        let (start, user, writable) = (page.gva.value(), page.user, page.writable);
        let last = start.saturating_add(page.size - 1);
        match &mut self.last {
            Some(range)
                if range.last.checked_add(1) == Some(start)
                    && (range.user, range.writable) == (user, writable) =>
            {
                range.last = last;
            }
            _ => {
                self.flush();
                self.last = Some(Range {
                    start,
                    last,
                    user,
                    writable,
                });
            }
        }
    }

    /// `cut`: how far it was looked, where that was not everywhere.
    pub(super) fn finish(mut self, cut: Option<Gva>) -> String {
        self.flush();
        if self.text.is_empty() {
            let vp = self.vp;
            self.text = format!("{0}-{0} {0} ---,VP{vp},no-page-is-mapped\n", "0".repeat(16));
        }
        if let Some(at) = cut {
            // The letter for "writable" is searched in these words too, and is not in them.
            self.text.truncate(self.text.trim_end().len());
            let _ = writeln!(self.text, ",rest-not-listed-from-{at}");
        }
        self.text
    }

    fn flush(&mut self) {
        let Some(range) = self.last.take() else {
            return;
        };
        let size = (range.last - range.start).wrapping_add(1);
        let whose = match self.text.is_empty() {
            true => format!(",VP{}", self.vp),
            false => String::new(),
        };
        let _ = writeln!(
            self.text,
            "{:016x}-{:016x} {size:016x} {}r{}{whose}",
            range.start,
            range.last.wrapping_add(1),
            if range.user { 'u' } else { '-' },
            if range.writable { 'w' } else { '-' },
        );
    }
}

/// `info tlb`: one line for each page. The first names the VP at its end.
pub(super) fn page(text: &mut String, vp: VpIndex, page: &MappedPage) {
    let letters = ENTRY_BITS.into_iter().map(|(bit, letter)| {
        // In an entry of the last level the seventh bit says something else.
        let set = page.entry >> bit & 1 != 0 && (bit != 7 || page.size > 4096);
        if set { letter } else { '-' }
    });
    let whose = match text.is_empty() {
        true => format!(" VP {vp}"),
        false => String::new(),
    };
    let letters: String = letters.collect();
    let _ = writeln!(
        text,
        "{:016x}: {:016x} {letters}{whose}",
        page.gva.value(),
        page.gpa.value()
    );
}

/// `info tlb`. Without the characters that scripts look for in a line.
pub(super) fn given_up(at: Gva) -> String {
    format!("(more is mapped from {at} on; the rest is not listed)")
}

/// `info mtree -f`. Devices are the VMM's own business, and not known here.
pub(super) fn memory_tree(ranges: &[RamRange]) -> String {
    let mut text =
        "FlatView #0\n AS \"memory\", root: system\n Root memory region: system\n".to_owned();
    let mut offset = 0_u64;
    for RamRange { gpa, len } in ranges {
        let last = gpa.value().saturating_add(len.saturating_sub(1));
        let place = match offset {
            0 => String::new(),
            offset => format!(" @{offset:016x}"),
        };
        let _ = writeln!(
            text,
            "  {:016x}-{last:016x} (prio 0, ram): pc.ram{place} KVM",
            gpa.value()
        );
        offset = offset.saturating_add(*len);
    }
    text
}

/// Why no host address is told. It must not look like an answer: scripts take the last word for the address, and `is 0x` for its beginning.
pub(super) const NO_HOST_ADDRESS: &str = "gpa2hva is refused: an address in the VMM's own memory is of use only to a program that reads and writes that memory behind \
     the debugger's back. `monitor xp /FMT ADDR` and `maintenance packet Qqemu.PhyMemMode:1` read physical memory instead\n";

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_core_defs::addr::Gpa;

    fn page_of(gva: u64, size: u64, rights: &str) -> MappedPage {
        MappedPage {
            gva: Gva::new(gva),
            gpa: Gpa::new(gva & 0xffff_ffff),
            size,
            writable: rights.contains('w'),
            user: rights.contains('u'),
            executable: true,
            entry: 0,
        }
    }

    /// What is left of a line after the first `needle`, up to the next space.
    fn value<'a>(text: &'a str, needle: &str) -> &'a str {
        let (_, rest) = text.split_once(needle).expect(needle);
        rest.split([' ', '\n']).next().unwrap()
    }

    #[test]
    fn registers_are_found_by_the_names_that_scripts_search() {
        let mut state = X86VpState {
            rip: 0xffff_ffff_8100_0000,
            rflags: 0x46,
            cr0: 0x8005_0033,
            cr3: 0x1_0234_5000,
            efer: 0xd01,
            ..Default::default()
        };
        state.gp[Gp::R13 as usize] = 0xdead;
        state.x87.st[1] = 0x4000_c000_0000_0000_0000;
        state.sse.xmm[15] = 1 << 64 | 2;
        state.cs = SegmentRegister {
            selector: 0x10,
            base: 0,
            limit: u32::MAX,
            attributes: 0xa09b,
        };
        state.gdtr = TableRegister {
            base: 0xffff_fe00_0000_1000,
            limit: 0x7f,
        };
        let text = registers(VpIndex::new(1), true, &state);
        assert!(text.starts_with("VP 1, CPU#1\nRAX="), "{text}");
        assert_eq!(value(&text, "RIP="), "ffffffff81000000");
        assert_eq!(value(&text, "CR3="), "0000000102345000");
        assert_eq!(value(&text, "CR0="), "80050033");
        assert_eq!(value(&text, "R13="), "000000000000dead");
        assert!(text.contains("RFL=00000046 [---Z-P-] CPL=0 HLT=1\n"));
        assert!(text.contains("\nCS =0010 0000000000000000 ffffffff 00a09b00 DPL=0\n"));
        assert!(text.contains("\nGDT=     fffffe0000001000 0000007f\n"));
        assert!(text.contains("\nEFER=0000000000000d01\n"));
        assert!(text.contains("FPR1=c000000000000000 4000\n"), "{text}");
        assert!(text.contains("XMM15=0000000000000001 0000000000000002\n"));
    }

    #[test]
    fn outside_of_64_bit_code_registers_have_their_32_bit_names() {
        let state = X86VpState {
            rip: 0xfff0,
            cr0: 0x6000_0010,
            ..Default::default()
        };
        let text = registers(VpIndex::BSP, false, &state);
        assert_eq!(value(&text, "EIP="), "0000fff0");
        assert_eq!(value(&text, "CR3="), "00000000");
        assert!(!text.contains("R8 ") && !text.contains("XMM08"), "{text}");
    }

    #[test]
    fn neighbours_with_the_same_rights_are_one_range_and_the_first_line_names_the_vp() {
        let mut ranges = Ranges::new(VpIndex::new(3));
        for page in [
            page_of(0x1000, 0x1000, "w"),
            page_of(0x2000, 0x1000, "w"),
            page_of(0x3000, 0x1000, "u"),
            page_of(0x20_0000, 0x20_0000, "w"),
            page_of(0xffff_ffff_ffff_f000, 0x1000, "uw"),
        ] {
            ranges.add(&page);
        }
        let text = ranges.finish(None);
        assert_eq!(
            text,
            "0000000000001000-0000000000003000 0000000000002000 -rw,VP3\n\
             0000000000003000-0000000000004000 0000000000001000 ur-\n\
             0000000000200000-0000000000400000 0000000000200000 -rw\n\
             fffffffffffff000-0000000000000000 0000000000001000 urw\n"
        );
        assert_eq!(
            as_scripts_do(&text)[0],
            (0x1000, 0x3000, 0x2000, true, true)
        );
    }

    /// As pwndbg takes every line apart: start, end, size, and whether the last word has the letters of the rights.
    fn as_scripts_do(text: &str) -> Vec<(u64, u64, u64, bool, bool)> {
        let number = |digits: &str| u64::from_str_radix(digits, 16).expect(text);
        let line = |line: &str| {
            let (start, rest) = line.split_once('-').expect(text);
            let (end, rest) = rest.split_once(' ').expect(text);
            let (size, rights) = rest.rsplit_once(' ').expect(text);
            let (readable, writable) = (rights.contains('r'), rights.contains('w'));
            (number(start), number(end), number(size), readable, writable)
        };
        text.lines().map(line).collect()
    }

    #[test]
    fn a_listing_that_was_given_up_says_so_in_a_range() {
        let mut ranges = Ranges::new(VpIndex::BSP);
        ranges.add(&page_of(0x1000, 0x1000, ""));
        let text = ranges.finish(Some(Gva::new(0x4000)));
        assert!(
            text.ends_with(" -r-,VP0,rest-not-listed-from-0x4000\n"),
            "{text}"
        );
        let read_only = (0x1000, 0x2000, 0x1000, true, false);
        assert_eq!(as_scripts_do(&text), [read_only]);
    }

    #[test]
    fn that_nothing_is_mapped_or_paging_is_off_is_said_in_a_range() {
        let none = Ranges::new(VpIndex::new(1)).finish(None);
        assert!(none.ends_with(" ---,VP1,no-page-is-mapped\n"), "{none}");
        assert_eq!(as_scripts_do(&none), [(0, 0, 0, false, false)]);
        let none = Ranges::new(VpIndex::new(1)).finish(Some(Gva::new(0x4000)));
        assert_eq!(as_scripts_do(&none), [(0, 0, 0, true, false)]);

        let off = range_without_paging(VpIndex::new(2));
        assert!(off.ends_with(" -rw,VP2,PG-disabled\n"), "{off}");
        assert_eq!(as_scripts_do(&off), [(0, 1 << 32, 1 << 32, true, true)]);
    }

    #[test]
    fn a_list_of_pages_that_was_given_up_has_no_colon_in_its_last_line() {
        let text = given_up(Gva::new(0x4000));
        assert_eq!(
            text,
            "(more is mapped from 0x4000 on; the rest is not listed)"
        );
    }

    /// As public scripts take a line apart: both addresses before and after the colon, and the letters that follow.
    #[test]
    fn each_page_has_a_line_with_its_bits() {
        let mut text = String::new();
        let mut small = page_of(0x1000, 0x1000, "");
        // The memory type's bit of a small page is not "page size".
        small.entry = 1 << 63 | 0xe7;
        let mut large = page_of(0xffff_8000_0020_0000, 0x20_0000, "");
        large.entry = 0x1e3;
        page(&mut text, VpIndex::BSP, &small);
        page(&mut text, VpIndex::BSP, &large);
        assert_eq!(
            text,
            "0000000000001000: 0000000000001000 X--DA--UW VP 0\n\
             ffff800000200000: 0000000000200000 -GPDA---W\n"
        );
        let (_, rest) = text.lines().next().unwrap().split_once(':').unwrap();
        let words: Vec<_> = rest.split_whitespace().collect();
        assert_eq!((words[0], words[1]), ("0000000000001000", "X--DA--UW"));
    }

    #[test]
    fn ram_is_listed_with_its_place_in_the_file_that_backs_it() {
        let range = |gpa, len| RamRange {
            gpa: Gpa::new(gpa),
            len,
        };
        let text = memory_tree(&[range(0, 0xc000_0000), range(1 << 32, 0x4000_0000)]);
        assert_eq!(
            text,
            "FlatView #0\n AS \"memory\", root: system\n Root memory region: system\n\
             \x20 0000000000000000-00000000bfffffff (prio 0, ram): pc.ram KVM\n\
             \x20 0000000100000000-000000013fffffff (prio 0, ram): pc.ram @00000000c0000000 KVM\n"
        );
    }

    /// gdb-pt-dump takes the last word, gef what follows `is`, for an address.
    #[test]
    fn a_refused_host_address_cannot_be_taken_for_one() {
        let last = NO_HOST_ADDRESS.split(' ').next_back().unwrap().trim();
        assert!(u64::from_str_radix(last, 16).is_err());
        assert!(!NO_HOST_ADDRESS.contains("is 0x"));
    }
}
