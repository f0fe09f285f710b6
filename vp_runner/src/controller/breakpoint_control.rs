//! Breakpoints as the controller keeps them: the table, the bytes in guest memory, and where each parked VP stands.

use super::ticker;
use crate::arch::CodeLocation;
use crate::arch::can_carry_out;
use crate::breakpoints::BreakpointTable;
use crate::breakpoints::Breakpoints;
use crate::breakpoints::Changes;
use crate::breakpoints::GuestCode;
use crate::breakpoints::Int3Traps;
use crate::breakpoints::Walks;
use crate::control::at_breakpoint::ByteAtRip;
use crate::control::at_breakpoint::ByteOf;
use crate::control::at_breakpoint::Emulation;
use crate::control::enter::Int3Exits;
use crate::control::enter::StopSet;
use crate::control::run_state::VpAtByte;
use crate::memory::GuestRam as _;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::RwLockReadGuard;
use std::sync::RwLockWriteGuard;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;
use vm_memory::GuestMemoryMmap;
use vmm_core_defs::addr::VpIndex;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointChange;
use vmm_core_defs::breakpoint::BreakpointKind;
use vmm_core_defs::debug_rpc::DebugError;
use vmm_core_defs::debug_rpc::StepInterrupts;

/// So many breakpoints are looked at before every entry; more of them at most once in a tick's time, or in as many times the time it takes.
const FEW: usize = 64;
const SELDOM: u32 = 4;

/// So many breakpoints are looked at or changed before the other tasks of the executor get their turn.
const SLICE: usize = 1024;

/// Lets the other tasks of this executor go on after a full slice of work. Debug servers may run on the same thread as the controller.
async fn give_way(done: usize) {
    let mut wait = done >= SLICE;
    poll_fn(|context| match std::mem::take(&mut wait) {
        true => {
            context.waker().wake_by_ref();
            Poll::Pending
        }
        false => Poll::Ready(()),
    })
    .await;
}

/// See the module. Dropping it takes every byte out of memory (I6); it lives longer than the VP threads.
pub(super) struct BreakpointControl {
    breakpoints: Arc<RwLock<Breakpoints>>,
    ram: Arc<GuestMemoryMmap>,
    int3: Int3Traps,
    vps: Vec<ParkedAt>,
    /// The VP that stopped last.
    selected: VpIndex,
    /// Once there was a byte, VPs go on looking at INT3s for the session: clients take their breakpoints out at each stop, and telling KVM costs more.
    int3_exits: Int3Exits,
    reconciled: Option<Reconciled>,
}

/// When all breakpoints were looked at.
#[derive(Debug, Clone, Copy)]
struct Reconciled {
    at: Instant,
    took: Duration,
}

/// What is known of a parked VP.
#[derive(Debug, Clone, Copy, Default)]
struct ParkedAt {
    place: Option<CodeLocation>,
    /// How many debug registers its guest uses.
    guest_registers: Option<usize>,
}

impl BreakpointControl {
    pub(super) fn new(
        ram: Arc<GuestMemoryMmap>,
        breakpoints: Arc<RwLock<Breakpoints>>,
        int3: Int3Traps,
        vps: u32,
    ) -> Self {
        Self {
            breakpoints,
            ram,
            int3,
            vps: vec![ParkedAt::default(); vps as usize],
            selected: VpIndex::BSP,
            int3_exits: Int3Exits::Off,
            reconciled: None,
        }
    }

    /// For looking. VP threads look too, so this is not to be kept.
    pub(super) fn breakpoints(&self) -> RwLockReadGuard<'_, Breakpoints> {
        let breakpoints = self.breakpoints.read();
        breakpoints.unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Breakpoints> {
        let breakpoints = self.breakpoints.write();
        breakpoints.unwrap_or_else(PoisonError::into_inner)
    }

    fn with_guest<R>(&self, act: impl FnOnce(&mut BreakpointTable, &mut GuestCode<'_>) -> R) -> R {
        self.ram.guard_accesses();
        let selected = self.vps.get(self.selected.index() as usize);
        let locations: Vec<CodeLocation> = selected
            .into_iter()
            .chain(&self.vps)
            .filter_map(|vp| vp.place)
            .collect();
        let mut breakpoints = self.change();
        let Breakpoints { table, bytes } = &mut *breakpoints;
        let mut guest = GuestCode {
            ram: &self.ram,
            bytes,
            locations: &locations,
            int3: self.int3,
            walks: Walks::default(),
        };
        act(table, &mut guest)
    }

    /// The VPs whose place has to be asked for before software breakpoints can be armed or stepped over.
    pub(super) fn unplaced(&self) -> Vec<VpIndex> {
        if !self.int3.anywhere() {
            return Vec::new();
        }
        let vps = (0..).map(VpIndex::new).zip(&self.vps);
        vps.filter(|(_, vp)| vp.place.is_none())
            .map(|(index, _)| index)
            .collect()
    }

    pub(super) fn set_place(&mut self, vp: VpIndex, place: CodeLocation) {
        if let Some(vp) = self.vps.get_mut(vp.index() as usize) {
            vp.place = Some(place);
        }
    }

    /// The VP's registers were written.
    pub(super) fn forget(&mut self, vp: VpIndex) {
        if let Some(vp) = self.vps.get_mut(vp.index() as usize) {
            *vp = ParkedAt::default();
        }
    }

    fn forget_all(&mut self) {
        self.vps.fill(ParkedAt::default());
    }

    /// The VP was let go.
    pub(super) fn entered(&mut self, vp: VpIndex) {
        if let Some(vp) = self.vps.get_mut(vp.index() as usize) {
            vp.place = None;
            vp.guest_registers = None;
        }
    }

    /// The VP has parked.
    pub(super) fn parked(
        &mut self,
        vp: VpIndex,
        place: Option<CodeLocation>,
        guest_registers: Option<usize>,
    ) {
        if let Some(vp) = self.vps.get_mut(vp.index() as usize) {
            vp.place = place;
            vp.guest_registers = guest_registers;
        }
    }

    /// The VPs that have to be asked how many debug registers the guest uses there.
    pub(super) fn uncounted(&self) -> Vec<VpIndex> {
        let vps = (0..).map(VpIndex::new).zip(&self.vps);
        vps.filter(|(_, vp)| vp.guest_registers.is_none())
            .map(|(index, _)| index)
            .collect()
    }

    pub(super) fn set_guest_registers(&mut self, vp: VpIndex, count: usize) {
        if let Some(vp) = self.vps.get_mut(vp.index() as usize) {
            vp.guest_registers = Some(count);
        }
    }

    /// Leaves the guest the debug registers it uses, on every VP as many as on the one where it uses most.
    pub(super) fn leave_to_guest(&mut self) {
        let counts = self.vps.iter().filter_map(|vp| vp.guest_registers);
        let most = counts.max().unwrap_or(0);
        self.with_guest(|table, guest| table.leave_to_guest(guest, most));
    }

    /// Whether a change is refused if there is no debug register for it.
    pub(super) fn needs_register(&self, changes: &[BreakpointChange]) -> bool {
        changes.iter().any(|change| match change {
            BreakpointChange::Insert(breakpoint) => {
                breakpoint.kind != BreakpointKind::Software || !self.int3.anywhere()
            }
            BreakpointChange::Remove(_) => false,
        })
    }

    /// Whether the guest's writes to its debug registers matter.
    pub(super) fn uses_registers(&self) -> bool {
        self.breakpoints().table.wants_registers()
    }

    /// A stop was reported that names this VP.
    pub(super) fn select(&mut self, vp: VpIndex) {
        self.selected = vp;
    }

    /// Makes all changes in order, or none.
    pub(super) async fn apply(&mut self, changes: &[BreakpointChange]) -> Result<(), DebugError> {
        let mut made = Changes::default();
        let mut applied = Ok(());
        for slice in changes.chunks(SLICE) {
            applied = self.with_guest(|table, guest| table.apply(guest, slice, &mut made));
            if applied.is_err() {
                break;
            }
            give_way(slice.len()).await;
        }
        while applied.is_err() && !made.is_empty() {
            self.with_guest(|table, guest| table.undo(guest, &mut made, SLICE));
            give_way(SLICE).await;
        }
        applied
    }

    /// Looks at every software breakpoint again, unless that was just done and there are many.
    pub(super) async fn reconcile(&mut self) {
        if !self.is_due() {
            return;
        }
        let started = Instant::now();
        let software = self.breakpoints().table.software();
        for slice in software.chunks(SLICE) {
            self.with_guest(|table, guest| table.reconcile(guest, slice));
            give_way(slice.len()).await;
        }
        let at = Instant::now();
        self.reconciled = Some(Reconciled {
            at,
            took: at - started,
        });
    }

    /// Whether [`reconcile`](Self::reconcile) would look.
    fn is_due(&self) -> bool {
        let recent = |last: Reconciled| last.at.elapsed() < ticker::PERIOD.max(last.took * SELDOM);
        self.breakpoints().table.len() <= FEW || !self.reconciled.is_some_and(recent)
    }

    /// Whether the guest needs to be paused for [`reconcile`](Self::reconcile) to do something. VPs may run.
    pub(super) fn needs_pause(&self) -> bool {
        if !self.is_due() {
            return false;
        }
        let Breakpoints { table, bytes } = &*self.breakpoints();
        table.has_unarmed() || bytes.is_any_overwritten(&*self.ram)
    }

    /// Whether there is anything to look after while the guest runs.
    pub(super) fn needs_ticks(&self) -> bool {
        let Breakpoints { table, bytes } = &*self.breakpoints();
        self.int3_exits == Int3Exits::On || !bytes.is_empty() || table.wants_registers()
    }

    /// Whether VPs need to come out of the guest from time to time: to look at what it did to its debug registers, and to let interrupts go that were held
    /// for an exception of its own which led elsewhere than to its handler.
    pub(super) fn needs_glances(&self) -> bool {
        self.int3_exits == Int3Exits::On || self.uses_registers()
    }

    pub(super) fn stop_set(&mut self, step_interrupts: StepInterrupts) -> StopSet {
        if !self.breakpoints().bytes.is_empty() {
            self.int3_exits = Int3Exits::On;
        }
        StopSet {
            slots: self.breakpoints().table.slots(),
            int3_exits: self.int3_exits,
            step_interrupts,
        }
    }

    /// Whose breakpoint byte is at this place, if one is.
    fn byte_at(&self, place: &CodeLocation) -> Option<ByteOf> {
        let Breakpoints { table, bytes } = &*self.breakpoints();
        if bytes.is_empty() {
            return None;
        }
        let gpa = place.rip_gpa(&self.ram)?;
        match (bytes.is_armed(gpa), table.at_byte(place.rip, gpa)) {
            (false, _) => None,
            (true, Some(_)) => Some(ByteOf::ThisAddress),
            // The debug register of this address comes first.
            (true, None) if table.has_register_at(place.rip) => Some(ByteOf::ThisAddress),
            (true, None) => Some(ByteOf::OtherAddress),
        }
    }

    /// The breakpoint that a VP at this place meets.
    pub(super) fn met_at(&self, place: &CodeLocation) -> Option<Breakpoint> {
        let Breakpoints { table, bytes } = &*self.breakpoints();
        let gpa = place.rip_gpa(&self.ram);
        let armed = gpa.filter(|gpa| bytes.is_armed(*gpa));
        let byte = armed.and_then(|gpa| table.at_byte(place.rip, gpa));
        // As in the guest, a debug register comes first.
        table.on_register_at(&self.ram, place).or(byte)
    }

    /// The VPs that stand on a byte.
    pub(super) fn vps_at_bytes(&self) -> Vec<VpAtByte> {
        let vps = (0..).map(VpIndex::new).zip(&self.vps);
        let on_byte = |(vp, known): (VpIndex, &ParkedAt)| {
            let place = known.place?;
            let of = self.byte_at(&place)?;
            let code = self.breakpoints().code_at(&self.ram, &place);
            let emulation = match can_carry_out(place.mode(), &code) {
                true => Emulation::Possible,
                false => Emulation::Impossible,
            };
            let byte = ByteAtRip { of, emulation };
            Some(VpAtByte { vp, byte })
        };
        vps.filter_map(on_byte).collect()
    }

    /// Takes everything off the guest (I6).
    pub(super) fn release(&mut self) {
        self.int3_exits = Int3Exits::Off;
        let mut breakpoints = self.change();
        breakpoints.table.clear();
        breakpoints.bytes.clear(&*self.ram);
    }

    /// The machine's reset is to find memory without a byte of ours, and no VP where it was.
    pub(super) fn before_reset(&mut self) {
        self.with_guest(BreakpointTable::before_reset);
        self.forget_all();
        self.reconciled = None;
    }
}

impl Drop for BreakpointControl {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::PagingLimits;
    use crate::arch::PagingState;
    use std::pin::pin;
    use std::task::Context;
    use std::task::Waker;
    use vm_memory::GuestAddress;
    use vmm_core_defs::addr::Gva;

    const SLICES: usize = 3;

    /// A future's value, and how often others had their turn before it.
    fn turns<R>(future: impl Future<Output = R>) -> (R, usize) {
        let mut future = pin!(future);
        let mut context = Context::from_waker(Waker::noop());
        let mut turns = 0;
        loop {
            match future.as_mut().poll(&mut context) {
                Poll::Ready(value) => return (value, turns),
                Poll::Pending => turns += 1,
            }
        }
    }

    fn code(limit: usize) -> BreakpointControl {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]);
        let limit = u32::try_from(limit).expect("a small limit");
        let breakpoints = Breakpoints {
            table: BreakpointTable::new(limit),
            ..Breakpoints::default()
        };
        let (ram, breakpoints) = (ram.expect("a little RAM"), RwLock::new(breakpoints));
        let int3 = Int3Traps::EVERYWHERE;
        let mut code = BreakpointControl::new(Arc::new(ram), Arc::new(breakpoints), int3, 1);
        let real_mode = CodeLocation {
            rip: Gva::new(0),
            paging: PagingState {
                cr0: 0x10,
                cr3: 0,
                cr4: 0,
                efer: 0,
                limits: PagingLimits::new(40, true),
            },
            user: false,
        };
        code.set_place(VpIndex::BSP, real_mode);
        code
    }

    fn inserts(count: usize) -> Vec<BreakpointChange> {
        let addresses = (0x1000..).map(Gva::new).take(count);
        let breakpoint = |address| Breakpoint {
            kind: BreakpointKind::Software,
            address,
            len: 1,
        };
        addresses
            .map(|address| BreakpointChange::Insert(breakpoint(address)))
            .collect()
    }

    #[test]
    fn others_have_their_turn_between_the_slices_of_a_long_change_and_of_a_long_look() {
        let mut code = code(SLICES * SLICE);
        let (applied, others) = turns(code.apply(&inserts(SLICES * SLICE)));
        assert_eq!((applied, others), (Ok(()), SLICES));
        let ((), others) = turns(code.reconcile());
        assert_eq!(others, SLICES);
        assert_eq!(code.breakpoints().table.len(), SLICES * SLICE);
    }

    #[test]
    fn a_long_change_that_fails_at_its_end_leaves_nothing_and_is_taken_back_in_slices() {
        let mut code = code(SLICES * SLICE);
        let (applied, others) = turns(code.apply(&inserts(SLICES * SLICE + 1)));
        let limit = 3072;
        assert_eq!(applied, Err(DebugError::TooManyBreakpoints { limit }));
        assert_eq!(others, 2 * SLICES);
        let Breakpoints { table, bytes } = &*code.breakpoints();
        assert!(table.len() == 0 && bytes.is_empty());
    }

    #[test]
    fn a_short_change_is_made_at_once() {
        let mut code = code(SLICE);
        assert_eq!(turns(code.apply(&inserts(4))), (Ok(()), 0));
    }
}
