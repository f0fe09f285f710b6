//! VPs and memory in the format of QEMU's monitor, which existing scripts parse (`CR3=`, `START-END SIZE urw`). Texts
//! and layout differ from QEMU's where no script depends on them. A field vp_suffix value the server does not know is left
//! out.
//!
//! The first line of an answer about a VP names the VP. Scripts parse *every* line of `info mem` and `info tlb`, so
//! there the VP is at the end of the first line. A line of `info mem` that is no range makes pwndbg's `vmmap`,
//! `telescope` and `context` fail. Therefore every line is a range, and every other text is at the end of a range.

use std::fmt::Write as _;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::memory::MappedPage;
use vmm_core_defs::memory::RamRange;
use vmm_core_defs::regs::X86VpState;
use vmm_core_defs::regs::x86_64::Gp;
use vmm_core_defs::regs::x86_64::SegmentRegister;
use vmm_core_defs::regs::x86_64::TableRegister;

/// The bits of an entry that maps a page (SDM volume 3, "4-Level Paging"), with QEMU's letters for them.
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

/// The general registers in QEMU's order, four in a line.
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

/// `info registers`. In 64-bit code the names have the form `RAX` and the values 16 digits; in other code `EAX` and 8
/// digits.
pub(super) fn registers(vp: VpIndex, halted: bool, state: &X86VpState) -> String {
    let long = state.is_64_bit_code();
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

/// The seven flags that QEMU shows, by their letters.
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

/// The upper half of the segment descriptor, without the parts of the base and the limit.
const fn descriptor(register: &SegmentRegister) -> u32 {
    register.attributes << 8 & 0x00f0_ff00
}

/// `info mem`: ranges that are mapped with the same rights.
pub(super) struct Ranges {
    text: String,
    vp: VpIndex,
    last: Option<Range>,
}

#[derive(Clone, Copy)]
struct Range {
    start: u64,
    /// The last byte of the range. (The end of a range at the top of the address space has no 64-bit number.)
    last: u64,
    user: bool,
    writable: bool,
}

/// `info mem` without paging: linear addresses are physical addresses.
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

    /// Completes the listing. `cut` is the address from which on pages were not listed, if there is one.
    pub(super) fn finish(mut self, cut: Option<Gva>) -> String {
        self.flush();
        if self.text.is_empty() {
            let vp = self.vp;
            self.text = format!("{0}-{0} {0} ---,VP{vp},no-page-is-mapped\n", "0".repeat(16));
        }
        if let Some(at) = cut {
            // Scripts search the text for the letter of "writable", so the text must not contain this letter.
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
        let vp_suffix = match self.text.is_empty() {
            true => format!(",VP{}", self.vp),
            false => String::new(),
        };
        let _ = writeln!(
            self.text,
            "{:016x}-{:016x} {size:016x} {}r{}{vp_suffix}",
            range.start,
            range.last.wrapping_add(1),
            if range.user { 'u' } else { '-' },
            if range.writable { 'w' } else { '-' },
        );
    }
}

/// `info tlb`: one line for each page. The first line names the VP at its end.
pub(super) fn page(text: &mut String, vp: VpIndex, page: &MappedPage) {
    let letters = ENTRY_BITS.into_iter().map(|(bit, letter)| {
        // In an entry of the lowest level, bit 7 is not the page size bit.
        let set = page.entry >> bit & 1 != 0 && (bit != 7 || page.size > 4096);
        if set { letter } else { '-' }
    });
    let vp_suffix = match text.is_empty() {
        true => format!(" VP {vp}"),
        false => String::new(),
    };
    let letters: String = letters.collect();
    let _ = writeln!(
        text,
        "{:016x}: {:016x} {letters}{vp_suffix}",
        page.gva.value(),
        page.gpa.value()
    );
}

/// `info tlb`. The text must not contain the characters that scripts search for in a line.
pub(super) fn rest_not_listed(at: Gva) -> String {
    format!("(more is mapped from {at} on; the rest is not listed)")
}

/// `info mtree -f`. The server does not know the VMM's devices.
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

/// The reason why no host address is returned. Scripts take the last word of an answer, or the text after `is 0x`, for
/// the address, so the text must not match either.
pub(super) const NO_HOST_ADDRESS: &str = "gpa2hva is refused: a host address is useful only to a program that accesses the VMM's memory without \
     the debug server. Use `monitor xp /FMT ADDR` or `maintenance packet Qqemu.PhyMemMode:1` to read physical memory instead\n";

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

    /// The text after the first `needle`, up to the next space.
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

    /// Parses every line as pwndbg does: start, end, size, and whether the last word contains the letters of the
    /// rights.
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
        let text = rest_not_listed(Gva::new(0x4000));
        assert_eq!(
            text,
            "(more is mapped from 0x4000 on; the rest is not listed)"
        );
    }

    /// Parses a line as public scripts do: the addresses before and after the colon, and the letters behind them.
    #[test]
    fn each_page_has_a_line_with_its_bits() {
        let mut text = String::new();
        let mut small = page_of(0x1000, 0x1000, "");
        // In the entry of a 4 KiB page, bit 7 selects the memory type.
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

    /// gdb-pt-dump takes the last word for an address; gef takes the text after `is`.
    #[test]
    fn a_refused_host_address_cannot_be_taken_for_one() {
        let last = NO_HOST_ADDRESS.split(' ').next_back().unwrap().trim();
        assert!(u64::from_str_radix(last, 16).is_err());
        assert!(!NO_HOST_ADDRESS.contains("is 0x"));
    }
}
