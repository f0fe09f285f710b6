//! The guest: a loop in which every instruction is executed once, so RIP and a counter determine the position of a VP.

use test_machine::machine::*;
use vmm_core_defs::regs::X86VpState;

/// The second mapping of the loop's second half.
const ALIAS: u64 = 0x20_0000;
/// The first address that is not mapped.
pub(crate) const UNMAPPED: u64 = 0x40_0000;
const BLOCK: u64 = 0x1040;
const HANDLER: u64 = 0x1050;
const IDT: u64 = 0x9000;
/// The page-directory entry of the second 2 MiB.
const PD_ALIAS: u64 = 0x1_2008;

/// The address of the increment of the counter in memory, and the address at which a watchpoint on the counter stops.
pub(crate) const COUNTS: u64 = 0x1002;
pub(crate) const COUNTED: u64 = 0x1006;

/// The address of a VP's counter in memory, which has 32 bits.
pub(crate) fn counter(vp: u32) -> u64 {
    0x8010 + 0x100 * u64::from(vp)
}

/// The program, and the addresses of its instructions in the order of execution.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub code: Vec<u8>,
    pub turn: Vec<u64>,
}

/// Whether the guest contains its own `INT3`, which some KVMs cannot deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnInt3 {
    Yes,
    No,
}

impl Program {
    pub(crate) fn new(int3: OwnInt3) -> Self {
        // inc ebx; inc dword [rsp+10h]; nop; call block; mov eax, block + alias; call rax; xor eax, eax; int3 or nop; nop; jmp
        let mut code = vec![0xff, 0xc3, 0xff, 0x44, 0x24, 0x10, 0x90];
        code.extend([0xe8, 0x34, 0, 0, 0, 0xb8, 0x40, 0x10, 0x20, 0, 0xff, 0xd0]);
        code.extend([0x31, 0xc0]);
        code.push(if int3 == OwnInt3::Yes { 0xcc } else { 0x90 });
        code.extend([0x90, 0xeb, 0xe7]);
        assert_eq!(code.len(), 0x19);
        code.resize(0x40, 0);
        // inc ecx; nop; ret
        code.extend([0xff, 0xc1, 0x90, 0xc3]);
        code.resize(0x50, 0);
        // inc edx; iretq
        code.extend([0xff, 0xc2, 0x48, 0xcf]);
        let block = |base: u64| [0, 2, 3].map(|n| base + BLOCK + n);
        let mut turn = vec![ENTRY, COUNTS, COUNTED, 0x1007];
        turn.extend(block(0));
        turn.extend([0x100c, 0x1011]);
        turn.extend(block(ALIAS));
        turn.extend([0x1013, 0x1015]);
        if int3 == OwnInt3::Yes {
            turn.extend([HANDLER, HANDLER + 2]);
        }
        turn.extend([0x1016, 0x1017]);
        Self { code, turn }
    }

    /// Writes the tables that the machine does not create: the alias, and the gate of vector 3. The guest is stopped at
    /// its first instruction.
    pub(crate) fn prepare(&self, vm: &TestVm, vps: u32) {
        vm.write_gva(0, PD_ALIAS, &0xe3_u64.to_le_bytes()).unwrap();
        let [b0, b1, b2, b3, ..] = HANDLER.to_le_bytes();
        let gate = [b0, b1, 8, 0, 0, 0x8e, b2, b3, 0, 0, 0, 0, 0, 0, 0, 0];
        vm.write_gva(0, IDT + 3 * 16, &gate).unwrap();
        for vp in 0..vps {
            let mut regs = vm.regs(vp);
            (regs.idtr.base, regs.idtr.limit) = (IDT, 4 * 16 - 1);
            vm.try_set_regs(vp, regs).unwrap();
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.turn.len() as u64
    }

    /// The address of the next instruction of a VP that has executed `position` instructions.
    pub(crate) fn rip(&self, position: u64) -> u64 {
        self.turn[usize::try_from(position % self.len()).unwrap()]
    }

    fn index(&self, rip: u64) -> u64 {
        let index = self.turn.iter().position(|address| *address == rip);
        index.unwrap_or_else(|| panic!("a VP is at {rip:#x}, between instructions")) as u64
    }

    /// The number of instructions that a VP has executed. All registers have to agree.
    pub(crate) fn position(&self, regs: &X86VpState) -> u64 {
        let index = self.index(regs.rip);
        let turns = regs.gp[3] - u64::from(index > 0);
        let after =
            |address: u64| u64::from(self.turn.contains(&address) && index > self.index(address));
        let counted = 2 * turns + after(BLOCK) + after(BLOCK + ALIAS);
        assert_eq!(regs.gp[1], counted, "ecx at {:#x}, {turns} turns", regs.rip);
        let interrupts = match self.turn.contains(&HANDLER) {
            true => turns + after(HANDLER),
            false => 0,
        };
        assert_eq!(
            regs.gp[2], interrupts,
            "the guest's own INT3s, as its handler counts them"
        );
        assert_eq!(regs.rflags & 0x100, 0, "a trap flag of ours");
        turns * self.len() + index
    }

    /// The value of the counter in memory at a position.
    pub(crate) fn counted(&self, position: u64) -> u64 {
        position / self.len() + u64::from(position % self.len() > self.index(COUNTS))
    }
}
