//! The minimal VMM under its own requests and under GDB, up to the end of its guest.

use std::io::Write as _;
use test_machine::gdb_client::gdb_here;
use test_machine::packets::Packets;
use test_machine::running::Running;
use test_machine::running::kvm_here;
use test_machine::running::program;
use test_machine::typed_gdb::TypedGdb;

#[test]
fn a_request_steps_the_guest_and_gdb_breaks_steps_and_detaches() {
    if !kvm_here() {
        return;
    }
    let (mut vmm, mut input) = Running::spawn_with_input(program("minimal_vmm"));
    vmm.wait_for("vmm: SingleStep { vp: VpIndex(0) }, now at 0x");
    let address = vmm.address();
    if gdb_here() {
        let mut gdb = TypedGdb::connect(demo_guest::ELF, &address);
        gdb.say("break do_round thread 2");
        for _ in 0..3 {
            let hit = gdb.say("continue");
            assert!(hit.contains("1, do_round (cpu="), "{hit}");
            assert!(gdb.say("stepi").contains("0x"));
            let up = gdb.say("backtrace");
            assert!(up.contains("cpu_loop ("), "{up}");
        }
        let registers = gdb.say("info registers rip cr3");
        assert!(registers.contains("do_round+"), "{registers}");
        let threads = gdb.say("info threads");
        assert!(threads.contains("* 2"), "{threads}");
        gdb.say("delete");
        assert!(gdb.say("detach").contains("detached"));
    } else {
        let mut packets = Packets::connect(&address);
        packets.ask("qSupported");
        assert!(packets.ask("s").starts_with("T05"));
        assert_eq!(packets.ask("D"), "OK");
    }
    vmm.wait_for("demo guest: CPU 1 is up");
    writeln!(input, "q").expect("the VMM reads");
    let ended = vmm.finish();
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    assert!(ended.output.contains("vmm: the guest has ended: PowerOff"));
}
