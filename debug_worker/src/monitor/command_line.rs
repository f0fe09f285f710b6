//! Parses a `monitor` line. The parser needs no guest, and a line that cannot be parsed is answered with its correct
//! form.

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

/// The number of instructions that `x/8i` shows.
const DEFAULT_INSTRUCTIONS: u64 = 8;

/// A parsed command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// A command about the whole guest.
    Guest(GuestCommand),
    /// A command about one VP: the VP that the line names, or the VP of the selected thread.
    Vp(VpCommand, Option<VpIndex>),
}

impl Command {
    /// Whether scripts written for QEMU send this command. Scripts parse the answer and do not show it to a person.
    pub(super) const fn is_for_scripts(&self) -> bool {
        matches!(
            self,
            Self::Guest(
                GuestCommand::Help
                    | GuestCommand::Xp { .. }
                    | GuestCommand::AllRegisters
                    | GuestCommand::MemoryTree
                    | GuestCommand::HostAddress
            ) | Self::Vp(
                VpCommand::Registers
                    | VpCommand::MappedRanges
                    | VpCommand::MappedPages
                    | VpCommand::GuestAddress(_),
                _
            )
        )
    }
}

/// A command about the guest as a whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum GuestCommand {
    Help,
    Status,
    Breakpoints,
    Phys { address: Gpa, len: u64 },
    Xp { format: Format, address: Gpa },
    MsrNames,
    Statistics,
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
pub(super) enum VpCommand {
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

/// The first words of all commands.
const FIRST_WORDS: [&str; 22] = [
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
    "stats",
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
        return Ok(Command::Vp(command, vp));
    }
    match (of_guest(&numbers, words)?, vp) {
        (Some(command), None) => Ok(Command::Guest(command)),
        (Some(_), Some(vp)) => Err(format!(
            "`monitor {}` is about the whole guest; omit `vp {vp}`\n",
            words.join(" ")
        )),
        (None, _) => Err(not_understood(words)),
    }
}

fn of_vp(numbers: &Numbers<'_>, words: &[&str]) -> Result<Option<VpCommand>, String> {
    Ok(Some(match *words {
        ["regs"] => VpCommand::Regs,
        ["mode"] => VpCommand::Mode,
        ["disas"] => VpCommand::Disas {
            address: None,
            count: DEFAULT_INSTRUCTIONS,
        },
        ["disas", address] => VpCommand::Disas {
            address: Some(numbers.read(address)?),
            count: DEFAULT_INSTRUCTIONS,
        },
        ["disas", address, count] => VpCommand::Disas {
            address: Some(numbers.read(address)?),
            count: numbers.read(count)?,
        },
        ["translate", address] => VpCommand::Translate(Gva::new(numbers.read(address)?)),
        ["msr", "read", msr] => VpCommand::MsrRead(numbers.msr(msr)?),
        ["msr", "write", msr, value] => {
            VpCommand::MsrWrite(numbers.msr(msr)?, numbers.read(value)?)
        }
        ["nmi"] => VpCommand::Nmi,
        ["dump", name] => VpCommand::Dump(name.to_owned()),
        ["info", "registers"] => VpCommand::Registers,
        ["info", "mem"] => VpCommand::MappedRanges,
        ["info", "tlb"] => VpCommand::MappedPages,
        ["gva2gpa", address] => VpCommand::GuestAddress(Gva::new(numbers.read(address)?)),
        _ => return Ok(None),
    }))
}

fn of_guest(numbers: &Numbers<'_>, words: &[&str]) -> Result<Option<GuestCommand>, String> {
    Ok(Some(match *words {
        [] | ["help"] => GuestCommand::Help,
        ["status"] => GuestCommand::Status,
        ["breakpoints"] => GuestCommand::Breakpoints,
        ["phys", "x", address, len] => GuestCommand::Phys {
            address: Gpa::new(numbers.read(address)?),
            len: numbers.read(len)?,
        },
        ["xp", address] => GuestCommand::Xp {
            format: Format::default(),
            address: Gpa::new(numbers.read(address)?),
        },
        // QEMU accepts the format with and without a space before it.
        ["xp", format, address] => GuestCommand::Xp {
            format: xp::format(format.strip_prefix('/').unwrap_or(format))?,
            address: Gpa::new(numbers.read(address)?),
        },
        [first, address] if first.starts_with("xp/") => GuestCommand::Xp {
            format: xp::format(&first[3..])?,
            address: Gpa::new(numbers.read(address)?),
        },
        ["msr"] => GuestCommand::MsrNames,
        ["stats"] => GuestCommand::Statistics,
        ["doctor"] => GuestCommand::Doctor,
        ["stop-on"] => GuestCommand::StopOn(None),
        ["stop-on", list] => GuestCommand::StopOn(Some(events(list)?)),
        ["freeze-time"] => GuestCommand::FreezeTime(None),
        ["freeze-time", "on"] => GuestCommand::FreezeTime(Some(FreezeTime::On)),
        ["freeze-time", "off"] => GuestCommand::FreezeTime(Some(FreezeTime::Off)),
        ["step-irqs"] => GuestCommand::StepInterrupts(None),
        ["step-irqs", "on"] => GuestCommand::StepInterrupts(Some(StepInterrupts::Taken)),
        ["step-irqs", "off"] => GuestCommand::StepInterrupts(Some(StepInterrupts::Held)),
        // OpenOCD's commands. OpenOCD's targets are stopped at their first instruction after either command.
        ["reset" | "system_reset"] | ["reset", "halt" | "init"] => GuestCommand::Reset,
        ["reset", "run"] => {
            return Err(
                "GDB would not know that the guest runs, and would miss its stops; type `monitor reset`, then `continue`\n"
                    .to_owned(),
            );
        }
        ["quit" | "q"] => GuestCommand::Quit,
        ["info", "registers", "-a"] => GuestCommand::AllRegisters,
        ["info", "mtree"] | ["info", "mtree", "-f"] => GuestCommand::MemoryTree,
        ["gpa2hva", address] => {
            numbers.read(address)?;
            GuestCommand::HostAddress
        }
        _ => return Ok(None),
    }))
}

fn not_understood(words: &[&str]) -> String {
    match *words {
        ["info", ..] => "unknown command: `monitor info` supports registers, mem, tlb and mtree; `monitor help` \
                         lists all commands\n"
            .to_owned(),
        ["help", ..] => {
            "`monitor help` lists all commands with their syntax; type `monitor help` alone\n".to_owned()
        }
        [name, ..] if FIRST_WORDS.contains(&name) => {
            format!("`monitor {name}` has another syntax; `monitor help` shows how to write it\n")
        }
        [name, ..] => format!(
            "unknown command: `{}`; `monitor help` lists all commands\n",
            short(name)
        ),
        [] => "write `vp N` at the end of a command; `monitor help` lists the commands\n".to_owned(),
    }
}

fn short(word: &str) -> String {
    word.chars().take(40).collect()
}

/// Parses numbers. An error contains the correct form of the line.
struct Numbers<'a> {
    /// The words of the whole line.
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
                "`{}` is no VP; write the number of a VP, as in `vp 0`; `monitor status` lists the VPs\n",
                short(word)
            )
        })
    }

    fn msr(&self, word: &str) -> Result<u32, String> {
        match number(word) {
            Some(msr) => u32::try_from(msr).map_err(|_| {
                format!("`{word}` is no MSR; write a number of at most 32 bits\n")
            }),
            None => msr_names::number(word).ok_or_else(|| {
                format!(
                    "`{}` is neither a number nor the name of an MSR; `monitor msr` lists the names\n",
                    short(word)
                )
            }),
        }
    }

    /// GDB sends a `monitor` line as it is typed, but GDB's `eval` can put a value into the line.
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

/// The names of the guest events in `stop-on`.
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
                    "`{}` names no event; write reset, poweroff, triple-fault and panic, separated by commas, or none\n",
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

    fn of_guest(line: &str) -> GuestCommand {
        match parse(line) {
            Ok(Command::Guest(command)) => command,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn of_vp(line: &str) -> (VpCommand, Option<VpIndex>) {
        match parse(line) {
            Ok(Command::Vp(command, vp)) => (command, vp),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn lines_are_understood_or_answered_with_help() {
        assert_eq!(of_guest(""), GuestCommand::Help);
        let gva = Gva::new(0xffff_8000_0000_1000);
        assert_eq!(
            of_vp(" translate  0xffff800000001000 "),
            (VpCommand::Translate(gva), None)
        );
        let address = Gpa::new(4096);
        assert_eq!(
            of_guest("phys x 4096 16"),
            GuestCommand::Phys { address, len: 16 }
        );
        assert_eq!(
            of_vp("msr write 0xc0000080 0x500"),
            (VpCommand::MsrWrite(0xc000_0080, 0x500), None)
        );
        assert_eq!(
            of_vp("msr read MSR_EFER").0,
            VpCommand::MsrRead(0xc000_0080)
        );
        for line in ["reset halt", "reset init", "system_reset"] {
            assert_eq!(of_guest(line), GuestCommand::Reset);
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
                Ok(Command::Vp(command, None)) => {
                    about_one += 1;
                    let vp = Some(VpIndex::new(1));
                    assert_eq!(with_vp, Ok(Command::Vp(command, vp)), "{line}");
                }
                Ok(Command::Guest(_)) => {
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

    /// A line with example values for the placeholders.
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

    /// Readers compare the Guide's table with `monitor help`.
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
            GuestCommand::StopOn(Some(wanted))
        );
        let none = StopOn::from_iter([]);
        assert_eq!(of_guest("stop-on none"), GuestCommand::StopOn(Some(none)));
    }
}
