//! The client's list of threads, while VPs come and go.

use super::bed::Bed;
use vmm_core_defs::debug_rpc::VpAction;
use vmm_core_defs::stop::DebugStopReason;

#[test]
fn threads_come_and_go_at_a_stop() {
    let bed = Bed::new();
    let mut client = bed.attach();
    assert_eq!(client.ask("qfThreadInfo"), "m1,2");
    assert_eq!(client.ask("Hg1"), "OK");
    assert_eq!(client.ask("Hc1"), "OK");
    bed.vm.set_vps(&[1]);
    assert_eq!(
        client.ask("qfThreadInfo"),
        "m1,2",
        "the same until the next stop"
    );
    bed.vm.stop_at_next_resume(DebugStopReason::Break);
    assert!(client.ask("vCont;c").contains("thread:2;"));
    assert_eq!(client.ask("qfThreadInfo"), "m2");
    let list = client.ask("qXfer:threads:read::0,1000");
    assert!(
        list.contains("id=\"2\"") && !list.contains("id=\"1\""),
        "{list}"
    );
    assert_eq!(client.ask("T1"), "E16");
    assert_eq!(client.ask("T2"), "OK");
    assert_eq!(
        client.ask("p10"),
        "0210000000000000",
        "the registers of the thread that is left"
    );
    assert!(client.ask("jThreadsInfo").starts_with("[{\"tid\":2"));
    // The action of `Hc` went to a thread that is gone.
    bed.vm.set_vps(&[0, 1]);
    bed.vm.stop_at_next_resume(DebugStopReason::Break);
    client.ask("c");
    let resumes = bed.vm.resumes();
    assert_eq!(resumes[1].others, VpAction::Run);
    assert_eq!(client.ask("qfThreadInfo"), "m1,2");
    assert_eq!(client.ask("T1"), "OK");
}
