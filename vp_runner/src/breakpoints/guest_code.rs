//! Whether a software breakpoint can be a byte, and where: by the page tables that are loaded on the VPs, and by the abilities of the host's KVM.

use crate::arch::CodeLocation;
use crate::arch::Fetch;
use crate::arch::ModeClass;
use crate::arch::PagingState;
use crate::arch::Walk;
use crate::arch::walk;
use crate::breakpoints::breakpoint_bytes::BreakpointBytes;
use crate::memory::slots::MemorySlots;
use std::collections::BTreeMap;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::breakpoint::Pending;
use vmm_core_defs::memory::WalkFaultReason;

/// The processor modes in which this host's KVM exits for a breakpoint byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Int3Traps {
    pub(crate) real: bool,
    pub(crate) protected: bool,
    pub(crate) long: bool,
}

impl Int3Traps {
    /// A host on which KVM exits in every mode.
    #[cfg(test)]
    pub(crate) const EVERYWHERE: Self = Self {
        real: true,
        protected: true,
        long: true,
    };

    /// Whether KVM exits in any mode.
    pub(crate) fn anywhere(self) -> bool {
        self.real || self.protected || self.long
    }

    fn in_mode(self, mode: ModeClass) -> bool {
        match mode {
            ModeClass::Real => self.real,
            ModeClass::Protected => self.protected,
            ModeClass::Long => self.long,
        }
    }
}

/// The guest, as arming a breakpoint needs it. Every VP is parked (I3).
pub(crate) struct GuestCode<'a> {
    /// RAM.
    pub ram: &'a MemorySlots,
    /// The breakpoint bytes in RAM.
    pub bytes: &'a mut BreakpointBytes,
    /// The location of every VP, first that of the VP that stopped last. May be empty for changes that insert no software breakpoint.
    pub locations: &'a [CodeLocation],
    /// The modes in which the host's KVM exits for `INT3`.
    pub int3: Int3Traps,
    /// The cache of translations, empty at first.
    pub walks: Walks,
}

/// A cache of translations, because many breakpoints of a kernel are in the same page. Valid while no VP runs and nobody writes the page tables.
#[derive(Debug, Default)]
pub(crate) struct Walks {
    /// By VP and page.
    found: BTreeMap<(usize, Gva), Walk>,
}

impl Walks {
    fn walk(
        &mut self,
        ram: &MemorySlots,
        vp: usize,
        location: &CodeLocation,
        address: Gva,
    ) -> Result<Walk, WalkFaultReason> {
        let before = (vp, Gva::new(0))..=(vp, address);
        if let Some(((_, start), walk)) = self.found.range(before).next_back() {
            let distance = address.value() - start.value();
            if distance < walk.bytes_left() {
                let gpa = Gpa::new(walk.gpa.value() + distance);
                return Ok(Walk { gpa, ..*walk });
            }
        }
        let walk = walk(ram, &location.paging, address).map_err(|fault| fault.reason)?;
        // The entry begins at the start of the page, so that it serves the whole page.
        let inside = walk
            .page_size
            .map_or(0, |size| address.value() & (size - 1));
        let start = Gva::new(address.value() - inside);
        let page = Walk {
            gpa: Gpa::new(walk.gpa.value() - inside),
            ..walk
        };
        self.found.insert((vp, start), page);
        Ok(walk)
    }
}

/// How a software breakpoint can be armed.
pub(super) enum Placement {
    /// By this byte, which the page tables of this root map.
    Byte(Gpa, Option<u64>),
    /// As [`Byte`](Self::Byte), but the VP, in its present mode, may not execute the page.
    UserByte(Gpa, Option<u64>),
    /// Not by a byte, for this reason.
    Pending(Pending),
    /// Unknown, because no VP runs the process of the breakpoint.
    Unknown,
}

/// Whose page tables translate a breakpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// No process in particular. The tables of any VP decide, first those of the VP that was last reported.
    Any,
    /// The process whose page tables have this root.
    Process(u64),
}

impl Owner {
    /// Whether a VP at `location`, the breakpoint's address, runs another process than the breakpoint's, and the two processes have different bytes there.
    ///
    /// Until the owning process maps the page, the breakpoint has no byte, and any process that reaches the address is reported. The root may belong to a
    /// process that has ended. Its tables may then lead anywhere, so they are only read.
    pub(super) fn has_another_byte(self, ram: &MemorySlots, location: &CodeLocation) -> bool {
        let (Self::Process(root), Some(loaded)) = (self, location.root()) else {
            return false;
        };
        let tables = PagingState {
            cr3: root,
            ..location.paging
        };
        root != loaded
            && match (walk(ram, &tables, location.rip), location.rip_gpa(ram)) {
                (Ok(own), Some(here)) => own.gpa != here,
                _ => false,
            }
    }
}

impl GuestCode<'_> {
    /// Whose page tables translate a breakpoint that is set now at this address.
    pub(super) fn owner(&self, address: Gva) -> Owner {
        let upper_half = address.value() >> 63 != 0;
        match self.locations.first().and_then(CodeLocation::root) {
            Some(root) if !upper_half => Owner::Process(root),
            _ => Owner::Any,
        }
    }

    /// Whether the page tables of this root are loaded on any VP.
    pub(super) fn is_loaded(&self, root: u64) -> bool {
        let mut locations = self.locations.iter();
        locations.any(|location| location.root() == Some(root))
    }

    /// How a software breakpoint at this address can be armed.
    pub(super) fn placement(&mut self, address: Gva, owner: Owner) -> Placement {
        let paged = self
            .locations
            .iter()
            .any(|location| location.root().is_some());
        let mut why = None;
        for (vp, location) in self.locations.iter().enumerate() {
            match (location.root(), owner) {
                // A VP that was never started does not count if the guest has paging on.
                (None, Owner::Any) if paged => continue,
                (None, Owner::Process(_)) => continue,
                (Some(root), Owner::Process(wanted)) if root != wanted => continue,
                _ => {}
            }
            if location.mode() != ModeClass::Long && address.value() >> 32 != 0 {
                why = why.or(Some(Pending::TooHigh));
                continue;
            }
            match self.walks.walk(self.ram, vp, location, address) {
                Ok(page) if location.fetch(&page) == Fetch::Forbidden => {
                    return Placement::Pending(Pending::NotExecutable);
                }
                Ok(_) if !self.int3.in_mode(location.mode()) => {
                    return Placement::Pending(Pending::NotTrapped);
                }
                Ok(page) if location.fetch(&page) == Fetch::UserOnly => {
                    return Placement::UserByte(page.gpa, location.root());
                }
                Ok(page) => return Placement::Byte(page.gpa, location.root()),
                Err(reason) => why = why.or(Some(Pending::Unmapped(reason))),
            }
        }
        why.map_or(Placement::Unknown, Placement::Pending)
    }
}
