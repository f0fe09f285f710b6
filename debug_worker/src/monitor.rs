//! `monitor` commands: what GDB has no packet for, for people to read.

use crate::breakpoints_text;
use crate::deadline::CallError;
use crate::disassembly;
use crate::disassembly::LONGEST_INSTRUCTION;
use crate::disassembly::Place;
use crate::operation::Guest;
use crate::operation::mode_name;
use crate::operation::vp_line;
use crate::registers;
use crate::registers_text;
use std::fmt::Write as _;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::GuestAddress;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::Capability;
use vmm_core_defs::debug_rpc::CpuMode;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::debug_rpc::FreezeTime;
use vmm_core_defs::debug_rpc::StepInterrupts;
use vmm_core_defs::memory::Translation;
use vmm_core_defs::stop::GuestEventKind;
use vmm_core_defs::stop::StopOn;

const HELP: &str = "\
Commands (numbers are decimal, or hexadecimal with 0x):
  monitor help                   this list
  monitor status                 what each VP is doing
  monitor breakpoints            each breakpoint and how it is armed
  monitor regs                   all system registers of the selected thread's VP
  monitor mode                   the processor mode of the selected thread's VP
  monitor disas [ADDR [COUNT]]   code as that VP decodes it in its mode, from the next instruction or ADDR on
  monitor translate ADDR         the page walk of a virtual address
  monitor phys x ADDR LEN        physical memory, at most 4096 bytes
  monitor msr read NUM           a model-specific register
  monitor msr write NUM VALUE
  monitor doctor                 what works on this host and what does not
  monitor stop-on [LIST]         which of reset,poweroff,triple-fault,panic stop the guest; none: none of them
  monitor freeze-time            whether the guest's clocks stand while it is stopped
  monitor freeze-time on|off     chooses, from the end of the present stop on
  monitor step-irqs              whether steps take interrupts
  monitor step-irqs on           a step ends at the handler of an interrupt that waits
  monitor step-irqs off          interrupts wait until the guest runs (so at first)
  monitor reset                  reset the guest; it stays stopped at its first instruction
";

/// More than anybody reads in a terminal; GDB's `dump` is there for more.
const MAX_PHYS_LEN: u64 = 4096;

/// As many as `x/i` is usually asked for, and no more than fit a terminal or two.
const DEFAULT_INSTRUCTIONS: u64 = 8;
const MAX_INSTRUCTIONS: u64 = 200;

/// A command line that was understood.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    Help,
    Status,
    Breakpoints,
    Regs,
    Mode,
    Disas { address: Option<u64>, count: usize },
    Translate(Gva),
    Phys { address: Gpa, len: usize },
    MsrRead(u32),
    MsrWrite(u32, u64),
    Doctor,
    StopOn(Option<StopOn>),
    FreezeTime(Option<FreezeTime>),
    StepInterrupts(Option<StepInterrupts>),
    Reset,
}

/// Runs a command for the VP of the selected thread. What it says, an error too, is for a person.
pub(crate) async fn run(guest: &mut Guest, vp: VpIndex, line: &str) -> String {
    let result = match parse(line) {
        Ok(command) => execute(guest, vp, command).await,
        Err(problem) => return problem,
    };
    result.unwrap_or_else(|error| format!("{error}\n"))
}

fn parse(line: &str) -> Result<Command, String> {
    let words: Vec<_> = line.split_whitespace().collect();
    Ok(match words[..] {
        [] | ["help"] => Command::Help,
        ["status"] => Command::Status,
        ["breakpoints"] => Command::Breakpoints,
        ["regs"] => Command::Regs,
        ["mode"] => Command::Mode,
        ["disas"] => disas(None, DEFAULT_INSTRUCTIONS),
        ["disas", address] => disas(Some(number(address)?), DEFAULT_INSTRUCTIONS),
        ["disas", address, count] => disas(Some(number(address)?), number(count)?),
        ["translate", address] => Command::Translate(Gva::new(number(address)?)),
        ["phys", "x", address, len] => {
            let address = Gpa::new(number(address)?);
            let len = usize::try_from(number(len)?.min(MAX_PHYS_LEN)).unwrap_or(usize::MAX);
            Command::Phys { address, len }
        }
        ["msr", "read", msr] => Command::MsrRead(msr_number(msr)?),
        ["msr", "write", msr, value] => Command::MsrWrite(msr_number(msr)?, number(value)?),
        ["doctor"] => Command::Doctor,
        ["stop-on"] => Command::StopOn(None),
        ["stop-on", list] => Command::StopOn(Some(events(list)?)),
        ["freeze-time"] => Command::FreezeTime(None),
        ["freeze-time", "on"] => Command::FreezeTime(Some(FreezeTime::On)),
        ["freeze-time", "off"] => Command::FreezeTime(Some(FreezeTime::Off)),
        ["step-irqs"] => Command::StepInterrupts(None),
        ["step-irqs", "on"] => Command::StepInterrupts(Some(StepInterrupts::Taken)),
        ["step-irqs", "off"] => Command::StepInterrupts(Some(StepInterrupts::Held)),
        ["reset"] => Command::Reset,
        [
            name @ ("status" | "breakpoints" | "regs" | "mode" | "disas" | "translate" | "phys"
            | "msr" | "doctor" | "stop-on" | "freeze-time" | "step-irqs" | "reset" | "help"),
            ..,
        ] => {
            return Err(format!(
                "`monitor {name}` is not used like that; `monitor help` shows how\n"
            ));
        }
        [name, ..] => {
            let name: String = name.chars().take(40).collect();
            return Err(format!(
                "there is no command `{name}`; `monitor help` lists the ones there are\n"
            ));
        }
    })
}

fn disas(address: Option<u64>, count: u64) -> Command {
    let count = usize::try_from(count.min(MAX_INSTRUCTIONS)).unwrap_or(usize::MAX);
    Command::Disas { address, count }
}

fn number(text: &str) -> Result<u64, String> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    }
    .map_err(|_| format!("`{text}` is no number; write 4096 or 0x1000\n"))
}

const EVENTS: [(&str, GuestEventKind); 4] = [
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
                let name: String = name.chars().take(40).collect();
                format!(
                    "`{name}` is no event; write a list of reset, poweroff, triple-fault and panic with commas between, or none\n"
                )
            })
        })
        .collect()
}

fn events_text(on: StopOn) -> String {
    let mut text = String::new();
    for (name, kind) in EVENTS {
        let what = match (on.contains(kind), kind) {
            (true, _) => "a stop",
            (false, GuestEventKind::Panic) => "no stop",
            (false, _) => "no stop: carried out at once",
        };
        let _ = writeln!(text, "{name:12}  {what}");
    }
    text
}

fn msr_number(text: &str) -> Result<u32, String> {
    u32::try_from(number(text)?)
        .map_err(|_| format!("`{text}` is no MSR; their numbers have 32 bits\n"))
}

async fn execute(guest: &mut Guest, vp: VpIndex, command: Command) -> Result<String, CallError> {
    Ok(match command {
        Command::Help => HELP.to_owned(),
        Command::Status => status(guest).await?,
        Command::Breakpoints => {
            breakpoints_text::list(&guest.vm.call(DebugRequest::Breakpoints, ()).await?)
        }
        Command::Regs => registers_text::system_registers(vp, &guest.vm.registers(vp).await?.state),
        Command::Mode => {
            let mode = mode(guest, vp).await?;
            format!("VP {vp}: {}\n", mode.map_or("running", mode_name))
        }
        Command::Disas { address, count } => disassemble(guest, vp, address, count).await?,
        Command::Translate(gva) => {
            let translation = guest.vm.call(DebugRequest::Translate, (vp, gva)).await?;
            translation_text(gva, &translation)
        }
        Command::Phys { address, len } => {
            let bytes = guest
                .vm
                .call(DebugRequest::ReadMemory, (GuestAddress::Gpa(address), len))
                .await?;
            hex_dump(address, &bytes, len)
        }
        Command::MsrRead(msr) => {
            let value = guest.vm.call(DebugRequest::ReadMsr, (vp, msr)).await?;
            format!("MSR {msr:#x} of VP {vp} = {value:#018x}\n")
        }
        Command::MsrWrite(msr, value) => {
            // Some registers of the file are MSRs.
            guest.vm.forget();
            guest
                .vm
                .call(DebugRequest::WriteMsr, (vp, msr, value))
                .await?;
            format!(
                "MSR {msr:#x} of VP {vp} set to {value:#018x}. If it is a register GDB shows: `maintenance flush \
                 register-cache`\n"
            )
        }
        Command::Doctor => capabilities_text(&guest.info.capabilities),
        Command::StopOn(set) => events_text(guest.vm.call(DebugRequest::StopOn, set).await?),
        Command::FreezeTime(wanted) => {
            let now = guest.vm.call(DebugRequest::FreezeTime, wanted).await?;
            freeze_time_text(now).to_owned()
        }
        Command::StepInterrupts(wanted) => {
            let set = guest.vm.call(DebugRequest::StepInterrupts, wanted).await?;
            match set {
                StepInterrupts::Held => "Steps hold interrupts back.\n",
                StepInterrupts::Taken => {
                    "Steps take interrupts: where one waits, the step ends at its handler.\n"
                }
            }
            .to_owned()
        }
        Command::Reset => {
            guest.vm.forget();
            guest.vm.call(DebugRequest::Reset, ()).await?;
            "The guest was reset and is stopped at its first instruction. Tell GDB: `maintenance flush \
             register-cache`\n"
                .to_owned()
        }
    })
}

/// `None`: it runs, and nobody knows.
async fn mode(guest: &mut Guest, vp: VpIndex) -> Result<Option<CpuMode>, CallError> {
    let status = guest.vm.status().await?;
    let index = usize::try_from(vp.index()).unwrap_or(usize::MAX);
    Ok(status.vps.get(index).and_then(|status| status.mode))
}

async fn disassemble(
    guest: &mut Guest,
    vp: VpIndex,
    address: Option<u64>,
    count: usize,
) -> Result<String, CallError> {
    let (pc, base) = registers::pc(&mut guest.vm.registers(vp).await?.state);
    let mode = mode(guest, vp).await?;
    let Some(bitness) = mode.and_then(disassembly::bitness) else {
        return Ok("only x86 code can be disassembled here; GDB's `x/i` knows others\n".to_owned());
    };
    let linear = address.unwrap_or(pc);
    // In 64-bit code the segment has no base.
    let base = if bitness == 64 { 0 } else { base };
    let place = Place { linear, base, pc };
    let gva = Gva::new(linear);
    let len = count * LONGEST_INSTRUCTION;
    let request = (GuestAddress::Gva { vp, gva }, len);
    let bytes = guest.vm.call(DebugRequest::ReadMemory, request).await?;
    Ok(disassembly::list(bitness, place, &bytes, count))
}

async fn status(guest: &mut Guest) -> Result<String, CallError> {
    let status = guest.vm.status().await?;
    let mut text = String::new();
    for (vp, status) in status.vps.iter().enumerate() {
        let _ = writeln!(
            text,
            "thread {}  VP {vp}: {}",
            vp.saturating_add(1),
            vp_line(status)
        );
    }
    Ok(text)
}

fn translation_text(gva: Gva, translation: &Translation) -> String {
    let mut text = String::new();
    for entry in &translation.entries {
        let _ = writeln!(
            text,
            "level {}  entry at {:#014x} = {:#018x}",
            entry.level, entry.gpa, entry.value
        );
    }
    let yes_no = |allowed| if allowed { "yes" } else { "no" };
    match translation.page_size {
        None => {
            let _ = writeln!(
                text,
                "{gva} -> physical {} (paging is off)",
                translation.gpa
            );
        }
        Some(size) => {
            let _ = writeln!(
                text,
                "{gva} -> physical {} in a page of {}; write: {}, user: {}, execute: {}",
                translation.gpa,
                size_text(size),
                yes_no(translation.writable),
                yes_no(translation.user),
                yes_no(translation.executable),
            );
        }
    }
    text
}

fn freeze_time_text(now: FreezeTime) -> &'static str {
    match now {
        FreezeTime::On => "The guest's clocks stand while it is stopped.\n",
        FreezeTime::Off => "The guest's clocks go on while it is stopped.\n",
    }
}

fn size_text(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    UNITS
        .into_iter()
        .find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit))
        .map_or_else(
            || format!("{bytes} bytes"),
            |(unit, name)| format!("{} {name}", bytes / unit),
        )
}

fn hex_dump(address: Gpa, bytes: &[u8], asked: usize) -> String {
    let mut text = String::new();
    for (index, row) in bytes.chunks(16).enumerate() {
        let offset = u64::try_from(index * 16).unwrap_or(u64::MAX);
        let _ = write!(text, "{:#014x} ", address.value().wrapping_add(offset));
        for column in 0..16 {
            let gap = if column % 8 == 0 { "  " } else { " " };
            let _ = match row.get(column) {
                Some(byte) => write!(text, "{gap}{byte:02x}"),
                None => write!(text, "{gap}  "),
            };
        }
        let shown = row.iter().map(|&byte| {
            if matches!(byte, b' '..=b'~') {
                char::from(byte)
            } else {
                '.'
            }
        });
        let _ = writeln!(text, "  |{}|", shown.collect::<String>());
    }
    if bytes.len() < asked {
        let _ = writeln!(
            text,
            "({} of {asked} bytes; nothing is there further on)",
            bytes.len()
        );
    }
    text
}

fn capabilities_text(capabilities: &[Capability]) -> String {
    let width = capabilities
        .iter()
        .map(|capability| capability.name.len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for capability in capabilities {
        let works = if capability.works {
            "works  "
        } else {
            "MISSING"
        };
        let Capability {
            name,
            seen,
            meaning,
            ..
        } = capability;
        let _ = writeln!(
            text,
            "{works}  {name:width$}  {seen}\n         {:width$}  {meaning}",
            ""
        );
    }
    if text.is_empty() {
        text.push_str("The VMM has not probed this host.\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_core_defs::memory::TableEntry;

    #[test]
    fn lines_are_understood_or_answered_with_help() {
        assert_eq!(parse(""), Ok(Command::Help));
        assert_eq!(
            parse(" translate  0xffff800000001000 "),
            Ok(Command::Translate(Gva::new(0xffff_8000_0000_1000)))
        );
        assert_eq!(
            parse("phys x 4096 16"),
            Ok(Command::Phys {
                address: Gpa::new(4096),
                len: 16
            })
        );
        assert_eq!(
            parse("phys x 0 0xffffffffffffffff"),
            Ok(Command::Phys {
                address: Gpa::new(0),
                len: 4096
            }),
            "no more than fits a terminal"
        );
        assert_eq!(
            parse("msr write 0xc0000080 0x500"),
            Ok(Command::MsrWrite(0xc000_0080, 0x500))
        );
        for (line, said) in [
            ("frobnicate", "`monitor help` lists"),
            ("phys 0", "`monitor help` shows how"),
            ("freeze-time maybe", "`monitor help` shows how"),
            ("translate", "`monitor help` shows how"),
            ("translate main", "`main` is no number"),
            ("msr read 0x100000000", "32 bits"),
            ("phys x -1 4", "`-1` is no number"),
            ("stop-on reset,boredom", "`boredom` is no event"),
            ("stop-on reset poweroff", "`monitor help` shows how"),
        ] {
            let problem = parse(line).unwrap_err();
            assert!(problem.contains(said), "{line}: {problem}");
        }
    }

    #[test]
    fn events_are_listed_as_they_are_set() {
        let Ok(Command::StopOn(Some(on))) = parse("stop-on panic,reset") else {
            panic!("not understood");
        };
        assert_eq!(
            events_text(on),
            "reset         a stop\n\
             poweroff      no stop: carried out at once\n\
             triple-fault  no stop: carried out at once\n\
             panic         a stop\n"
        );
        assert_eq!(
            parse("stop-on none"),
            Ok(Command::StopOn(Some(StopOn::from_iter([]))))
        );
    }

    #[test]
    fn every_command_of_the_help_is_understood() {
        for line in HELP
            .lines()
            .filter_map(|line| line.trim().strip_prefix("monitor "))
        {
            let usage = line.split("  ").next().unwrap();
            let example = usage
                .replace("[ADDR [COUNT]]", "0x1000 3")
                .replace("on|off", "off")
                .replace("ADDR", "0x1000")
                .replace("LEN", "16")
                .replace("NUM", "1")
                .replace("VALUE", "2")
                .replace("[LIST]", "none");

            assert!(parse(&example).is_ok(), "{example}");
        }
    }

    #[test]
    fn a_dump_shows_bytes_text_and_where_it_ends() {
        let text = hex_dump(Gpa::new(0x1000), b"Hello, guest\0\xff and more", 64);
        assert_eq!(
            text,
            "0x000000001000   48 65 6c 6c 6f 2c 20 67  75 65 73 74 00 ff 20 61  |Hello, guest.. a|\n\
             0x000000001010   6e 64 20 6d 6f 72 65                              |nd more|\n\
             (23 of 64 bytes; nothing is there further on)\n"
        );
    }

    #[test]
    fn a_walk_shows_every_level() {
        let translation = Translation {
            gpa: Gpa::new(0x20_3000),
            page_size: Some(2 << 20),
            writable: true,
            user: false,
            executable: true,
            entries: vec![TableEntry {
                level: 2,
                gpa: Gpa::new(0x3008),
                value: 0x2000e3,
            }],
        };
        assert_eq!(
            translation_text(Gva::new(0x3000), &translation),
            "level 2  entry at 0x000000003008 = 0x00000000002000e3\n\
             0x3000 -> physical 0x203000 in a page of 2 MiB; write: yes, user: no, execute: yes\n"
        );
    }
}
