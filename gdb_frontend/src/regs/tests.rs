//! The register tables, the target descriptions that are generated from them, and the page of the Guide.

use crate::regs::Layout;
use crate::regs::RegNum;
use crate::regs::markdown::markdown;
use crate::target_xml::target_xml;
use std::collections::HashMap;
use std::collections::HashSet;
use std::path::Path;

/// Types that are predefined in GDB (GDB manual, node "Predefined Target Types"), with their width in bits.
const PREDEFINED: &[(&str, u32)] = &[
    ("int", 32),
    ("int8", 8),
    ("int16", 16),
    ("int32", 32),
    ("int64", 64),
    ("uint16", 16),
    ("uint32", 32),
    ("uint64", 64),
    ("uint128", 128),
    ("code_ptr", 64),
    ("data_ptr", 64),
    ("ieee_single", 32),
    ("ieee_double", 64),
    ("i387_ext", 80),
];

fn layouts() -> Vec<Layout> {
    let mut layouts = vec![Layout::Aarch64];
    for bits in 0..8 {
        layouts.push(Layout::X86_64 {
            avx: bits & 1 != 0,
            avx512: bits & 2 != 0,
            pkru: bits & 4 != 0,
        });
    }
    layouts
}

const EVERYTHING: Layout = Layout::X86_64 {
    avx: true,
    avx512: true,
    pkru: true,
};

#[test]
fn numbers_are_dense_and_offsets_are_sums_of_widths() {
    for layout in layouts() {
        let mut offset = 0;
        for (at, reg) in layout.table().iter().enumerate() {
            assert_eq!(reg.num, RegNum(u16::try_from(at).unwrap()), "{}", reg.name);
            assert_eq!(reg.offset, offset, "{}", reg.name);
            assert_eq!(reg.bits % 8, 0, "{}", reg.name);
            offset += reg.bytes();
        }
        assert_eq!(offset, layout.total_bytes());
    }
}

#[test]
fn names_and_ids_are_there_once() {
    for layout in layouts() {
        let mut names = HashSet::new();
        let mut ids = HashSet::new();
        for reg in layout.table() {
            assert!(names.insert(reg.name.as_str()), "{} twice", reg.name);
            assert!(ids.insert(reg.id), "{:?} twice", reg.id);
            assert_eq!(layout.by_name(&reg.name).unwrap().num, reg.num);
        }
    }
}

#[test]
fn the_numbers_that_gdb_has_always_used_are_kept() {
    let layout = EVERYTHING;
    for (num, name) in [
        (0, "rax"),
        (1, "rbx"),
        (2, "rcx"),
        (3, "rdx"),
        (7, "rsp"),
        (16, "rip"),
        (17, "eflags"),
        (18, "cs"),
        (24, "st0"),
        (32, "fctrl"),
        (39, "fop"),
        (40, "xmm0"),
        (56, "mxcsr"),
        (57, "fs_base"),
        (58, "gs_base"),
    ] {
        assert_eq!(layout.reg(RegNum(num)).unwrap().name, name);
    }
}

#[test]
fn avx512_without_avx_is_left_out() {
    let odd = Layout::X86_64 {
        avx: false,
        avx512: true,
        pkru: false,
    };
    assert!(odd.by_name("k0").is_none());
    assert!(EVERYTHING.by_name("k0").is_some());
}

/// GDB refuses a description that breaks these rules (GDB manual, node "i386 Features").
#[test]
fn standard_features_have_all_their_registers() {
    let with_number = |name: &str, range: std::ops::Range<u32>, end: &str| -> Vec<String> {
        range.map(|n| format!("{name}{n}{end}")).collect()
    };
    let features: Vec<(&str, Vec<String>)> = vec![
        ("core", with_number("st", 0..8, "")),
        ("core", with_number("r", 8..16, "")),
        ("sse", with_number("xmm", 0..16, "")),
        ("sse", vec!["mxcsr".to_owned()]),
        ("segments", vec!["fs_base".to_owned(), "gs_base".to_owned()]),
        ("avx", with_number("ymm", 0..16, "h")),
        ("avx512", with_number("k", 0..8, "")),
        ("avx512", with_number("zmm", 0..32, "h")),
        ("avx512", with_number("xmm", 16..32, "")),
        ("avx512", with_number("ymm", 16..32, "h")),
        ("pkeys", vec!["pkru".to_owned()]),
    ];
    for (feature, names) in features {
        for name in names {
            let reg = EVERYTHING.by_name(&name).expect(&name);
            assert_eq!(reg.feature, format!("org.gnu.gdb.i386.{feature}"), "{name}");
        }
    }
}

/// The width of a type in bits. The type is predefined or was defined before.
fn width(types: &HashMap<String, u32>, name: &str) -> u32 {
    let predefined = PREDEFINED.iter().find(|(known, _)| *known == name);
    match predefined {
        Some((_, bits)) => *bits,
        None => *types
            .get(name)
            .unwrap_or_else(|| panic!("no type {name} is defined before it is used")),
    }
}

#[test]
fn descriptions_are_well_formed_and_refer_only_to_types_of_the_right_width() {
    for layout in layouts() {
        let options = roxmltree::ParsingOptions {
            allow_dtd: true,
            ..Default::default()
        };
        let document =
            roxmltree::Document::parse_with_options(target_xml(layout), options).unwrap();
        let mut registers = layout.table().iter();
        for feature in document.descendants().filter(|n| n.has_tag_name("feature")) {
            let mut types = HashMap::new();
            for node in feature.children().filter(roxmltree::Node::is_element) {
                let attribute = |name| node.attribute(name).expect(name);
                let number = |name| attribute(name).parse::<u32>().expect(name);
                let fields = || node.children().filter(|n| n.has_tag_name("field"));
                match node.tag_name().name() {
                    "vector" => {
                        let bits = width(&types, attribute("type")) * number("count");
                        types.insert(attribute("id").to_owned(), bits);
                    }
                    "union" => {
                        let widths: HashSet<u32> = fields()
                            .map(|field| width(&types, field.attribute("type").unwrap()))
                            .collect();
                        assert_eq!(widths.len(), 1, "{} has uneven members", attribute("id"));
                        types.extend(widths.into_iter().map(|w| (attribute("id").to_owned(), w)));
                    }
                    "flags" => {
                        let bits = number("size") * 8;
                        let mut next = 0;
                        for field in fields() {
                            let start: u32 = field.attribute("start").unwrap().parse().unwrap();
                            let end: u32 = field.attribute("end").unwrap().parse().unwrap();
                            assert!(next <= start && start <= end && end < bits, "{field:?}");
                            next = end + 1;
                        }
                        types.insert(attribute("id").to_owned(), bits);
                    }
                    "reg" => {
                        let reg = registers.next().expect("a register of the table");
                        assert_eq!(attribute("name"), reg.name);
                        assert_eq!(number("regnum"), u32::from(reg.num.0));
                        assert_eq!(number("bitsize"), u32::from(reg.bits));
                        assert_eq!(
                            width(&types, attribute("type")),
                            number("bitsize"),
                            "{}",
                            reg.name
                        );
                        assert_eq!(feature.attribute("name"), Some(reg.feature));
                    }
                    other => panic!("unexpected element {other}"),
                }
            }
        }
        assert!(registers.next().is_none(), "registers are missing");
    }
}

#[test]
fn files_made_of_the_tables_are_up_to_date() {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = format!(
        "# Registers\n\nWhat GDB and LLDB see of a guest. Made by `TRAPGATE_BLESS=1 cargo test -p trapgate-gdb-frontend` from the tables in `gdb_frontend/src/regs`.\n\n\
         A register that the guest's processor has, but whose value is not known, is shown as `<unavailable>`. Features after the system registers are left out where\n\
         the virtual processor does not have them.\n\n## x86\n\n{}\n## 64-bit Arm\n\n{}",
        markdown(EVERYTHING),
        markdown(Layout::Aarch64),
    );
    for (path, expected) in [
        ("tests/snapshots/x86_64.xml", target_xml(EVERYTHING)),
        ("tests/snapshots/aarch64.xml", target_xml(Layout::Aarch64)),
        ("../Guide/src/registers.md", page.as_str()),
    ] {
        let path = crate_folder.join(path);
        if std::env::var_os("TRAPGATE_BLESS").is_some() {
            std::fs::write(&path, expected).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            written == expected,
            "{} is out of date; run: TRAPGATE_BLESS=1 cargo test -p trapgate-gdb-frontend",
            path.display()
        );
    }
}
