//! `monitor` commands: functions for which GDB has no packet, for people to read, and the commands that scripts written
//! for QEMU send.
//!
//! The first line of an answer about a VP names the VP, because the server's selected thread may differ from the one
//! that GDB's user sees (GDB 13 to 16 do not tell the server that they selected the first thread again after `info
//! threads`).

mod bit_names;
pub(crate) mod breakpoints;
mod command_line;
mod disassembly;
mod dump;
mod help;
mod memory_text;
mod msr_names;
mod qemu;
mod system_registers;
mod xp;

use crate::capability_text::capability_meaning;
use crate::deadline::CallError;
use crate::operation::Guest;
use crate::operation::mode_name;
use crate::operation::vp_line;
use crate::registers;
use command_line::Command;
use command_line::EVENTS;
use command_line::GuestCommand;
use command_line::VpCommand;
use command_line::parse;
use disassembly::CodeLocation;
use gdb_frontend::target::TargetOp;
use gdb_frontend::target::TargetReply;
use std::fmt::Write as _;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::GuestAddress;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::capability::Capabilities;
use vmm_core_defs::capability::Capability;
use vmm_core_defs::debug_rpc::CpuMode;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::debug_rpc::FreezeTime;
use vmm_core_defs::debug_rpc::StepInterrupts;
use vmm_core_defs::debug_rpc::VpActivity;
use vmm_core_defs::memory::MappedPage;
use vmm_core_defs::regs::DebuggerVpState;
use vmm_core_defs::regs::x86_64::bits::MAX_INSTRUCTION_LEN;
use vmm_core_defs::regs::x86_64::bits::cr0;
use vmm_core_defs::stop::GuestEventKind;
use vmm_core_defs::stop::StopOn;

/// The maximum number of bytes for a terminal.
const MAX_PHYS_LEN: u64 = 4096;

/// The maximum number of lines for a terminal.
const MAX_INSTRUCTIONS: u64 = 200;

/// Limits for `info tlb` and `info mem`: page tables can map more pages than can be listed.
const MAX_PAGE_LINES: usize = 1 << 15;
const MAX_REQUESTS_FOR_RANGES: usize = 1 << 8;

/// Runs a command for the VP of the selected thread. The answer, also an error, is a text for a person or for a script.
pub(crate) async fn run(guest: &mut Guest, selected: VpIndex, line: &str) -> TargetReply {
    match parse(line) {
        // Scripts send commands that only another server knows, to find out which server they are connected to.
        Err(problem) => TargetReply::Listing(problem),
        Ok(command) if command.is_for_scripts() => {
            TargetReply::Listing(answer(guest, selected, command).await)
        }
        Ok(command) => TargetReply::Text(answer(guest, selected, command).await),
    }
}

/// Whether an operation is `monitor dump`, the one operation that takes as long as the guest is large.
pub(crate) fn is_dump(operation: &TargetOp) -> bool {
    let TargetOp::Monitor { line, .. } = operation else {
        return false;
    };
    matches!(parse(line), Ok(Command::Vp(VpCommand::Dump(_), _)))
}

async fn answer(guest: &mut Guest, selected: VpIndex, command: Command) -> String {
    match command {
        Command::Guest(command) => of_guest(guest, command)
            .await
            .unwrap_or_else(|error| format!("{error}\n")),
        Command::Vp(command, named) => {
            let vp = named.unwrap_or(selected);
            if !guest.vps.contains(vp) {
                let count = u32::try_from(guest.vps.len()).unwrap_or(u32::MAX);
                let refused = DebugError::NoSuchVp { vp, count };
                return format!("{}\n", CallError::from(refused));
            }
            of_vp(guest, vp, command)
                .await
                .unwrap_or_else(|error| format!("{}\n", with_vp(vp, error.to_string())))
        }
    }
}

/// A text that names the VP, once.
fn with_vp(vp: VpIndex, text: String) -> String {
    let number = vp.to_string();
    let words: Vec<_> = text.split(|c: char| !c.is_alphanumeric()).collect();
    match words.windows(2).any(|pair| *pair == ["VP", &number]) {
        true => text,
        false => format!("VP {vp}: {text}"),
    }
}

async fn of_guest(guest: &mut Guest, command: GuestCommand) -> Result<String, CallError> {
    Ok(match command {
        GuestCommand::Help => help::text(),
        GuestCommand::Status => status(guest).await?,
        GuestCommand::Breakpoints => {
            let armed = guest.vm.call(DebugRequest::Breakpoints, ()).await?;
            let mut text = breakpoints::list(&armed);
            let hits = guest.vm.call(DebugRequest::BreakpointHits, ()).await?;
            text.push_str(&breakpoints::hits(&hits));
            text.push_str(&breakpoints::refused(guest.refused.iter()));
            text
        }
        GuestCommand::Phys { address, len } => physical(guest, address, len).await?,
        GuestCommand::Xp { format, address } => {
            let request = (GuestAddress::Gpa(address), format.bytes());
            match guest.vm.call(DebugRequest::ReadMemory, request).await {
                Ok(bytes) => format.text(address, &bytes),
                // Scripts search for this text.
                Err(error) => format!("Cannot access memory: {error}\n"),
            }
        }
        GuestCommand::MsrNames => msr_names::list(),
        GuestCommand::Statistics => guest.vm.statistics.to_string(),
        GuestCommand::Doctor => capabilities_text(&guest.info.capabilities),
        GuestCommand::StopOn(asked) => {
            let on = guest.vm.call(DebugRequest::StopOn, asked).await?;
            events_text(on, asked.unwrap_or(on))
        }
        GuestCommand::FreezeTime(wanted) => {
            let now = guest.vm.call(DebugRequest::FreezeTime, wanted).await?;
            freeze_time_text(now).to_owned()
        }
        GuestCommand::StepInterrupts(wanted) => {
            let set = guest.vm.call(DebugRequest::StepInterrupts, wanted).await?;
            step_interrupts_text(set).to_owned()
        }
        GuestCommand::Reset => {
            guest.vm.change(DebugRequest::Reset, ()).await?;
            guest.has_run();
            "The guest was reset and is stopped at its first instruction. Type `maintenance flush \
             register-cache`, so that GDB reads the registers again.\n"
                .to_owned()
        }
        GuestCommand::Quit => {
            guest.vm.detach(DetachAction::Kill).await?;
            "The guest and this debug session have ended. Type `disconnect`.\n".to_owned()
        }
        GuestCommand::AllRegisters => {
            let mut text = String::new();
            for vp in guest.vps.clone().iter() {
                text.push_str(&qemu_registers(guest, vp).await?);
                text.push('\n');
            }
            text
        }
        GuestCommand::MemoryTree => {
            qemu::memory_tree(&guest.vm.call(DebugRequest::RamRanges, ()).await?)
        }
        GuestCommand::HostAddress => qemu::NO_HOST_ADDRESS.to_owned(),
    })
}

async fn of_vp(guest: &mut Guest, vp: VpIndex, command: VpCommand) -> Result<String, CallError> {
    Ok(match command {
        VpCommand::Regs => {
            let registers = guest.vm.registers(vp).await?;
            system_registers::table(vp, &registers.state)
        }
        VpCommand::Mode => {
            let mode = mode(guest, vp).await?;
            format!("VP {vp}: {}\n", mode.map_or("running", mode_name))
        }
        VpCommand::Disas { address, count } => disassemble(guest, vp, address, count).await?,
        VpCommand::Translate(gva) => {
            let walk = guest.vm.call(DebugRequest::Translate, (vp, gva)).await?;
            format!("VP {vp}\n{}", memory_text::translation(gva, &walk))
        }
        VpCommand::MsrRead(msr) => {
            let value = guest.vm.call(DebugRequest::ReadMsr, (vp, msr)).await?;
            let msr = msr_names::describe(msr);
            format!("MSR {msr} of VP {vp} = {value:#018x}\n")
        }
        VpCommand::MsrWrite(msr, value) => {
            // Some registers of the cached register file are MSRs.
            let request = (vp, msr, value);
            guest.vm.change(DebugRequest::WriteMsr, request).await?;
            let msr = msr_names::describe(msr);
            format!(
                "MSR {msr} of VP {vp} set to {value:#018x}. If GDB shows this register, type `maintenance flush \
                 register-cache`.\n"
            )
        }
        VpCommand::Nmi => {
            // A halted VP no longer waits.
            guest.vm.change(DebugRequest::Nmi, vp).await?;
            format!("VP {vp} has an NMI, and takes it when it runs.\n")
        }
        VpCommand::Dump(name) => dump::dump(guest, vp, &name).await?,
        VpCommand::Registers => qemu_registers(guest, vp).await?,
        VpCommand::MappedRanges => mapped_ranges(guest, vp).await?,
        VpCommand::MappedPages => mapped_pages(guest, vp).await?,
        VpCommand::GuestAddress(gva) => {
            match guest.vm.call(DebugRequest::Translate, (vp, gva)).await {
                Ok(walk) => format!("VP {vp} gpa: {}\n", walk.gpa),
                Err(CallError::Refused(DebugError::NotMapped { .. })) => {
                    format!("VP {vp}: Unmapped\n")
                }
                Err(error) => return Err(error),
            }
        }
    })
}

/// The processor mode of a VP. `None` if the VP runs.
async fn mode(guest: &mut Guest, vp: VpIndex) -> Result<Option<CpuMode>, CallError> {
    let status = guest.vm.status().await?;
    Ok(status.of(vp).and_then(|status| status.mode))
}

async fn physical(guest: &Guest, address: Gpa, wanted: u64) -> Result<String, CallError> {
    let read = wanted.min(MAX_PHYS_LEN);
    let len = usize::try_from(read).unwrap_or(usize::MAX);
    let request = (GuestAddress::Gpa(address), len);
    let bytes = guest.vm.call(DebugRequest::ReadMemory, request).await?;
    Ok(memory_text::dump(address, &bytes, read, wanted))
}

async fn disassemble(
    guest: &mut Guest,
    vp: VpIndex,
    address: Option<u64>,
    wanted: u64,
) -> Result<String, CallError> {
    let count = usize::try_from(wanted.min(MAX_INSTRUCTIONS)).unwrap_or(usize::MAX);
    let (pc, base) = registers::pc(&mut guest.vm.registers(vp).await?.state);
    let mode = mode(guest, vp).await?;
    let Some((bitness, mode)) = mode.and_then(|mode| Some((disassembly::bitness(mode)?, mode)))
    else {
        return Ok(format!(
            "VP {vp}: this command disassembles only x86 code; use GDB's `x/i`\n"
        ));
    };
    let linear = address.unwrap_or(pc);
    // In 64-bit code the base of CS is zero.
    let base = if bitness == 64 { 0 } else { base };
    let location = CodeLocation { linear, base, pc };
    let gva = Gva::new(linear);
    let len = count * MAX_INSTRUCTION_LEN;
    let request = (GuestAddress::Gva { vp, gva }, len);
    let bytes = guest.vm.call(DebugRequest::ReadMemory, request).await?;
    let mut text = format!("VP {vp}, {}\n", mode_name(mode));
    text.push_str(&disassembly::list(bitness, location, &bytes, count));
    if wanted > MAX_INSTRUCTIONS {
        let _ = writeln!(
            text,
            "({MAX_INSTRUCTIONS} of {wanted} instructions, which is the maximum of one command)"
        );
    }
    Ok(text)
}

async fn status(guest: &mut Guest) -> Result<String, CallError> {
    let status = guest.vm.status().await?;
    let mut text = String::new();
    for status in &status.vps {
        let (vp, line) = (status.vp, vp_line(status));
        let thread = vp.index().saturating_add(1);
        let crash = guest.crash_at_attach(vp);
        let _ = writeln!(text, "thread {thread}  VP {vp}: {line}{crash}");
    }
    Ok(text)
}

async fn qemu_registers(guest: &mut Guest, vp: VpIndex) -> Result<String, CallError> {
    let status = guest.vm.status().await?;
    let halted = status
        .of(vp)
        .is_some_and(|status| status.activity == VpActivity::Halted);
    Ok(match &*guest.vm.registers(vp).await?.state {
        DebuggerVpState::X86_64(state) => qemu::registers(vp, halted, state),
        state @ DebuggerVpState::Aarch64(_) => system_registers::table(vp, state),
    })
}

/// Whether the VP has paging off. Only x86 is supported.
async fn paging_is_off(guest: &mut Guest, vp: VpIndex) -> Result<bool, CallError> {
    Ok(match &*guest.vm.registers(vp).await?.state {
        DebuggerVpState::X86_64(state) => state.cr0 & cr0::PG == 0,
        DebuggerVpState::Aarch64(_) => false,
    })
}

async fn mapped_ranges(guest: &mut Guest, vp: VpIndex) -> Result<String, CallError> {
    if paging_is_off(guest, vp).await? {
        return Ok(qemu::range_without_paging(vp));
    }
    let mut ranges = qemu::Ranges::new(vp);
    let mut next = Some(Gva::new(0));
    for _ in 0..MAX_REQUESTS_FOR_RANGES {
        let Some(from) = next else {
            break;
        };
        let some = guest.vm.call(DebugRequest::MappedPages, (vp, from)).await?;
        some.pages.iter().for_each(|page| ranges.add(page));
        next = some.next;
    }
    Ok(ranges.finish(next))
}

async fn mapped_pages(guest: &mut Guest, vp: VpIndex) -> Result<String, CallError> {
    if paging_is_off(guest, vp).await? {
        // Scripts search for this text.
        return Ok(format!("VP {vp}: PG disabled\n"));
    }
    let mut text = String::new();
    let mut lines = 0;
    let mut next = Some(Gva::new(0));
    for _ in 0..MAX_REQUESTS_FOR_RANGES {
        let Some(from) = next else {
            break;
        };
        let some = guest.vm.call(DebugRequest::MappedPages, (vp, from)).await?;
        next = some.next;
        for page in &some.pages {
            if lines == MAX_PAGE_LINES {
                let MappedPage { gva, .. } = page;
                let _ = writeln!(text, "{}", qemu::rest_not_listed(*gva));
                return Ok(text);
            }
            qemu::page(&mut text, vp, page);
            lines += 1;
        }
    }
    if let Some(at) = next {
        let _ = writeln!(text, "{}", qemu::rest_not_listed(at));
    }
    if text.is_empty() {
        text = format!("VP {vp}: no page is mapped\n");
    }
    Ok(text)
}

/// The events that are stops, and the events that the client has asked for.
fn events_text(on: StopOn, asked: StopOn) -> String {
    let mut text = String::new();
    for (name, kind) in EVENTS {
        let effect = match (on.contains(kind), kind) {
            (true, _) => "a stop",
            (false, _) if asked.contains(kind) => {
                "NO STOP: this VMM does not tell its debug server of this event; set a breakpoint in the code that causes the event"
            }
            (false, GuestEventKind::Panic) => "no stop",
            (false, _) => "no stop: carried out at once",
        };
        let _ = writeln!(text, "{name:12}  {effect}");
    }
    text
}

fn step_interrupts_text(set: StepInterrupts) -> &'static str {
    match set {
        StepInterrupts::Held => "Steps hold interrupts back.\n",
        StepInterrupts::Taken => {
            "Steps take interrupts: if an interrupt is pending, the step ends at its handler.\n"
        }
    }
}

fn freeze_time_text(now: FreezeTime) -> &'static str {
    match now {
        FreezeTime::On => "The guest's clocks stop while the guest is stopped.\n",
        FreezeTime::Off => "The guest's clocks run on while the guest is stopped.\n",
    }
}

fn capabilities_text(capabilities: &Capabilities) -> String {
    let name = |capability: &Capability| capability.kind.to_string();
    let width = capabilities
        .iter()
        .map(|capability| name(capability).len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for capability in capabilities.iter() {
        let works = if capability.is_wanting() {
            "MISSING"
        } else {
            "works  "
        };
        let (name, seen) = (name(capability), &capability.seen);
        let meaning = capability_meaning(capability);
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

    #[test]
    fn a_text_names_its_vp_once() {
        for (text, named) in [
            (
                "no page maps 0x1000 on VP 1: why",
                "no page maps 0x1000 on VP 1: why",
            ),
            ("VP 1 has no MSR", "VP 1 has no MSR"),
            ("VP 12 has no MSR", "VP 1: VP 12 has no MSR"),
            ("there is no MSR", "VP 1: there is no MSR"),
        ] {
            assert_eq!(with_vp(VpIndex::new(1), text.to_owned()), named);
        }
    }

    #[test]
    fn events_are_listed_as_they_are_set() {
        let on = StopOn::from_iter([GuestEventKind::Panic, GuestEventKind::Reset]);
        assert_eq!(
            events_text(on, on),
            "reset         a stop\n\
             poweroff      no stop: carried out at once\n\
             triple-fault  no stop: carried out at once\n\
             panic         a stop\n"
        );
    }

    #[test]
    fn an_event_that_was_asked_for_in_vain_is_named() {
        let on = StopOn::from_iter([GuestEventKind::TripleFault]);
        let text = events_text(on, StopOn::all());
        assert_eq!(text.matches("NO STOP: this VMM does not tell").count(), 3);
        assert!(text.contains("triple-fault  a stop\n"), "{text}");
    }
}
