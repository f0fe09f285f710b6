//! The guest: its memory, and the present state of its vCPUs.

use crate::arch::Slots;
use crate::breakpoints::Breakpoints;
use crate::breakpoints::breakpoint_bytes::INT3;
use crate::memory::slots::MemorySlots;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::RwLock;
use vm_memory::Bytes as _;
use vm_memory::GuestAddress;
use vmm_core_defs::addr::VpIndex;

/// The address of the guest's program, and its entry point.
pub(super) const CODE: u64 = 0x1000;
/// `nop; nop; out 0x80, al; nop; jmp CODE`. The vCPU leaves the guest in each turn.
pub(super) const ASKS_DEVICE: Program = [0x90, 0x90, 0xe6, 0x80, 0x90, 0xeb, 0xf9];
/// `nop; nop; nop; nop; nop; jmp CODE`. Without a breakpoint or a step only a signal makes the vCPU leave the guest.
pub(super) const SPINS: Program = [0x90, 0x90, 0x90, 0x90, 0x90, 0xeb, 0xf9];
/// The addresses of instructions in both programs.
pub(super) const INSTRUCTIONS: [u64; 5] = [0, 1, 2, 4, 5];

type Program = [u8; 7];

/// See the module.
pub(super) struct World {
    program: Program,
    pub(super) ram: Arc<MemorySlots>,
    pub(super) breakpoints: Arc<RwLock<Breakpoints>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    vps: Vec<Record>,
    /// Whether the VMM takes a snapshot.
    in_snapshot: bool,
    /// Whether a stop was reported, and the debugger has not resumed the guest.
    is_stopped: bool,
    /// Whether the guest has begun: the VMM has started it, or a debugger has resumed it or has detached. A held guest stays held if its debugger is lost (I6).
    has_begun: bool,
}

/// The state of one vCPU.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Record {
    /// Whether the vCPU exists.
    pub(super) is_here: bool,
    /// The number of instructions that the vCPU has executed.
    pub(super) executed: u64,
    /// The debug registers with which the vCPU would run, and whether it would step.
    pub(super) slots: Slots,
    pub(super) steps: bool,
    /// Whether the VMM has the thread of the vCPU.
    pub(super) is_with_vmm: bool,
    /// How often the VMM has had the thread of the vCPU.
    pub(super) visits: u32,
    /// How often the VMM has moved the vCPU to another instruction.
    pub(super) moves: u32,
    /// A device that the vCPU accessed has caused an event, and the VMM has not acted on the event.
    pub(super) awaits_event: bool,
}

impl World {
    pub(super) fn new(vps: u32, program: Program) -> Arc<Self> {
        let ram = MemorySlots::zeroed(&[(0, 0x4000)]);
        let code = GuestAddress(CODE);
        ram.backing().write_slice(&program, code).unwrap();
        Arc::new(Self {
            program,
            ram: Arc::new(ram),
            breakpoints: Arc::default(),
            state: Mutex::new(State {
                vps: vec![Record::default(); vps as usize],
                ..State::default()
            }),
        })
    }

    /// The scheduler does not switch threads while this lock is held.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn vps(&self) -> impl Iterator<Item = VpIndex> + use<> {
        let count = u32::try_from(self.state().vps.len()).expect("a few VPs");
        (0..count).map(VpIndex::new)
    }

    pub(super) fn record(&self, vp: VpIndex) -> Record {
        self.state().vps[vp.index() as usize]
    }

    pub(super) fn change(&self, vp: VpIndex, change: impl FnOnce(&mut Record)) {
        change(&mut self.state().vps[vp.index() as usize]);
    }

    pub(super) fn byte(&self, address: u64) -> u8 {
        self.ram.backing().read_obj(GuestAddress(address)).unwrap()
    }

    fn code(&self) -> Program {
        self.ram.backing().read_obj(GuestAddress(CODE)).unwrap()
    }

    /// A vCPU is about to execute an instruction.
    pub(super) fn executes(&self, vp: VpIndex) {
        let breakpoints = self.breakpoints.try_read().expect("I3");
        for (address, own) in (CODE..).zip(self.program) {
            let found = self.byte(address);
            let armed = breakpoints.bytes.is_armed(super::Gpa::new(address));
            let wanted = if armed { INT3 } else { own };
            assert_eq!(found, wanted, "the byte at {address:#x}");
        }
        let mut state = self.state();
        assert!(!state.in_snapshot, "VP {vp} runs in a snapshot");
        assert!(!state.is_stopped, "VP {vp} runs while the guest is stopped");
        let record = &mut state.vps[vp.index() as usize];
        assert!(!record.awaits_event, "VP {vp} runs on past its event");
        record.executed += 1;
    }

    /// The debugger has got a stop, or is about to resume the guest.
    pub(super) fn set_stopped(&self, is: bool) {
        self.state().is_stopped = is;
    }

    /// The guest has begun, at the latest now.
    pub(super) fn begin(&self) {
        self.state().has_begun = true;
    }

    pub(super) fn has_begun(&self) -> bool {
        self.state().has_begun
    }

    /// The VMM acts on the events that it has held.
    pub(super) fn act_on_events(&self) {
        for vp in &mut self.state().vps {
            vp.awaits_event = false;
        }
    }

    /// The VMM begins or ends a snapshot.
    pub(super) fn set_in_snapshot(&self, is: bool) {
        self.state().in_snapshot = is;
    }

    /// Checks that memory contains the bytes that the guest has written.
    pub(super) fn check_memory(&self, when: &str) {
        assert_eq!(self.code(), self.program, "{when} (I6)");
    }

    /// Checks that the vCPU has no debug register and no step of a debugger.
    pub(super) fn check_bare(&self, vp: VpIndex, when: &str) {
        let record = self.record(vp);
        assert!(
            record.slots == Slots::default() && !record.steps,
            "VP {vp} {when}: {record:?}"
        );
    }
}
