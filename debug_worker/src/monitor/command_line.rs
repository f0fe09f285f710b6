//! From a line to a command. No guest is needed, and what cannot be understood is answered with how it should be written.

use super::msr_names;
use super::xp;
use super::xp::Format;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::FreezeTime;
use vmm_core_defs::debug_rpc::StepInterrupts;
use vmm_core_defs::stop::GuestEventKind;
use vmm_core_defs::stop::StopOn;

/// As many as `x/i` is usually asked for.
const DEFAULT_INSTRUCTIONS: u64 = 8;

/// A command line that was understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// It is about the guest as a whole.
    OfGuest(OfGuest),
    /// It is about one VP: this one, or that of the selected thread.
    OfVp(OfVp, Option<VpIndex>),
}

impl Command {
    /// Scripts written for QEMU send it. They take the answer apart, and show it to nobody.
    pub(super) const fn is_of_scripts(&self) -> bool {
        matches!(
            self,
            Self::OfGuest(
                OfGuest::Help
                    | OfGuest::Xp { .. }
                    | OfGuest::AllRegisters
                    | OfGuest::MemoryTree
                    | OfGuest::HostAddress
            ) | Self::OfVp(
                OfVp::Registers | OfVp::MappedRanges | OfVp::MappedPages | OfVp::GuestAddress(_),
                _
            )
        )
    }
}

/// A command about the guest as a whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OfGuest {
    Help,
    Status,
    Breakpoints,
    Phys { address: Gpa, len: u64 },
    Xp { format: Format, address: Gpa },
    MsrNames,
    Doctor,
    StopOn(Option<StopOn>),
    FreezeTime(Option<FreezeTime>),
    StepInterrupts(Option<StepInterrupts>),
    Reset,
    Quit,
    AllRegisters,
    MemoryTree,
    HostAddress,
}

/// A command about one VP.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum OfVp {
    Regs,
    Mode,
    Disas { address: Option<u64>, count: u64 },
    Translate(Gva),
    MsrRead(u32),
    MsrWrite(u32, u64),
    Nmi,
    Dump(String),
    Registers,
    MappedRanges,
    MappedPages,
    GuestAddress(Gva),
}

/// The words that begin a command.
const FIRST_WORDS: [&str; 21] = [
    "help",
    "status",
    "breakpoints",
    "regs",
    "mode",
    "disas",
    "translate",
    "phys",
    "msr",
    "nmi",
    "dump",
    "doctor",
    "stop-on",
    "freeze-time",
    "step-irqs",
    "reset",
    "quit",
    "xp",
    "gva2gpa",
    "gpa2hva",
    "system_reset",
];

pub(super) fn parse(line: &str) -> Result<Command, String> {
    let words: Vec<_> = line.split_whitespace().collect();
    let numbers = Numbers { words: &words };
    let (words, vp) = match &words[..] {
        [words @ .., "vp", vp] => (words, Some(numbers.vp(vp)?)),
        words => (words, None),
    };
    if vp.is_some() && words.is_empty() {
        return Err(not_understood(words));
    }
    if let Some(command) = of_vp(&numbers, words)? {
        return Ok(Command::OfVp(command, vp));
    }
    match (of_guest(&numbers, words)?, vp) {
        (Some(command), None) => Ok(Command::OfGuest(command)),
        (Some(_), Some(vp)) => Err(format!(
            "`monitor {}` is about the whole guest: leave `vp {vp}` out\n",
            words.join(" ")
        )),
        (None, _) => Err(not_understood(words)),
    }
}

fn of_vp(numbers: &Numbers<'_>, words: &[&str]) -> Result<Option<OfVp>, String> {
    Ok(Some(match *words {
        ["regs"] => OfVp::Regs,
        ["mode"] => OfVp::Mode,
        ["disas"] => OfVp::Disas {
            address: None,
            count: DEFAULT_INSTRUCTIONS,
        },
        ["disas", address] => OfVp::Disas {
            address: Some(numbers.read(address)?),
            count: DEFAULT_INSTRUCTIONS,
        },
        ["disas", address, count] => OfVp::Disas {
            address: Some(numbers.read(address)?),
            count: numbers.read(count)?,
        },
        ["translate", address] => OfVp::Translate(Gva::new(numbers.read(address)?)),
        ["msr", "read", msr] => OfVp::MsrRead(numbers.msr(msr)?),
        ["msr", "write", msr, value] => OfVp::MsrWrite(numbers.msr(msr)?, numbers.read(value)?),
        ["nmi"] => OfVp::Nmi,
        ["dump", name] => OfVp::Dump(name.to_owned()),
        ["info", "registers"] => OfVp::Registers,
        ["info", "mem"] => OfVp::MappedRanges,
        ["info", "tlb"] => OfVp::MappedPages,
        ["gva2gpa", address] => OfVp::GuestAddress(Gva::new(numbers.read(address)?)),
        _ => return Ok(None),
    }))
}

fn of_guest(numbers: &Numbers<'_>, words: &[&str]) -> Result<Option<OfGuest>, String> {
    Ok(Some(match *words {
        [] | ["help"] => OfGuest::Help,
        ["status"] => OfGuest::Status,
        ["breakpoints"] => OfGuest::Breakpoints,
        ["phys", "x", address, len] => OfGuest::Phys {
            address: Gpa::new(numbers.read(address)?),
            len: numbers.read(len)?,
        },
        ["xp", address] => OfGuest::Xp {
            format: Format::default(),
            address: Gpa::new(numbers.read(address)?),
        },
        // QEMU takes the format with a space before it and without.
        ["xp", format, address] => OfGuest::Xp {
            format: xp::format(format.strip_prefix('/').unwrap_or(format))?,
            address: Gpa::new(numbers.read(address)?),
        },
        [first, address] if first.starts_with("xp/") => OfGuest::Xp {
            format: xp::format(&first[3..])?,
            address: Gpa::new(numbers.read(address)?),
        },
        ["msr"] => OfGuest::MsrNames,
        ["doctor"] => OfGuest::Doctor,
        ["stop-on"] => OfGuest::StopOn(None),
        ["stop-on", list] => OfGuest::StopOn(Some(events(list)?)),
        ["freeze-time"] => OfGuest::FreezeTime(None),
        ["freeze-time", "on"] => OfGuest::FreezeTime(Some(FreezeTime::On)),
        ["freeze-time", "off"] => OfGuest::FreezeTime(Some(FreezeTime::Off)),
        ["step-irqs"] => OfGuest::StepInterrupts(None),
        ["step-irqs", "on"] => OfGuest::StepInterrupts(Some(StepInterrupts::Taken)),
        ["step-irqs", "off"] => OfGuest::StepInterrupts(Some(StepInterrupts::Held)),
        // OpenOCD's words: its targets are stopped at their first instruction after both.
        ["reset" | "system_reset"] | ["reset", "halt" | "init"] => OfGuest::Reset,
        ["reset", "run"] => {
            return Err(
                "a client that is told nothing of it would miss the guest's stops: write `monitor reset`, then `continue`\n"
                    .to_owned(),
            );
        }
        ["quit" | "q"] => OfGuest::Quit,
        ["info", "registers", "-a"] => OfGuest::AllRegisters,
        ["info", "mtree"] | ["info", "mtree", "-f"] => OfGuest::MemoryTree,
        ["gpa2hva", address] => {
            numbers.read(address)?;
            OfGuest::HostAddress
        }
        _ => return Ok(None),
    }))
}

fn not_understood(words: &[&str]) -> String {
    match *words {
        ["info", ..] => "unknown command: of `monitor info ...` there are registers, mem, tlb and mtree; `monitor help` \
                         lists the others\n"
            .to_owned(),
        [name, ..] if FIRST_WORDS.contains(&name) => {
            format!("`monitor {name}` is not used like that; `monitor help` shows how\n")
        }
        [name, ..] => format!(
            "unknown command: `{}`; `monitor help` lists the ones there are\n",
            short(name)
        ),
        [] => "`vp N` goes at the end of a command; `monitor help` lists them\n".to_owned(),
    }
}

fn short(word: &str) -> String {
    word.chars().take(40).collect()
}

/// Reads numbers, and says how the line is to be written where there is none.
struct Numbers<'a> {
    /// The whole line.
    words: &'a [&'a str],
}

impl Numbers<'_> {
    fn read(&self, word: &str) -> Result<u64, String> {
        number(word).ok_or_else(|| self.no_number(word))
    }

    fn vp(&self, word: &str) -> Result<VpIndex, String> {
        let index = number(word).and_then(|index| u32::try_from(index).ok());
        index.map(VpIndex::new).ok_or_else(|| {
            format!(
                "`{}` is no VP: write its number, as in `vp 0`; `monitor status` lists them\n",
                short(word)
            )
        })
    }

    fn msr(&self, word: &str) -> Result<u32, String> {
        match number(word) {
            Some(msr) => u32::try_from(msr).map_err(|_| {
                format!("`{word}` is no MSR; their numbers have 32 bits\n")
            }),
            None => msr_names::number(word).ok_or_else(|| {
                format!(
                    "`{}` is neither a number nor the name of an MSR; `monitor msr` lists the names\n",
                    short(word)
                )
            }),
        }
    }

    /// GDB passes `monitor` lines on as they are typed, but its `eval` can put a value into one.
    fn no_number(&self, word: &str) -> String {
        let line = self.words.iter();
        let line: Vec<_> = line
            .map(|this| if *this == word { "%p" } else { this })
            .collect();
        let word = short(word);
        format!(
            "`{word}` is no number; write 4096 or 0x1000. For a symbol or a register: eval \"monitor {}\", {word}\n",
            line.join(" ")
        )
    }
}

fn number(word: &str) -> Option<u64> {
    match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => word.parse().ok(),
    }
}

/// The names of the guest's own doings.
pub(super) const EVENTS: [(&str, GuestEventKind); 4] = [
    ("reset", GuestEventKind::Reset),
    ("poweroff", GuestEventKind::PowerOff),
    ("triple-fault", GuestEventKind::TripleFault),
    ("panic", GuestEventKind::Panic),
];

fn events(list: &str) -> Result<StopOn, String> {
    let names = list.split(',').filter(|_| list != "none");
    names
        .map(|name| {
            let event = EVENTS.into_iter().find(|(known, _)| *known == name);
            event.map(|(_, kind)| kind).ok_or_else(|| {
                format!(
                    "`{}` names no event; write a list of reset, poweroff, triple-fault and panic with commas between, or none\n",
                    short(name)
                )
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::help;

    fn of_guest(line: &str) -> OfGuest {
        match parse(line) {
            Ok(Command::OfGuest(command)) => command,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn of_vp(line: &str) -> (OfVp, Option<VpIndex>) {
        match parse(line) {
            Ok(Command::OfVp(command, vp)) => (command, vp),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn lines_are_understood_or_answered_with_help() {
        assert_eq!(of_guest(""), OfGuest::Help);
        let gva = Gva::new(0xffff_8000_0000_1000);
        assert_eq!(
            of_vp(" translate  0xffff800000001000 "),
            (OfVp::Translate(gva), None)
        );
        let address = Gpa::new(4096);
        assert_eq!(
            of_guest("phys x 4096 16"),
            OfGuest::Phys { address, len: 16 }
        );
        assert_eq!(
            of_vp("msr write 0xc0000080 0x500"),
            (OfVp::MsrWrite(0xc000_0080, 0x500), None)
        );
        assert_eq!(of_vp("msr read MSR_EFER").0, OfVp::MsrRead(0xc000_0080));
        for line in ["reset halt", "reset init", "system_reset"] {
            assert_eq!(of_guest(line), OfGuest::Reset);
        }
        for (line, said) in [
            ("frobnicate", "`monitor help` lists"),
            ("phys 0", "`monitor help` shows how"),
            ("freeze-time maybe", "`monitor help` shows how"),
            ("translate", "`monitor help` shows how"),
            ("info qtree", "registers, mem, tlb and mtree"),
            ("msr read 0x100000000", "32 bits"),
            ("msr read do_round", "`monitor msr` lists"),
            ("phys x -1 4", "`-1` is no number"),
            ("stop-on reset,boredom", "`boredom` names no event"),
            ("stop-on reset poweroff", "`monitor help` shows how"),
            ("reset run", "then `continue`"),
        ] {
            let problem = parse(line).unwrap_err();
            assert!(problem.contains(said), "{line}: {problem}");
        }
    }

    #[test]
    fn a_symbol_is_answered_with_the_line_that_passes_its_address() {
        for (line, eval) in [
            (
                "translate do_round",
                r#"eval "monitor translate %p", do_round"#,
            ),
            ("disas $pc 4 vp 1", r#"eval "monitor disas %p 4 vp 1", $pc"#),
            ("xp /4gx table", r#"eval "monitor xp /4gx %p", table"#),
        ] {
            let problem = parse(line).unwrap_err();
            assert!(problem.contains(eval), "{line}: {problem}");
        }
    }

    #[test]
    fn every_command_about_one_vp_takes_the_vp_and_no_other_does() {
        let mut about_one = 0;
        for (usage, _) in help::COMMANDS {
            let line = example(usage);
            let with_vp = parse(&format!("{line} vp 1"));
            match parse(&line) {
                Ok(Command::OfVp(command, None)) => {
                    about_one += 1;
                    let vp = Some(VpIndex::new(1));
                    assert_eq!(with_vp, Ok(Command::OfVp(command, vp)), "{line}");
                }
                Ok(Command::OfGuest(_)) => {
                    let problem = with_vp.unwrap_err();
                    assert!(problem.contains("whole guest"), "{line}: {problem}");
                }
                other => panic!("{line}: {other:?}"),
            }
        }
        assert_eq!(about_one, 12);
        assert!(parse("regs vp x").unwrap_err().contains("`x` is no VP"));
        assert!(parse("vp 1").unwrap_err().contains("at the end"));
    }

    /// A line that is written like this.
    fn example(usage: &str) -> String {
        usage
            .replace("[ADDR [COUNT]]", "0x1000 3")
            .replace("on|off", "off")
            .replace("/FMT", "/4gx")
            .replace("ADDR", "0x1000")
            .replace("LEN", "16")
            .replace("NUM", "1")
            .replace("VALUE", "2")
            .replace("[LIST]", "none")
            .replace("[-a]", "")
            .replace("[-f]", "-f")
    }

    /// The Guide's table and `monitor help` are read side by side.
    #[test]
    fn the_guide_has_a_row_for_every_command() {
        let guide = include_str!("../../../Guide/src/monitor.md");
        for (usage, _) in help::COMMANDS {
            let row = format!("| `monitor {}` | ", usage.replace('|', "\\|"));
            assert!(guide.contains(&row), "{row}");
        }
        let rows = guide.lines().filter(|line| line.starts_with("| `monitor "));
        assert_eq!(rows.count(), help::COMMANDS.len());
    }

    #[test]
    fn events_are_understood_as_a_list() {
        let wanted = StopOn::from_iter([GuestEventKind::Panic, GuestEventKind::Reset]);
        assert_eq!(
            of_guest("stop-on panic,reset"),
            OfGuest::StopOn(Some(wanted))
        );
        let none = StopOn::from_iter([]);
        assert_eq!(of_guest("stop-on none"), OfGuest::StopOn(Some(none)));
    }
}
