//! Where a software breakpoint belongs: what the tables loaded on the VPs and the host's KVM say.

use crate::arch::x86_64::page_walk::PagingState;
use crate::arch::x86_64::page_walk::Walk;
use crate::arch::x86_64::page_walk::walk;
use crate::arch::x86_64::place::Fetch;
use crate::arch::x86_64::place::ModeClass;
use crate::arch::x86_64::place::Place;
use crate::breakpoints::breakpoint_bytes::BreakpointBytes;
use crate::probe::Report;
use std::collections::BTreeMap;
use vm_memory::GuestMemoryMmap;
use vmm_core_defs::addr::Gpa;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::breakpoint::Pending;
use vmm_core_defs::memory::WalkFaultReason;

/// In which modes this host's KVM lets an `INT3` of ours be noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Int3Traps {
    real: bool,
    protected: bool,
    long: bool,
}

impl Int3Traps {
    /// As the probe found.
    pub(crate) fn new(report: &Report) -> Self {
        Self {
            real: report.int3_real.traps(),
            protected: report.int3_protected.traps(),
            long: report.int3_long.traps(),
        }
    }

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
    pub places: &'a [Place],
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
        place: &Place,
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
pub(super) enum Target {
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
pub(super) enum Home {
    Anywhere,
    Root(u64),
}

impl Home {
    /// Whether a VP at `place`, which is the breakpoint's address, runs another process than the breakpoint's, where that one has another byte.
    ///
    /// While it has none there, the breakpoint is of no byte yet, and who gets there first is told of. Its tables may be of a process that has ended, and
    /// then lead anywhere or, as here, nowhere: they are only read.
    pub(super) fn has_another_byte(self, ram: &GuestMemoryMmap, place: &Place) -> bool {
        let (Self::Root(root), Some(loaded)) = (self, place.root()) else {
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
    pub(super) fn home(&self, address: Gva) -> Home {
        let upper_half = address.value() >> 63 != 0;
        match self.places.first().and_then(Place::root) {
            Some(root) if !upper_half => Home::Root(root),
            _ => Home::Anywhere,
        }
    }

    /// Whether some VP translates by these tables now.
    pub(super) fn is_loaded(&self, root: u64) -> bool {
        let mut places = self.places.iter();
        places.any(|place| place.root() == Some(root))
    }

    pub(super) fn target(&mut self, address: Gva, home: Home) -> Target {
        let paged = self.places.iter().any(|place| place.root().is_some());
        let mut why = None;
        for (vp, place) in self.places.iter().enumerate() {
            match (place.root(), home) {
                // A VP that was never started says nothing of a guest that has paging on.
                (None, Home::Anywhere) if paged => continue,
                (None, Home::Root(_)) => continue,
                (Some(root), Home::Root(wanted)) if root != wanted => continue,
                _ => {}
            }
            if place.mode() != ModeClass::Long && address.value() >> 32 != 0 {
                why = why.or(Some(Pending::TooHigh));
                continue;
            }
            match self.walks.walk(self.ram, vp, place, address) {
                Ok(page) if place.fetch(&page) == Fetch::Forbidden => {
                    return Target::Pending(Pending::NotExecutable);
                }
                Ok(_) if !self.int3.in_mode(place.mode()) => {
                    return Target::Pending(Pending::NotTrapped);
                }
                Ok(page) if place.fetch(&page) == Fetch::UserOnly => {
                    return Target::UserByte(page.gpa, place.root());
                }
                Ok(page) => return Target::Byte(page.gpa, place.root()),
                Err(reason) => why = why.or(Some(Pending::Unmapped(reason))),
            }
        }
        why.map_or(Target::Unknown, Target::Pending)
    }
}
