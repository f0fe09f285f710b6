//! `monitor dump`: writes the guest as a core file, in slices, so that other requests are served between two slices.

mod core_file;
mod dump_file;

use super::paging_is_off;
use crate::deadline::CallError;
use crate::operation::Guest;
use crate::registers;
use core_file::CoreFile;
use core_file::Segments;
use dump_file::DumpError;
use dump_file::DumpFile;
use std::fmt::Write as _;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::GuestAddress;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::regs::DebuggerVpState;

/// The number of bytes in one read request.
const SLICE: u64 = 1 << 20;

/// Memory that cannot be read is left out in units of this length.
const HOLE: u64 = 4096;

/// The maximum number of requests for mapped pages.
const MAX_PAGE_REQUESTS: usize = 1 << 10;

/// Writes the file, with the virtual addresses of `vp`.
pub(super) async fn dump(guest: &mut Guest, vp: VpIndex, name: &str) -> Result<String, CallError> {
    let file = match DumpFile::create(guest.dump_folder.as_deref(), name) {
        Ok(file) => file,
        Err(error) => return Ok(format!("VP {vp}: {error}\n")),
    };
    guest.progress.begin(0);
    let mut vps = Vec::new();
    for vp in guest.vps.clone().iter() {
        let state = &mut guest.vm.registers(vp).await?.state;
        let (pc, _) = registers::pc(state);
        match &**state {
            DebuggerVpState::X86_64(state) => vps.push((pc, state.clone())),
            DebuggerVpState::Aarch64(_) => {
                return Ok(format!("VP {vp}: this command dumps only x86 guests\n"));
            }
        }
    }
    let mut segments = Segments::new(guest.vm.call(DebugRequest::RamRanges, ()).await?);
    let complete = add_segments(guest, vp, &mut segments).await?;
    let core = segments.into_file(&vps);
    let path = file.path().to_owned();
    let unreadable = match write(guest, &core, file).await? {
        Ok(unreadable) => unreadable,
        Err(error) => return Ok(format!("VP {vp}: {error}\n")),
    };
    let path = path.display();
    let mut text = format!(
        "VP {vp}: {path} written, {} bytes, with {} virtual ranges of this VP and the registers of {} VPs. Open the file with: gdb PROGRAM {path}\n",
        core.len,
        core.segments,
        vps.len(),
    );
    if !complete {
        text.push_str(
            "(the file has no room for all mapped ranges: ranges of the lower half are missing)\n",
        );
    }
    if unreadable > 0 {
        let _ = writeln!(
            text,
            "({unreadable} bytes of RAM could not be read, and are zeros in the file)"
        );
    }
    Ok(text)
}

/// Adds all RAM that `vp` maps, beginning with the upper half of the address space. Returns false if not everything
/// fits.
async fn add_segments(
    guest: &mut Guest,
    vp: VpIndex,
    segments: &mut Segments,
) -> Result<bool, CallError> {
    const UPPER_HALF: u64 = 1 << 63;
    if paging_is_off(guest, vp).await? {
        segments.add_all();
        return Ok(true);
    }
    let mut requests = 0;
    for upper in [true, false] {
        // A processor without long mode has no upper half. For an address in the upper half, the VM then lists pages of
        // the lower half.
        let inside = |gva: Gva| (gva.value() >= UPPER_HALF) == upper;
        let mut next = Some(Gva::new(if upper { UPPER_HALF } else { 0 }));
        while let Some(from) = next.filter(|from| inside(*from)) {
            requests += 1;
            if requests > MAX_PAGE_REQUESTS {
                return Ok(false);
            }
            let some = guest.vm.call(DebugRequest::MappedPages, (vp, from)).await?;
            for page in some.pages.iter().filter(|page| inside(page.gva)) {
                if !segments.add(page) {
                    return Ok(false);
                }
            }
            next = some.next;
        }
    }
    Ok(true)
}

/// Writes the file. Returns the number of bytes that could not be read.
async fn write(
    guest: &Guest,
    core: &CoreFile,
    file: DumpFile,
) -> Result<Result<u64, DumpError>, CallError> {
    if let Err(error) = file.write(0, core.head.clone()).await {
        return Ok(Err(error));
    }
    let all = core.memory.iter().map(|(_, range)| range.len).sum();
    guest.progress.begin(all);
    let mut unreadable = 0;
    for (at, range) in &core.memory {
        let mut done = 0;
        while done < range.len {
            let len = SLICE.min(range.len - done);
            let gpa = GuestAddress::Gpa(Gpa::new(range.gpa.value() + done));
            let wanted = usize::try_from(len).unwrap_or(usize::MAX);
            let data = match guest.vm.call(DebugRequest::ReadMemory, (gpa, wanted)).await {
                Ok(data) => data,
                Err(CallError::Refused(_)) => Vec::new(),
                Err(error) => return Err(error),
            };
            let read = data.len() as u64;
            if let Err(error) = file.write(at + done, data).await {
                return Ok(Err(error));
            }
            done += read;
            guest.progress.add(read);
            if read < len {
                let hole = (HOLE - done % HOLE).min(range.len - done);
                unreadable += hole;
                done += hole;
                guest.progress.add(hole);
            }
        }
    }
    let finished = file.finish(core.len).await;
    Ok(finished.map(|()| unreadable))
}
