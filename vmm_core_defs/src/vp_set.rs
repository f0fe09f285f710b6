//! The VPs that a VM has.

use crate::addr::VpIndex;
use serde::Deserialize;
use serde::Serialize;
use std::sync::Arc;

/// The VPs that a VM has at one moment, those that the guest has not started among them. A VP that is unplugged leaves a gap. Cloning copies a pointer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<VpIndex>", into = "Vec<VpIndex>")]
pub struct VpSet(Arc<[VpIndex]>);

impl VpSet {
    /// The VPs with the indexes 0 up to `count` minus 1.
    pub fn first(count: u32) -> Self {
        (0..count).map(VpIndex::new).collect()
    }

    /// The VPs, in the order of their indexes.
    pub fn iter(&self) -> impl Iterator<Item = VpIndex> + '_ {
        self.0.iter().copied()
    }

    /// Whether the VM has this VP.
    pub fn contains(&self, vp: VpIndex) -> bool {
        self.0.binary_search(&vp).is_ok()
    }

    /// The number of VPs.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the VM has no VP.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<VpIndex> for VpSet {
    fn from_iter<I: IntoIterator<Item = VpIndex>>(vps: I) -> Self {
        vps.into_iter().collect::<Vec<_>>().into()
    }
}

impl From<Vec<VpIndex>> for VpSet {
    fn from(mut vps: Vec<VpIndex>) -> Self {
        vps.sort_unstable();
        vps.dedup();
        Self(vps.into())
    }
}

impl From<VpSet> for Vec<VpIndex> {
    fn from(vps: VpSet) -> Self {
        vps.iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_in_order_without_duplicates_and_survives_the_wire() {
        let vps: VpSet = [4, 0, 4, 2].map(VpIndex::new).into_iter().collect();
        assert_eq!(
            vps.iter().map(VpIndex::index).collect::<Vec<_>>(),
            [0, 2, 4]
        );
        assert!(vps.contains(VpIndex::new(2)) && !vps.contains(VpIndex::new(3)));
        assert_eq!((vps.len(), vps.is_empty()), (3, false));
        let text = serde_json::to_string(&vps).unwrap();
        assert_eq!(serde_json::from_str::<VpSet>(&text).unwrap(), vps);
        let two = VpSet::first(2);
        assert!(two.contains(VpIndex::BSP) && !two.contains(VpIndex::new(2)));
    }
}
