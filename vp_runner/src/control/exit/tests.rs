use super::*;
use crate::arch::x86_64::dr7::Dr6;

const VP: VpIndex = VpIndex::new(3);

#[test]
fn each_exit_means_one_thing() {
    let debug = DebugExit {
        vector: 1,
        pc: 0,
        dr6: Dr6(1),
    };
    let cause = CrashCause::Internal { suberror: 1 };
    let registers = FaultRegisters::Kept;
    let vp = Some(VP);
    for (exit, meaning) in [
        (Exit::Device, Meaning::Nothing),
        (Exit::Interrupted, Meaning::Nothing),
        (Exit::Nothing, Meaning::Nothing),
        (Exit::Debug(debug), Meaning::Debug(debug)),
        (Exit::Halted, Meaning::Halted),
        (
            Exit::Shutdown(registers),
            Meaning::Event(GuestEvent::TripleFault { vp: VP, registers }),
        ),
        (Exit::SystemReset, Meaning::Event(GuestEvent::Reset { vp })),
        (
            Exit::SystemPowerOff,
            Meaning::Event(GuestEvent::PowerOff { vp }),
        ),
        (
            Exit::SystemCrash,
            Meaning::Event(GuestEvent::Panicked { vp: VP }),
        ),
        (
            Exit::Failed(cause),
            Meaning::Event(GuestEvent::Crashed { vp: VP, cause }),
        ),
    ] {
        assert_eq!(exit.meaning(VP), meaning, "{exit:?}");
    }
}

#[test]
fn what_one_vp_asked_for_is_met_by_another_vps_wish() {
    let [first, second] = [0, 1].map(|vp| Some(VpIndex::new(vp)));
    let reset = |vp| GuestEvent::Reset { vp };
    let off = |vp| GuestEvent::PowerOff { vp };
    let panic = |vp| GuestEvent::Panicked {
        vp: VpIndex::new(vp),
    };
    assert!(reset(first).is_covered_by(reset(second)) && off(None).is_covered_by(off(first)));
    assert!(!reset(first).is_covered_by(off(first)) && !off(first).is_covered_by(reset(first)));
    assert!(panic(1).is_covered_by(panic(1)) && !panic(0).is_covered_by(panic(1)));
}
