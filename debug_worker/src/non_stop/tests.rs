//! Which VPs run, whatever stops the VM.

use super::*;
use vmm_core_defs::addr::Gva;
use vmm_core_defs::breakpoint::Breakpoint;
use vmm_core_defs::breakpoint::BreakpointKind;

const BP: VpIndex = VpIndex::BSP;
const AP: VpIndex = VpIndex::new(1);

fn vps(count: u32) -> VpSet {
    (0..count).map(VpIndex::new).collect()
}

/// The client has resumed the first of two VPs.
fn running() -> NonStop {
    let mut non_stop = NonStop::new(BP, &vps(2));
    // No VP runs before the client resumes one (I6).
    assert_eq!(non_stop.request(), None);
    assert!(!non_stop.runs(AP));
    let thread = crate::stop_reply::thread_of(BP).unwrap();
    non_stop.schedule(&Schedule {
        run: vec![(thread, gdb_frontend::target::ResumeAction::Step)],
        stop: Vec::new(),
        jump: None,
    });
    non_stop
}

fn request(actions: &[(VpIndex, VpAction)]) -> Option<ResumeRequest> {
    Some(ResumeRequest::new(VpAction::Stay, actions.to_vec()))
}

#[test]
fn the_others_go_on_with_the_first_resume() {
    let non_stop = running();
    let both = [(BP, VpAction::Step), (AP, VpAction::Run)];
    assert_eq!(non_stop.request(), request(&both));
    assert!(non_stop.runs(AP));
}

#[test]
fn a_stop_of_one_vp_leaves_the_others_running_with_what_they_do() {
    let mut non_stop = running();
    // The server has stopped the VM for itself: the step goes on.
    assert!(!non_stop.stopped(&DebugStopReason::Break));
    assert_eq!(
        non_stop.request(),
        request(&[(BP, VpAction::Step), (AP, VpAction::Run)])
    );
    let breakpoint = Breakpoint {
        kind: BreakpointKind::Software,
        address: Gva::new(0x1000),
        len: 1,
    };
    let hit = DebugStopReason::Breakpoint { vp: AP, breakpoint };
    assert!(non_stop.stopped(&hit));
    assert_eq!(non_stop.kept, KeptHits::Possible);
    assert_eq!(non_stop.request(), request(&[(BP, VpAction::Step)]));
    // A VP that the client has seen stopped does not stop again.
    assert!(!non_stop.stopped(&hit));
    assert!(non_stop.stopped(&DebugStopReason::SingleStep { vp: BP }));
    assert_eq!(non_stop.request(), None);
}

/// The next resume would carry the event out, whichever VP it names.
#[test]
fn an_event_of_the_guest_stops_every_vp() {
    let mut non_stop = running();
    assert!(non_stop.stopped(&DebugStopReason::Reset { vp: Some(AP) }));
    assert_eq!(non_stop.request(), None);
    let mut non_stop = running();
    non_stop.ended();
    assert_eq!(non_stop.request(), None);
}

#[test]
fn vps_that_come_run_and_vps_that_go_do_not() {
    let mut non_stop = running();
    non_stop.set_vps(&vps(2), &[BP, VpIndex::new(2)].into_iter().collect());
    let now = [(BP, VpAction::Step), (VpIndex::new(2), VpAction::Run)];
    assert_eq!(non_stop.request(), request(&now));
}
