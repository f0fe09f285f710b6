//! The rows of the tables that GDB's `info os` shows.

use crate::deadline::CallError;
use crate::error_table::target_error;
use crate::monitor::breakpoints::how_armed;
use crate::monitor::breakpoints::kind_name;
use crate::operation::Guest;
use crate::operation::vp_line;
use crate::stop_reply::thread_of;
use gdb_frontend::target::GuestTable;
use gdb_frontend::target::TargetError;
use gdb_frontend::target::TargetReply;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::debug_rpc::VpStatus;

type Rows = Vec<Vec<String>>;

/// The rows of a table, in the order of [`GuestTable::columns`].
pub(crate) async fn rows(guest: &mut Guest, table: GuestTable) -> Result<TargetReply, TargetError> {
    let rows = match table {
        GuestTable::Vps => vps(guest).await,
        GuestTable::Breakpoints => breakpoints(guest).await,
        GuestTable::Memory => memory(guest).await,
    };
    rows.map(TargetReply::Rows)
        .map_err(|error| target_error(&error))
}

async fn vps(guest: &mut Guest) -> Result<Rows, CallError> {
    let status = guest.vm.status().await?;
    let row = |status: &VpStatus| {
        let vp = status.vp;
        let thread = thread_of(vp).map(|thread| thread.get().to_string());
        let state = format!("{}{}", vp_line(status), guest.crash_at_attach(vp));
        vec![vp.to_string(), thread.unwrap_or_default(), state]
    };
    Ok(status.vps.iter().map(row).collect())
}

/// The breakpoints that are set now, and those that were hit and are removed. GDB removes its breakpoints at each stop.
async fn breakpoints(guest: &Guest) -> Result<Rows, CallError> {
    let armed = guest.vm.call(DebugRequest::Breakpoints, ()).await?;
    let hits = guest.vm.call(DebugRequest::BreakpointHits, ()).await?;
    let row = |breakpoint: Breakpoint, armed: String| {
        let counted = hits.iter().find(|of| of.breakpoint == breakpoint);
        let (hits, passes) = counted.map_or((0, 0), |of| (of.hits, of.passes));
        vec![
            breakpoint.address.to_string(),
            kind_name(breakpoint.kind).to_owned(),
            breakpoint.len.to_string(),
            hits.to_string(),
            passes.to_string(),
            armed,
        ]
    };
    let is_set = |breakpoint| armed.iter().any(|status| status.breakpoint == breakpoint);
    let set = armed
        .iter()
        .map(|status| row(status.breakpoint, how_armed(&status.arming)));
    let removed = hits
        .iter()
        .filter(|of| !is_set(of.breakpoint))
        .map(|of| row(of.breakpoint, "removed".to_owned()));
    Ok(set.chain(removed).collect())
}

async fn memory(guest: &Guest) -> Result<Rows, CallError> {
    let ranges = guest.vm.call(DebugRequest::RamRanges, ()).await?;
    let row = |first: u64, len: u64| {
        let last = first.saturating_add(len.saturating_sub(1));
        vec![format!("{first:#x}"), format!("{last:#x}"), len.to_string()]
    };
    let ranges = ranges.iter();
    Ok(ranges
        .map(|range| row(range.gpa.value(), range.len))
        .collect())
}
