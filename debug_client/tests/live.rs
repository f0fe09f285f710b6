//! Programs against a live guest: in the process of the VMM and over a socket.

use debug_client::Capabilities;
use debug_client::DebugError;
use debug_client::DebugStopReason;
use debug_client::DetachAction;
use debug_client::Error;
use debug_client::Expr;
use debug_client::GuestEventKind;
use debug_client::Options;
use debug_client::Printf;
use debug_client::StopKind;
use debug_client::StopOn;
use debug_client::VpSet;
use debug_client::blocking::Debugger;
use debug_client::register;
use pal_async::DefaultDriver;
use pal_async::DefaultPool;
use pal_async::task::Spawn as _;
use std::io::Read as _;
use std::io::Write as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use test_machine::machine::ENTRY;
use test_machine::machine::PORT_GIVES_UP;
use test_machine::machine::PORT_OFF;
use test_machine::machine::Setup;
use test_machine::machine::TestVm;
use test_machine::machine::guest::Mode;
use test_machine::machine::guest::counting_loop;
use test_machine::machine::guest::in_loop;
use test_machine::machine::guest::telling_loop;
use vmm_core_defs::debug_rpc::AttachInfo;
use vmm_core_defs::debug_rpc::DebugMessage;
use vmm_core_defs::debug_rpc::DebugRequest;
use vmm_core_defs::debug_rpc::GuestArch;
use vmm_core_defs::regs::XFeatures;
use vmm_core_defs::session::Attached;
use vmm_core_defs::session::DebugSession;
use vmm_core_defs::stop::Epoch;
use vmm_core_defs::stop::StopEvent;

/// No passing test waits this long.
const LONG: Duration = Duration::from_secs(60);

/// In such a time a loop of four instructions comes round.
const SHORT: Duration = Duration::from_millis(50);

/// A VM, and the socket on which it serves programs.
struct Vmm {
    vm: TestVm,
    _folder: tempfile::TempDir,
    path: PathBuf,
    _driver: DefaultDriver,
}

impl Vmm {
    fn start(setup: Setup) -> Option<Self> {
        let vm = setup.build()?;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rpc");
        let listener = UnixListener::bind(&path).unwrap();
        let (_, driver) = DefaultPool::spawn_on_thread("vmm");
        let requests = vm.sender().clone();
        let of_vmm = driver.clone();
        thread::spawn(move || {
            for socket in listener.incoming() {
                let (driver, requests) = (of_vmm.clone(), requests.clone());
                let serve =
                    async move { debug_wire::serve(&driver, socket.unwrap(), requests).await };
                of_vmm.spawn("program", serve).detach();
            }
        });
        Some(Self {
            vm,
            _folder: folder,
            path,
            _driver: driver,
        })
    }

    fn address(&self) -> String {
        format!("unix:{}", self.path.display())
    }
}

/// Runs `program` in the process of a VMM, and against another VMM over its socket.
fn both_ways(code: &[u8], program: impl Fn(Debugger, &TestVm)) {
    let Some(vmm) = Vmm::start(Setup::new(Mode::Long, code)) else {
        return;
    };
    program(Debugger::attach(vmm.vm.sender().clone()).unwrap(), &vmm.vm);
    let vmm = Vmm::start(Setup::new(Mode::Long, code)).unwrap();
    program(Debugger::connect(&vmm.address()).unwrap(), &vmm.vm);
}

/// The address of an instruction of the counting loop.
fn nth(number: u64) -> u64 {
    in_loop(Mode::Long, number)
}

fn counting() -> Vec<u8> {
    counting_loop(Mode::Long)
}

#[test]
fn a_program_breaks_reads_writes_and_steps() {
    both_ways(&counting(), |mut vm, _| {
        assert_eq!(vm.last_stop().kind(), StopKind::Interrupt);
        assert_eq!(vm.vp(0).pc().unwrap(), ENTRY);
        let second = vm.break_at(nth(2)).unwrap();
        let stop = vm.run_until(&second, LONG).unwrap();
        assert_eq!((stop.kind(), stop.vp()), (StopKind::Breakpoint, Some(0)));
        assert_eq!(vm.current().reg("rip").unwrap(), nth(2));
        let rbx = vm.vp(0).reg("rbx").unwrap();
        vm.run_until(&second, LONG).unwrap();
        assert_eq!(vm.vp(0).reg("rbx").unwrap(), rbx + 1);

        // The breakpoint's byte is not the program's.
        let code: [u8; 6] = vm.read(ENTRY).unwrap();
        assert_eq!(&code[..], counting());
        vm.vp(0).set_reg("rbx", 7).unwrap();
        drop(second);
        vm.step_n(4).unwrap();
        assert_eq!(vm.vp(0).reg("rbx").unwrap(), 8);
        assert_eq!(vm.vp(0).pc().unwrap(), nth(2));

        vm.write(0x2000_u64, 0x1122_3344_u32).unwrap();
        assert_eq!(vm.read_bytes(0x2000, 4).unwrap(), [0x44, 0x33, 0x22, 0x11]);
        assert_eq!(vm.read_physical(0x2001, 2).unwrap(), [0x33, 0x22]);
        vm.detach().unwrap();
    });
}

#[test]
fn a_condition_decides_which_hits_are_stops() {
    both_ways(&counting(), |mut vm, _| {
        let second = vm.break_at(nth(2)).unwrap();
        let rbx = || register("rbx").unwrap();
        let hundreds = rbx().remainder(Expr::constant(100)).is_zero();
        vm.stop_if(&second, [hundreds]).unwrap();
        vm.run_until(&second, LONG).unwrap();
        let first = vm.vp(0).reg("rbx").unwrap();
        assert_eq!(first % 100, 0);
        for stops in 1..4 {
            let stop = vm.run_until(&second, LONG).unwrap();
            assert_eq!(stop.condition_failure, None);
            assert_eq!(vm.vp(0).reg("rbx").unwrap(), first + stops * 100);
        }

        let unreadable = Expr::constant(0xffff_8000_0000_0000).load_u64();
        let far = rbx().equals(Expr::constant(first + 305));
        vm.stop_if(&second, [far.choose(unreadable, Expr::constant(0))])
            .unwrap();
        let stop = vm.run_until(&second, LONG).unwrap();
        assert!(stop.condition_failure.is_some());
        assert_eq!(vm.vp(0).reg("rbx").unwrap(), first + 305);

        vm.stop_if(&second, []).unwrap();
        vm.run_until(&second, LONG).unwrap();
        assert_eq!(vm.vp(0).reg("rbx").unwrap(), first + 306);
        let unknown = register("rbxx").unwrap_err().to_string();
        assert!(unknown.contains("rbxx") && unknown.contains("kernel_gs_base"));
        let long = (0..5_000).fold(rbx(), |sum, _| sum.plus(Expr::constant(1)));
        let refused = vm.stop_if(&second, [long]).unwrap_err();
        assert!(matches!(refused, Error::BadCondition(_)), "{refused}");
        vm.detach().unwrap();
    });
}

#[test]
fn a_breakpoint_prints_at_the_hits_that_its_conditions_choose() {
    both_ways(&counting(), |mut vm, _| {
        let (second, third) = (vm.break_at(nth(2)).unwrap(), vm.break_at(nth(3)).unwrap());
        let rbx = || register("rbx").unwrap();
        let last = |number| {
            rbx()
                .remainder(Expr::constant(10))
                .equals(Expr::constant(number))
        };
        let text = Printf::new("count %u\n", [rbx()]);
        vm.print_at(&second, text, [last(3), last(7)]).unwrap();
        vm.stop_if(&third, [rbx().equals(Expr::constant(40))])
            .unwrap();
        assert_eq!(vm.printed(LONG).unwrap(), "", "nothing has run");
        vm.run_until(&third, LONG).unwrap();
        let mut text = vm.printed(LONG).unwrap();
        let lines = |from: u32| {
            (from..).flat_map(|tens| {
                [10 * tens + 3, 10 * tens + 7].map(|count| format!("count {count}\n"))
            })
        };
        assert_eq!(text, lines(0).take(8).collect::<String>());
        assert_eq!(vm.printed(LONG).unwrap(), "", "each text once");

        // While the guest runs, each call waits for text.
        third.remove();
        vm.resume().unwrap();
        text.clear();
        while text.len() < 2_000 {
            text += &vm.printed(LONG).unwrap();
        }
        vm.print_at(&second, Printf::new("never", []), [Expr::constant(0)])
            .unwrap();
        text += &vm.printed(Duration::ZERO).unwrap();
        vm.stop_if(&second, []).unwrap();
        let stop = vm.wait_for(StopKind::Breakpoint, LONG).unwrap();
        assert_eq!(stop.condition_failure, None);
        text += &vm.printed(LONG).unwrap();
        assert_eq!(
            text,
            lines(4).take(text.lines().count()).collect::<String>()
        );

        let wrong = vm.print_at(&second, Printf::new("%d", []), []).unwrap_err();
        assert!(matches!(wrong, Error::BadText(_)), "{wrong}");
        vm.detach().unwrap();
    });
}

#[test]
fn many_steps_are_one_request_that_a_breakpoint_ends() {
    both_ways(&counting(), |mut vm, _| {
        let stop = vm.step_n(1000).unwrap();
        assert_eq!((stop.kind(), stop.steps), (StopKind::Step, Some(1000)));
        assert_eq!(vm.vp(0).reg("rbx").unwrap(), 250);
        assert_eq!(vm.vp(0).pc().unwrap(), ENTRY);
        assert_eq!(vm.step().unwrap().steps, None);
        let breakpoint = vm.break_at(nth(3)).unwrap();
        for executed in [2, 4] {
            let error = vm.step_n(1000).unwrap_err();
            let Error::OtherStop { stop, wanted } = error else {
                panic!("{error}");
            };
            assert_eq!(wanted, "the end of the steps");
            assert!(breakpoint.is_reason(&stop.reason));
            assert_eq!(stop.steps, Some(executed));
        }
        assert_eq!(vm.step_n(0).unwrap(), *vm.last_stop());
    });
}

#[test]
fn the_limit_of_a_request_is_the_limit_of_all_its_steps() {
    let Some(vmm) = Vmm::start(Setup::new(Mode::Long, &counting())) else {
        return;
    };
    let mut options = Options::default();
    options.request_limit = SHORT;
    let mut vm = Debugger::connect_with(&vmm.address(), options).unwrap();
    let error = vm.step_n(u64::MAX).unwrap_err();
    let Error::TimedOut { stop, limit, .. } = error else {
        panic!("{error}");
    };
    assert_eq!((stop.kind(), limit), (StopKind::Interrupt, SHORT));
    assert!(stop.steps > Some(0));
    assert!(!vm.running());
}

#[test]
fn a_dropped_breakpoint_stops_no_vp_and_an_equal_one_still_does() {
    both_ways(&counting(), |mut vm, _| {
        let first = vm.break_at(nth(2)).unwrap();
        let again = vm.break_at(nth(2)).unwrap();
        drop(first);
        vm.run_until(&again, LONG).unwrap();
        drop(again);
        vm.resume().unwrap();
        let Err(Error::TimedOut { stop, .. }) = vm.wait(SHORT) else {
            panic!("the guest met a breakpoint that is gone");
        };
        assert_eq!(stop.kind(), StopKind::Interrupt);
    });
}

#[test]
fn a_hardware_breakpoint_stops_like_another_one_and_goes_when_it_is_dropped() {
    both_ways(&counting(), |mut vm, _| {
        let soft = vm.break_at(nth(1)).unwrap();
        let hard = vm.hbreak_at(nth(2)).unwrap();
        assert_eq!(
            hard.to_string(),
            format!("hardware breakpoint at {:#x}", nth(2))
        );
        assert_eq!(soft.to_string(), format!("breakpoint at {:#x}", nth(1)));
        for breakpoint in [&soft, &hard, &soft] {
            let stop = vm.run_until(breakpoint, LONG).unwrap();
            assert_eq!(stop.kind(), StopKind::Breakpoint);
            assert_eq!(vm.vp(0).pc().unwrap(), breakpoint.address());
        }
        // The debug registers are free again.
        hard.remove();
        let four: Vec<_> = (10..14).map(|at| vm.hbreak_at(nth(at)).unwrap()).collect();
        let error = vm.hbreak_at(nth(2)).unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error}");
        drop(four);
        drop(soft);
        let hard = vm.hbreak_at(nth(2)).unwrap();
        vm.run_until(&hard, LONG).unwrap();
        drop(hard);
        assert!(!vm.running());
        vm.resume().unwrap();
        assert!(vm.running());
        let error = vm.wait(SHORT).unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
        assert!(!vm.running());
    });
}

#[test]
fn a_panic_is_a_stop_only_if_the_program_asks_for_it() {
    let code = [0xe6, PORT_GIVES_UP, 0xe6, PORT_OFF, 0xeb, 0xfe];
    both_ways(&code, |mut vm, _| {
        vm.resume().unwrap();
        vm.wait_for(StopKind::PowerOff, LONG).unwrap();
    });
    both_ways(&code, |mut vm, _| {
        let panic = [GuestEventKind::Panic];
        assert_eq!(vm.stop_on(panic).unwrap(), StopOn::from_iter(panic));
        vm.resume().unwrap();
        let stop = vm.wait_for(StopKind::Panic, LONG).unwrap();
        assert_eq!(stop.vp(), Some(0));
        vm.resume().unwrap();
        // A power-off is no stop now.
        let error = vm.wait(LONG).unwrap_err();
        assert!(error.to_string().contains("switched itself off"), "{error}");
    });
}

/// As under `trapgate exec`.
#[test]
fn an_event_of_which_the_vmm_does_not_tell_is_an_error() {
    let (requests, mut messages) = mesh::channel::<DebugMessage>();
    thread::spawn(move || {
        futures::executor::block_on(async {
            let triple_fault = StopOn::from_iter([GuestEventKind::TripleFault]);
            while let Ok(message) = messages.recv().await {
                match message {
                    DebugMessage::Attach(rpc) => rpc.handle_sync(|request| {
                        let capabilities = Capabilities::default();
                        let vps = VpSet::first(1);
                        let stop = StopEvent::new(Epoch::default(), DebugStopReason::Break, vps);
                        let (arch, features) = (GuestArch::X86_64, XFeatures::default());
                        let info = AttachInfo::new(arch, features, capabilities, stop);
                        let session = DebugSession::begin(request.requests);
                        Ok(Attached { session, info })
                    }),
                    DebugMessage::InSession(_, DebugRequest::StopOn(rpc)) => rpc
                        .handle_sync(|set| Ok(set.unwrap_or_default().intersection(triple_fault))),
                    _ => return,
                }
            }
        });
    });
    let vm = Debugger::attach(requests).unwrap();
    vm.stop_on([GuestEventKind::TripleFault]).unwrap();
    let events = [GuestEventKind::TripleFault, GuestEventKind::Panic];
    let error = vm.stop_on(events).unwrap_err();
    assert!(
        matches!(
            error,
            Error::NoStopOn {
                event: StopKind::Panic
            }
        ),
        "{error}"
    );
    let text = error.to_string();
    assert!(
        text.starts_with("a panic of the guest's kernel cannot be a stop"),
        "{text}"
    );
}

#[test]
fn every_other_stop_is_an_error_that_names_it() {
    both_ways(&counting(), |mut vm, _| {
        let first = vm.break_at(nth(1)).unwrap();
        let second = vm.break_at(nth(2)).unwrap();
        let error = vm.run_until(&second, LONG).unwrap_err();
        assert!(matches!(&error, Error::OtherStop { stop, .. } if first.is_reason(&stop.reason)));
        let text = error.to_string();
        for address in [first.address(), second.address()] {
            assert!(text.contains(&format!("{address:#x}")), "{text}");
        }
        // The program goes on from there.
        vm.run_until(&second, LONG).unwrap();
        let far = vm.break_at(0x1f_0000).unwrap();
        drop((first, second));
        let error = vm.run_until(&far, SHORT).unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
        // The guest is stopped then.
        vm.vp(0).pc().unwrap();
    });
}

#[test]
fn a_running_guest_is_waited_for_and_interrupted() {
    both_ways(&counting(), |mut vm, _| {
        assert!(matches!(vm.wait(SHORT), Err(Error::NotRunning)));
        vm.resume().unwrap();
        assert!(matches!(vm.resume(), Err(Error::Running)));
        let error = vm.vp(0).pc().unwrap_err();
        assert!(
            matches!(
                &error,
                Error::Refused {
                    source: DebugError::NotStopped,
                    ..
                }
            ),
            "{error}"
        );
        assert_eq!(vm.read_physical(ENTRY, 2).unwrap(), counting()[..2]);
        assert_eq!(vm.interrupt().unwrap().kind(), StopKind::Interrupt);
        assert_eq!(vm.interrupt().unwrap().kind(), StopKind::Interrupt);
        // A breakpoint may be set while the guest runs.
        vm.resume().unwrap();
        let breakpoint = vm.break_at(nth(2)).unwrap();
        let stop = vm.wait_for(StopKind::Breakpoint, LONG).unwrap();
        assert!(breakpoint.is_reason(&stop.reason));
    });
}

#[test]
fn a_watched_write_stops_behind_its_instruction() {
    // mov [0x2000], ebx in the loop
    let mut code = vec![0xff, 0xc3, 0x89, 0x1c, 0x25, 0x00, 0x20, 0x00, 0x00];
    test_machine::machine::guest::jump_to_start(&mut code);
    both_ways(&code, |mut vm, _| {
        let watch = match vm.watch(0x2000, 4) {
            Ok(watch) => watch,
            Err(Error::Refused {
                source: DebugError::Unsupported(why),
                ..
            }) => {
                println!("SKIP: {why}");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        let stop = vm.run_until(&watch, LONG).unwrap();
        assert_eq!(stop.kind(), StopKind::Watchpoint);
        assert_eq!(vm.vp(0).pc().unwrap(), ENTRY + 9);
        assert_eq!(
            u64::from(vm.read::<u32>(0x2000).unwrap()),
            vm.vp(0).reg("rbx").unwrap() & 0xffff_ffff
        );
    });
}

#[test]
fn a_dropped_debugger_lets_the_guest_run_and_another_program_attach() {
    both_ways(&telling_loop(Mode::Long), |mut vm, machine| {
        let breakpoint = vm.break_at(ENTRY).unwrap();
        vm.run_until(&breakpoint, LONG).unwrap();
        let error = Debugger::attach(machine.sender().clone()).unwrap_err();
        assert!(error.to_string().contains("another debugger"), "{error}");
        drop(vm);
        let told = machine.machine.wait_until("the guest runs", |_| true);
        let more = told.told.len() + 10;
        machine
            .machine
            .wait_until("the guest runs on", |seen| seen.told.len() > more);
        // Over a socket the VMM hears of the end of the session a little later.
        let mut next = Debugger::attach(machine.sender().clone()).unwrap();
        assert_eq!(next.read_bytes(ENTRY, 2).unwrap(), [0xff, 0xc3]);
        drop(breakpoint);
        next.step().unwrap();
    });
}

#[test]
fn the_end_of_the_guest_is_a_stop_and_then_an_error() {
    both_ways(&[0xe6, PORT_OFF, 0xeb, 0xfe], |mut vm, _| {
        vm.resume().unwrap();
        vm.wait_for(StopKind::PowerOff, LONG).unwrap();
        vm.resume().unwrap();
        let error = vm.wait(LONG).unwrap_err();
        assert!(error.to_string().contains("switched itself off"), "{error}");
    });
}

#[test]
fn the_async_debugger_runs_on_an_executor_that_this_library_does_not_know() {
    let Some(vmm) = Vmm::start(Setup::new(Mode::Long, &counting())) else {
        return;
    };
    futures::executor::block_on(async {
        let mut options = Options::default();
        options.if_lost = DetachAction::Stay;
        let address = vmm.address();
        let mut vm = debug_client::Debugger::connect_with(&address, options)
            .await
            .unwrap();
        let breakpoint = vm.break_at(nth(2)).await.unwrap();
        vm.run_until(&breakpoint, LONG).await.unwrap();
        drop(breakpoint);
        vm.step_n(4).await.unwrap();
        assert_eq!(vm.vp(0).reg("rip").await.unwrap(), nth(2));
        vm.resume().unwrap();
        let error = vm.wait(SHORT).await.unwrap_err();
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
        let rbx = vm.vp(0).reg("rbx").await.unwrap();
        // Dropped as its options say: the guest stays stopped.
        drop(vm);
        let vm = loop {
            // The VMM hears of the end of the session a little later.
            match debug_client::Debugger::connect(&address).await {
                Ok(vm) => break vm,
                Err(Error::Refused {
                    source: DebugError::AlreadyAttached,
                    ..
                }) => {}
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(vm.vp(0).reg("rbx").await.unwrap(), rbx);
    });
}

/// A task of an executor with several threads may own a debugger and its futures.
#[test]
fn a_debugger_and_its_futures_may_change_threads() {
    fn may<T: Send>(_: &T) {}
    async fn program(mut vm: debug_client::Debugger) -> Result<(), Error> {
        let breakpoint = vm.break_at("f").await?;
        vm.run_until(&breakpoint, LONG).await?;
        vm.current().arg(0).await?;
        vm.read_struct("struct f", 0).await?;
        vm.detach().await
    }
    let connected = async { program(debug_client::Debugger::connect("").await?).await };
    may(&connected);
}

#[test]
fn an_address_without_a_vmm_says_what_to_do() {
    for (address, hint) in [
        ("127.0.0.1:1234", "unix:PATH"),
        ("unix:", "unix:PATH"),
        ("unix:/nonexistent/rpc", "--rpc unix:/nonexistent/rpc"),
    ] {
        let error = Debugger::connect(address).unwrap_err().to_string();
        assert!(error.contains(hint), "{error}");
    }
}

/// Serves one client with a function.
fn server(path: &Path, serve: impl FnOnce(std::os::unix::net::UnixStream) + Send + 'static) {
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || serve(listener.accept().unwrap().0));
}

#[test]
fn a_server_of_another_protocol_and_a_vmm_that_closes_are_told_apart_from_a_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http");
    server(&path, |mut socket| {
        let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        let _ = socket.read_to_end(&mut Vec::new());
    });
    let error = Debugger::connect(&format!("unix:{}", path.display())).unwrap_err();
    assert!(
        matches!(&error, Error::Gone { why: Some(_), .. }),
        "{error}"
    );

    let path = folder.path().join("full");
    server(&path, drop);
    let error = Debugger::connect(&format!("unix:{}", path.display())).unwrap_err();
    assert!(matches!(&error, Error::Gone { .. }), "{error}");
    assert!(error.to_string().contains("8 programs"), "{error}");
}

#[test]
fn a_vmm_that_does_not_answer_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("silent");
    server(&path, |mut socket| {
        let _ = socket.read_to_end(&mut Vec::new());
    });
    let mut options = Options::default();
    options.request_limit = SHORT;
    let address = format!("unix:{}", path.display());
    let error = Debugger::connect_with(&address, options).unwrap_err();
    assert!(matches!(error, Error::NoAnswer { .. }), "{error}");
}
