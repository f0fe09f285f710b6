//! GDB's `compare-sections`, carried out beside the guest.

use crate::error_table::no_ram;
use crate::error_table::target_error;
use crate::ram_pieces::RamPieces;
use crate::vm::AttachedVm;
use crc::CRC_32_MPEG_2;
use crc::Crc;
use gdb_frontend::target::MemoryRange;
use gdb_frontend::target::TargetError;
use gdb_frontend::target::TargetReply;

/// "The CRC is computed byte at a time, taking the most significant bit of each byte first. The initial pattern code 0xffffffff is used to ensure leading zeros
/// affect the CRC." (GDB manual, node "General Query Packets", `qCRC`.) The result is not inverted.
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_MPEG_2);

/// The checksum of a range in which every byte is RAM.
pub(crate) async fn checksum(
    vm: &AttachedVm,
    range: MemoryRange,
) -> Result<TargetReply, TargetError> {
    let mut pieces = RamPieces::new(range);
    let mut digest = CRC.digest();
    let mut next = Some(range.first);
    while let Some(address) = next {
        let piece = pieces.next(vm).await;
        let piece = piece
            .map_err(|error| target_error(&error))?
            .filter(|piece| piece.address == address)
            .ok_or_else(|| no_ram(address))?;
        digest.update(&piece.bytes);
        next = address
            .checked_add(piece.bytes.len() as u64)
            .filter(|next| *next <= range.last);
    }
    Ok(TargetReply::Checksum(digest.finalize()))
}
