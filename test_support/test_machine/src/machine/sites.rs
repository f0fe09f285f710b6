//! A loop with a hundred sites for breakpoints. Every VP counts the sites in RBX.

use super::*;

/// The number of sites.
pub const SITES: u64 = 100;

/// The instructions at the sites, in turn: two kinds that need no step, one that writes memory, and one that has to be
/// stepped.
const KINDS: [&[u8]; 4] = [
    &[0x90],             // nop
    &[0x48, 0x89, 0xc0], // mov rax, rax
    &[0x50, 0x58],       // push rax; pop rax
    &[0x0f, 0x31],       // rdtsc
];

/// `inc rbx` before each site, in long mode.
const COUNT: &[u8] = &[0x48, 0xff, 0xc3];

/// The program. RBX is incremented before each site.
pub fn hundred_sites() -> Vec<u8> {
    let mut code: Vec<u8> = KINDS
        .iter()
        .cycle()
        .take(usize::try_from(SITES).unwrap())
        .flat_map(|kind| [COUNT, kind].concat())
        .collect();
    let back = -i32::try_from(code.len() + 5).unwrap();
    code.push(0xe9);
    code.extend(back.to_le_bytes());
    code
}

/// The address of the site at which RBX is `count`; 1 at the first site.
pub fn site(count: u64) -> u64 {
    let before = (count - 1) % SITES;
    let all: u64 = KINDS
        .iter()
        .map(|kind| (COUNT.len() + kind.len()) as u64)
        .sum();
    let (rounds, rest) = (before / 4, usize::try_from(before % 4).unwrap());
    let behind: usize = KINDS[..rest]
        .iter()
        .map(|kind| COUNT.len() + kind.len())
        .sum();
    ENTRY + rounds * all + (behind + COUNT.len()) as u64
}
