use super::*;
use proptest::prelude::*;

fn at(tsc: u64) -> Moment {
    Moment {
        tsc,
        kvmclock: Some(tsc * 10),
    }
}

fn leave(time: &mut GuestTime, now: u64) {
    time.leave(|| at(now), || now);
}

fn standing(freeze: FreezeTime) -> GuestTime {
    GuestTime::new(freeze, at(0))
}

#[test]
fn a_stop_is_taken_out_whole_and_once() {
    let mut time = standing(FreezeTime::On);
    let thawed = |stood, ran| Entered::Resumed { stood, ran };
    assert_eq!(time.enter(100, ClockAccess::Possible), thawed(at(0), 0));
    assert_eq!(time.enter(130, ClockAccess::Possible), Entered::AsTheyAre);
    assert_eq!(time.taken_out(), 100);
    time.leave(|| unreachable!("one is inside still"), || 0);
    assert_eq!(time.standing_for(140), None);
    leave(&mut time, 150);
    assert_eq!(time.standing_for(400), Some(250));
    assert_eq!(time.taken_out_by(400), 350);
    assert_eq!(time.enter(1150, ClockAccess::Possible), thawed(at(150), 0));
    assert_eq!(time.taken_out(), 1100);
    time.set_late_by(3);
    assert_eq!(time.taken_out(), 1103);
}

#[test]
fn blind_steps_are_part_of_one_stop_and_what_they_ran_is_kept() {
    let mut time = standing(FreezeTime::On);
    time.enter(0, ClockAccess::Possible);
    leave(&mut time, 1000);
    for step in 1..=5_u64 {
        let now = 1000 + step * 100;
        assert_eq!(time.enter(now, ClockAccess::Impossible), Entered::AsTheyAre);
        assert_eq!(time.standing_for(now), None);
        leave(&mut time, now + 7);
    }
    let thawed = Entered::Resumed {
        stood: at(1000),
        ran: 35,
    };
    assert_eq!(time.enter(2000, ClockAccess::Possible), thawed);
    assert_eq!(time.taken_out(), 1000 - 35);
}

#[test]
fn the_choice_holds_for_the_stop_in_which_it_is_made() {
    let mut time = standing(FreezeTime::On);
    time.set_freeze(FreezeTime::Off);
    assert_eq!(time.taken_out_by(900), 0);
    assert_eq!(time.enter(900, ClockAccess::Possible), Entered::Passed);
    leave(&mut time, 1000);
    time.set_freeze(FreezeTime::On);
    time.enter(1500, ClockAccess::Possible);
    assert_eq!(time.taken_out(), 500);
}

#[test]
fn rates_convert_both_ways_without_overflow() {
    let rate = TscRate::from_khz(2_596_136).expect("not 0");
    assert_eq!(TscRate::from_khz(0), None);
    assert_eq!(rate.ns(2_596_136 * 60_000), 60_000_000_000);
    assert_eq!(rate.ticks(60_000_000_000), 2_596_136 * 60_000);
    assert!(rate.ns(u64::MAX) > 1 << 62);
    assert_eq!(rate.ticks(u64::MAX), u64::MAX);
}

proptest! {
    /// Whatever the VPs do, the guest's clock never goes back on a VP that reads it, and its last value is the time that the guest has run.
    #[test]
    fn a_guest_sees_only_what_it_ran(moves in prop::collection::vec((0..3_usize, any::<bool>(), 1..1000_u64), 1..200)) {
        let mut time = standing(FreezeTime::On);
        let mut inside: [Option<ClockAccess>; 3] = [None; 3];
        let (mut now, mut ran, mut seen) = (0, 0, 0);
        for (vp, clockless, wait) in moves {
            now += wait;
            if inside.iter().any(Option::is_some) {
                ran += wait;
            }
            match inside[vp].take() {
                Some(_) => leave(&mut time, now),
                None => {
                    let look = if clockless { ClockAccess::Impossible } else { ClockAccess::Possible };
                    time.enter(now, look);
                    inside[vp] = Some(look);
                }
            }
            if inside.contains(&Some(ClockAccess::Possible)) {
                let shown = now - time.taken_out();
                prop_assert!(shown >= seen);
                prop_assert_eq!(shown, ran);
                seen = shown;
            }
        }
    }
}
