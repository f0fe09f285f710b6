//! A real GDB, which types commands while the VMM gets commands of its own.

use crate::vmm::PROGRAMS;
use crate::vmm::Vmm;
use test_machine::gdb_client::gdb_here;
use test_machine::typed_gdb::TypedGdb;

#[test]
fn gdb_breaks_steps_and_detaches_while_the_vmm_pauses() {
    if !gdb_here() {
        return;
    }
    for program in PROGRAMS {
        let Some(mut vmm) = Vmm::start(program, None) else {
            return;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut gdb = TypedGdb::connect(demo_guest::ELF, &vmm.address());
        let threads = gdb.say("info threads");
        assert!(threads.contains("vCPU 0") && threads.contains("vCPU 1"));
        gdb.say("break do_round");
        for turn in 0..3 {
            let hit = gdb.say("continue");
            assert!(hit.contains("Breakpoint 1, do_round (cpu="), "{hit}");
            vmm.pause();
            vmm.snapshot(&folder.path().join(turn.to_string()));
            vmm.resume();
            assert!(gdb.say("stepi").contains("0x"));
            let up = gdb.say("backtrace");
            assert!(up.contains("cpu_loop ("), "{up}");
        }
        gdb.say("delete");
        assert!(gdb.say("detach").contains("detached"));
        vmm.power_off();
    }
}
