//! Memory and page tables.

use super::Field;
use super::Value;
use super::message;
use super::missing;
use super::proto;
use super::required;
use super::tuple;
use super::union;
use crate::addr::GuestAddress;
use crate::addr::Gva;
use crate::addr::VpIndex;
use crate::debug_rpc::BadMessage;
use crate::memory::MappedPage;
use crate::memory::MappedPages;
use crate::memory::MemoryRegion;
use crate::memory::RamRange;
use crate::memory::RegionRights;
use crate::memory::TableEntry;
use crate::memory::Translation;
use crate::memory::WalkFaultReason;

message! {
    Translation { gpa, page_size, writable, user, executable, entries }
    TableEntry { level, gpa, value }
    MappedPages { pages, next }
    MappedPage { gva, gpa, size, writable, user, executable, entry }
    MemoryRegion { first, last, rights }
    RegionRights { ram, writable, executable }
    RamRange { gpa, len }
}

tuple! {
    (VpIndex, Gva) => VpAddress (vp, gva);
    (GuestAddress, usize) => ReadMemory (address, len);
}

union!(WalkFaultReason, walk_fault_reason {
    NonCanonical,
    NotPresent(entry),
    Reserved { entry, bits },
    NoTable { level, gpa },
});

required!(GuestAddress);

impl Value for GuestAddress {
    type Wire = proto::GuestAddress;

    fn into_wire(self) -> proto::GuestAddress {
        use proto::guest_address::Kind;
        let kind = match self {
            Self::Gva { vp, gva } => Kind::Gva((vp, gva).into_wire()),
            Self::Gpa(gpa) => Kind::Gpa(gpa.into_wire()),
        };
        proto::GuestAddress { kind: Some(kind) }
    }

    fn from_wire(wire: proto::GuestAddress) -> Result<Self, BadMessage> {
        use proto::guest_address::Kind;
        match wire.kind.ok_or_else(|| missing("GuestAddress"))? {
            Kind::Gva(address) => {
                let (vp, gva) = Value::from_wire(address)?;
                Ok(Self::Gva { vp, gva })
            }
            Kind::Gpa(gpa) => Value::from_wire(gpa).map(Self::Gpa),
        }
    }
}

impl Value for (GuestAddress, Vec<u8>) {
    type Wire = proto::WriteMemory;

    fn into_wire(self) -> proto::WriteMemory {
        let (address, data) = self;
        proto::WriteMemory {
            address: address.into_field(),
            data: data.into_wire(),
        }
    }

    fn from_wire(wire: proto::WriteMemory) -> Result<Self, BadMessage> {
        let address = Field::from_field(wire.address, "address")?;
        Ok((address, Value::from_wire(wire.data)?))
    }
}

impl Value for Vec<RamRange> {
    type Wire = proto::RamRanges;

    fn into_wire(self) -> proto::RamRanges {
        let ranges = self.into_field();
        proto::RamRanges { ranges }
    }

    fn from_wire(wire: proto::RamRanges) -> Result<Self, BadMessage> {
        Field::from_field(wire.ranges, "ranges")
    }
}
