//! GDB's `find`, carried out beside the guest.
//!
//! Parts of the range that are no RAM are left out, and the search goes on behind them. gdbserver ends the search there with an error, and GDB's own search
//! with a warning. GDB does not show an error of the server: `find` prints "Pattern not found.", and `Inferior.search_memory` returns an address that means
//! nothing. So a hole is no error here: "Pattern not found." means that no RAM in the range contains the pattern, and the user need not know where a sparse
//! address space has holes. The protocol has no place for a text about holes.

use crate::error_table::target_error;
use crate::ram_pieces::Piece;
use crate::ram_pieces::RamPieces;
use crate::vm::AttachedVm;
use gdb_frontend::target::MemoryRange;
use gdb_frontend::target::TargetError;
use gdb_frontend::target::TargetReply;
use memchr::memmem::Finder;

/// Searches RAM for the first match.
pub(crate) async fn search_memory(
    vm: &AttachedVm,
    range: MemoryRange,
    pattern: &[u8],
) -> Result<TargetReply, TargetError> {
    let mut pieces = RamPieces::new(range);
    let mut search = Search::new(pattern);
    loop {
        let piece = pieces.next(vm).await;
        let Some(piece) = piece.map_err(|error| target_error(&error))? else {
            return Ok(TargetReply::Found(None));
        };
        if let found @ Some(_) = search.add(&piece) {
            return Ok(TargetReply::Found(found));
        }
    }
}

/// A search in pieces of memory. It keeps the bytes with which a match may begin, so a match may lie in several pieces.
#[derive(Debug)]
struct Search<'a> {
    finder: Finder<'a>,
    /// The bytes that were searched and may be the beginning of a match: fewer than the pattern has.
    kept: Vec<u8>,
    /// The address of the first byte in `kept`.
    address: u64,
}

impl<'a> Search<'a> {
    fn new(pattern: &'a [u8]) -> Self {
        Self {
            finder: Finder::new(pattern),
            kept: Vec::new(),
            address: 0,
        }
    }

    /// The address of the first match that ends in this piece. Pieces come in the order of their addresses.
    fn add(&mut self, piece: &Piece) -> Option<u64> {
        let behind = self.address.wrapping_add(self.kept.len() as u64);
        if self.kept.is_empty() || piece.address != behind {
            self.kept.clear();
            self.address = piece.address;
        }
        self.kept.extend_from_slice(&piece.bytes);
        if let Some(at) = self.finder.find(&self.kept) {
            return Some(self.address + at as u64);
        }
        let keep = self.finder.needle().len().saturating_sub(1);
        let done = self.kept.len().saturating_sub(keep);
        self.kept.drain(..done);
        // The address behind the last byte of the address space is not used: nothing comes behind it.
        self.address = self.address.wrapping_add(done as u64);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pieces, each with whether a hole is before it.
    fn pieces() -> impl Strategy<Value = Vec<(bool, Vec<u8>)>> {
        let bytes = proptest::collection::vec(0..2_u8, 1..12);
        proptest::collection::vec((proptest::bool::weighted(0.2), bytes), 0..12)
    }

    proptest! {
        #[test]
        fn a_search_in_pieces_finds_what_a_naive_search_finds(
            pieces in pieces(),
            pattern in proptest::collection::vec(0..2_u8, 1..8),
            end in prop_oneof![Just(0_u64), Just(0x1_0000)],
        ) {
            // The bytes of each range without holes, and pieces whose last byte is before `end`.
            let holes = pieces.iter().filter(|(hole, _)| *hole).count() as u64;
            let len: usize = pieces.iter().map(|(_, bytes)| bytes.len()).sum();
            let mut address = end.wrapping_sub(len as u64 + holes);
            let mut search = Search::new(&pattern);
            let mut found = None;
            let mut expected = None;
            let mut run = (address, Vec::new());
            for (hole, bytes) in pieces {
                if hole {
                    address += 1;
                    run = (address, Vec::new());
                }
                run.1.extend_from_slice(&bytes);
                if expected.is_none() {
                    let at = run.1.windows(pattern.len()).position(|window| window == pattern);
                    expected = at.map(|at| run.0 + at as u64);
                }
                let len = bytes.len() as u64;
                if found.is_none() {
                    found = search.add(&Piece { address, bytes });
                }
                prop_assert!(search.kept.len() < pattern.len() || found.is_some());
                address = address.wrapping_add(len);
            }
            prop_assert_eq!(found, expected);
        }
    }
}
