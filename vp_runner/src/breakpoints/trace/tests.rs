use super::*;
use agent_expr::Expr;
use agent_expr::Limits;

const VP: VpIndex = VpIndex::BSP;
const STEPS: Steps = Steps(1000);
const ADDRESS: Gva = Gva::new(0x1000);

/// Each register has this value, and each byte below 0x100 is the low byte of its address plus 1, up to 0xff; the others cannot be read.
struct One(u64);

impl Context for One {
    fn register(&mut self, _: u16) -> Result<u64, Refused> {
        Ok(self.0)
    }

    fn read(&mut self, address: u64, into: &mut [u8]) -> Result<(), Refused> {
        for (at, byte) in (address..).zip(into) {
            *byte = u8::try_from(at + 1).or(if at == 0xff { Ok(0) } else { Err(Refused) })?;
        }
        Ok(())
    }
}

fn code(bytes: &[u8]) -> Condition {
    Condition {
        code: bytes.to_vec(),
    }
}

fn plain(number: u32) -> Tracepoint {
    Tracepoint {
        number,
        address: ADDRESS,
        enabled: true,
        pass_count: 0,
        condition: None,
        registers: vec![0],
        expressions: Vec::new(),
    }
}

fn start(tracepoints: &[Tracepoint], buffer: u64) -> TraceStart {
    TraceStart {
        tracepoints: tracepoints.to_vec(),
        buffer,
        circular: false,
        client: "c".to_owned(),
    }
}

/// A trace that runs, and its tracepoints.
fn running(start: TraceStart) -> (Arc<Trace>, Vec<Arc<Point>>) {
    let trace = Arc::new(Trace::default());
    let points = trace.prepare(start).unwrap();
    trace.run();
    (trace, points.into_values().flatten().collect())
}

fn first(trace: &Trace) -> TraceFrame {
    at(trace, 0).expect("a frame")
}

fn at(trace: &Trace, from: u64) -> Option<TraceFrame> {
    let which = WhichFrame::Any;
    trace.find(FrameSearch { from, which }).frame
}

const SMALL: u64 = 1000;

#[test]
fn a_buffer_that_is_full_ends_the_trace_and_keeps_the_first_frames() {
    let (trace, points) = running(start(&[plain(1)], SMALL));
    for value in 0..100 {
        points[0].hit(VP, &mut One(value), STEPS);
    }
    let status = trace.status();
    assert_eq!(status.state, TraceState::Full);
    assert!(
        status.used <= SMALL && status.used > SMALL / 2,
        "{status:?}"
    );
    assert_eq!(
        (status.frames, status.tracepoints[0].hits),
        (status.created, status.created)
    );
    assert_eq!(first(&trace).registers[0].value, 0);
    assert_eq!(at(&trace, status.frames), None);
    assert_eq!(at(&trace, u64::MAX), None);
}

#[test]
fn a_circular_buffer_keeps_the_last_frames() {
    let mut circular = start(&[plain(1)], SMALL);
    circular.circular = true;
    let (trace, points) = running(circular);
    for value in 0..100 {
        points[0].hit(VP, &mut One(value), STEPS);
    }
    let status = trace.status();
    assert_eq!((status.state, status.created), (TraceState::Running, 100));
    assert!(
        status.used <= SMALL && status.frames > 2,
        "{}",
        status.frames
    );
    assert_eq!(first(&trace).registers[0].value, 100 - status.frames);
    assert_eq!(
        at(&trace, status.frames - 1).unwrap().registers[0].value,
        99
    );
    // A frame that has no room even alone.
    let mut none = start(&[plain(1)], 1);
    none.circular = true;
    let (trace, points) = running(none);
    points[0].hit(VP, &mut One(0), STEPS);
    assert_eq!(trace.status().state, TraceState::Full);
}

#[test]
fn a_hit_counts_where_the_condition_holds_up_to_the_pass_count() {
    let mut wanted = plain(7);
    let odd = Expr::register(0).bits_and(Expr::constant(1));
    let odd = odd.assemble(Limits::default()).unwrap();
    wanted.condition = Some(code(odd.code()));
    wanted.pass_count = 3;
    let (trace, points) = running(start(&[wanted], SMALL));
    for value in 0..100 {
        points[0].hit(VP, &mut One(value), STEPS);
    }
    let status = trace.status();
    assert_eq!(status.state, TraceState::PassCount { number: 7 });
    let values = (0..3).map(|index| at(&trace, index).unwrap().registers[0].value);
    assert_eq!(Vec::from_iter(values), [1, 3, 5]);
    assert_eq!(status.frames, 3);
}

#[test]
fn a_condition_that_fails_ends_the_trace() {
    let mut wanted = plain(7);
    let fails = Expr::constant(0x1234).load_u8().assemble(Limits::default());
    wanted.condition = Some(code(fails.unwrap().code()));
    let (trace, points) = running(start(&[wanted], SMALL));
    points[0].hit(VP, &mut One(0), STEPS);
    points[0].hit(VP, &mut One(0), STEPS);
    let status = trace.status();
    assert!(
        matches!(&status.state, TraceState::Failed { number: 7, problem } if problem.contains("0x1234")),
        "{status:?}"
    );
    assert_eq!(status.frames, 0);
}

#[test]
fn memory_that_cannot_be_read_is_left_out_and_the_rest_is_recorded() {
    let mut wanted = plain(1);
    wanted.expressions = vec![
        // 2 bytes at 0x10; 8 at 0xfc, which do not exist completely; 0 bytes.
        code(&[0x22, 0x10, 0x22, 2, 0x0c, 0x27]),
        code(&[0x22, 0xfc, 0x22, 8, 0x0c, 0x27]),
        code(&[0x22, 0x10, 0x22, 0, 0x0c, 0x27]),
        // `trace_quick 3` at 0x20; a string at 0xfe; at the end of the address space; more than a frame may have.
        code(&[0x22, 0x20, 0x0d, 3, 0x29, 0x27]),
        code(&[0x22, 0xfe, 0x22, 9, 0x2f, 0x27]),
        code(&[0x22, 0, 0x12, 0x22, 2, 0x0c, 0x27]),
        code(&[0x22, 0, 0x24, 0x7f, 0xff, 0xff, 0xff, 0x0c, 0x27]),
        code(&[0x22, 0x30, 0x22, 1, 0x0c, 0x27]),
    ];
    let (trace, points) = running(start(&[wanted], SMALL));
    points[0].hit(VP, &mut One(5), STEPS);
    let memory = first(&trace).memory.into_iter();
    let memory = memory.map(|piece| (piece.address.value(), piece.data));
    let expected = [
        (0x10, vec![0x11, 0x12]),
        (0x20, vec![0x21, 0x22, 0x23]),
        (0xfe, vec![0xff, 0]),
        (0x30, vec![0x31]),
    ];
    assert_eq!(Vec::from_iter(memory), expected);
}

/// `dup; ...; goto` would never end.
#[test]
fn an_expression_without_an_end_is_cut_and_its_frame_has_a_limit() {
    let mut wanted = plain(1);
    // `const8 0; const8 9; trace; goto 0`.
    wanted.expressions = vec![code(&[0x22, 0, 0x22, 9, 0x0c, 0x21, 0, 0])];
    let (trace, points) = running(start(&[wanted], MOST_TRACE_BUFFER));
    points[0].hit(VP, &mut One(5), Steps(1_000_000));
    let frame = first(&trace);
    let bytes: usize = frame
        .memory
        .iter()
        .map(|piece| piece.data.len() + PIECE)
        .sum();
    assert!(
        bytes <= MOST_TRACE_MEMORY && bytes > MOST_TRACE_MEMORY - 100,
        "{bytes}"
    );
}

#[test]
fn frames_are_found_by_their_tracepoints() {
    let mut other = plain(2);
    other.address = Gva::new(0x2000);
    let mut off = plain(3);
    off.enabled = false;
    let (trace, points) = running(start(&[plain(1), other, off], SMALL));
    for point in &points {
        point.hit(VpIndex::new(3), &mut One(5), STEPS);
    }
    let find = |from, which| {
        let found = trace.find(FrameSearch { from, which }).frame;
        found.map(|frame| (frame.index, frame.number))
    };
    let (first, last) = (Gva::new(0x1800), Gva::new(0x2000));
    assert_eq!(find(0, WhichFrame::Tracepoint { number: 2 }), Some((1, 2)));
    assert_eq!(find(0, WhichFrame::Tracepoint { number: 3 }), None);
    assert_eq!(find(0, WhichFrame::Inside { first, last }), Some((1, 2)));
    assert_eq!(find(0, WhichFrame::Outside { first, last }), Some((0, 1)));
    assert_eq!(find(1, WhichFrame::Outside { first, last }), None);
    assert_eq!(at(&trace, 0).unwrap().vp, VpIndex::new(3));
    let switch = |number, enabled| TracepointSwitch {
        number,
        address: ADDRESS,
        enabled,
    };
    trace.switch(switch(3, true)).unwrap();
    trace.switch(switch(1, false)).unwrap();
    assert!(trace.switch(switch(2, true)).is_err());
    for point in &points {
        point.hit(VP, &mut One(5), STEPS);
    }
    let hits = trace
        .status()
        .tracepoints
        .into_iter()
        .map(|point| point.hits);
    assert_eq!(Vec::from_iter(hits), [1, 2, 1]);
    trace.stopped();
    for point in &points {
        point.hit(VP, &mut One(5), STEPS);
    }
    assert_eq!(
        (trace.status().frames, trace.status().state),
        (4, TraceState::Stopped)
    );
}

#[test]
fn what_cannot_be_recorded_is_refused() {
    let refused = |change: &dyn Fn(&mut TraceStart)| {
        let trace = Arc::new(Trace::default());
        let mut start = start(&[plain(4)], SMALL);
        change(&mut start);
        let refused = trace.prepare(start).map(drop);
        let Err(DebugError::BadCondition { problem, .. }) = refused else {
            panic!("{refused:?}")
        };
        assert_eq!(trace.status().state, TraceState::NotStarted);
        problem
    };
    // `tracev 1; end`.
    let variable = code(&[0x2e, 0, 1, 0x27]);
    let text = refused(&|start| start.tracepoints[0].expressions = vec![variable.clone()]);
    assert_eq!(text, "tracepoint 4: there are no trace state variables");
    let text = refused(&|start| start.tracepoints[0].registers = vec![33]);
    assert_eq!(text, "tracepoint 4: there is no register 33");
    refused(&|start| start.tracepoints[0].registers = vec![1; 34]);
    refused(&|start| start.tracepoints[0].condition = Some(code(&[0x27])));
    refused(&|start| start.tracepoints[0].expressions = vec![code(&[0x0c, 0x27])]);
    refused(&|start| start.tracepoints = vec![plain(1); MOST_TRACEPOINTS + 1]);
    refused(&|start| start.client = "c".repeat(MOST_TRACE_CLIENT + 1));
    let long = code(&[[0x28; 4000].as_slice(), &[0x27]].concat());
    refused(&|start| start.tracepoints[0].expressions = vec![long.clone(); 300]);
}
