//! Where a software breakpoint belongs: what the tables loaded on the VPs and the host's KVM say.

use crate::arch::CodeLocation;
use crate::arch::Fetch;
use crate::arch::ModeClass;
use crate::arch::PagingState;
use crate::arch::Walk;
use crate::arch::walk;
use crate::breakpoints::breakpoint_bytes::BreakpointBytes;
use std::collections::BTreeMap;
use vm_memory::GuestMemoryMmap;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::breakpoint::Pending;
use vmm_core_defs::memory::WalkFaultReason;

/// The processor modes in which this host's KVM exits for an `INT3` of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Int3Traps {
    pub(crate) real: bool,
    pub(crate) protected: bool,
    pub(crate) long: bool,
}

impl Int3Traps {
    /// As on a host where nothing is amiss.
    #[cfg(test)]
    pub(crate) const EVERYWHERE: Self = Self {
        real: true,
        protected: true,
        long: true,
    };

    /// Whether it can be made use of at all.
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

/// The guest as breakpoints are armed in it, every VP being parked (I3).
pub(crate) struct GuestCode<'a> {
    /// RAM.
    pub ram: &'a GuestMemoryMmap,
    /// The bytes in it.
    pub patches: &'a mut BreakpointBytes,
    /// Every VP's, the one that stopped last first. May be empty for changes that insert no software breakpoint.
    pub places: &'a [CodeLocation],
    /// What the host can do.
    pub int3: Int3Traps,
    /// Empty at first.
    pub walks: Walks,
}

/// Translations found so far: many breakpoints are in one page of a kernel. Good while no VP runs and the tables are as they were.
#[derive(Debug, Default)]
pub(crate) struct Walks {
    /// By VP and page.
    found: BTreeMap<(usize, Gva), Walk>,
}

impl Walks {
    fn walk(
        &mut self,
        ram: &GuestMemoryMmap,
        vp: usize,
        place: &CodeLocation,
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
        let walk = walk(ram, &place.paging, address).map_err(|fault| fault.reason)?;
        // From the page's start on, so that one entry serves all of it.
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

/// What a software breakpoint can be.
pub(super) enum Placement {
    /// This byte, by the tables of this root.
    Byte(Gpa, Option<u64>),
    /// As [`Byte`](Self::Byte), and the VP itself would fault there.
    UserByte(Gpa, Option<u64>),
    Pending(Pending),
    /// Its process is not loaded on any VP.
    Unknown,
}

/// Whose tables decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// No process in particular. The tables of any VP decide, first those of the VP that was last reported.
    Any,
    /// The process whose page tables have this root.
    Process(u64),
}

impl Owner {
    /// Whether a VP at `place`, which is the breakpoint's address, runs another process than the breakpoint's, where that one has another byte.
    ///
    /// Until the owning process maps the page, the breakpoint has no byte, and any process that reaches the address is reported. The root may belong to a
    /// process that has ended. Its tables may then lead anywhere, so they are only read.
    pub(super) fn has_another_byte(self, ram: &GuestMemoryMmap, place: &CodeLocation) -> bool {
        let (Self::Process(root), Some(loaded)) = (self, place.root()) else {
            return false;
        };
        let tables = PagingState {
            cr3: root,
            ..place.paging
        };
        root != loaded
            && match (walk(ram, &tables, place.rip), place.rip_gpa(ram)) {
                (Ok(own), Some(here)) => own.gpa != here,
                _ => false,
            }
    }
}

impl GuestCode<'_> {
    /// Whose tables decide on an address that is set now.
    pub(super) fn owner(&self, address: Gva) -> Owner {
        let upper_half = address.value() >> 63 != 0;
        match self.places.first().and_then(CodeLocation::root) {
            Some(root) if !upper_half => Owner::Process(root),
            _ => Owner::Any,
        }
    }

    /// Whether some VP translates by these tables now.
    pub(super) fn is_loaded(&self, root: u64) -> bool {
        let mut places = self.places.iter();
        places.any(|place| place.root() == Some(root))
    }

    pub(super) fn placement(&mut self, address: Gva, owner: Owner) -> Placement {
        let paged = self.places.iter().any(|place| place.root().is_some());
        let mut why = None;
        for (vp, place) in self.places.iter().enumerate() {
            match (place.root(), owner) {
                // A VP that was never started says nothing of a guest that has paging on.
                (None, Owner::Any) if paged => continue,
                (None, Owner::Process(_)) => continue,
                (Some(root), Owner::Process(wanted)) if root != wanted => continue,
                _ => {}
            }
            if place.mode() != ModeClass::Long && address.value() >> 32 != 0 {
                why = why.or(Some(Pending::TooHigh));
                continue;
            }
            match self.walks.walk(self.ram, vp, place, address) {
                Ok(page) if place.fetch(&page) == Fetch::Forbidden => {
                    return Placement::Pending(Pending::NotExecutable);
                }
                Ok(_) if !self.int3.in_mode(place.mode()) => {
                    return Placement::Pending(Pending::NotTrapped);
                }
                Ok(page) if place.fetch(&page) == Fetch::UserOnly => {
                    return Placement::UserByte(page.gpa, place.root());
                }
                Ok(page) => return Placement::Byte(page.gpa, place.root()),
                Err(reason) => why = why.or(Some(Pending::Unmapped(reason))),
            }
        }
        why.map_or(Placement::Unknown, Placement::Pending)
    }
}
