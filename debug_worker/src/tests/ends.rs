//! However a session ends, and in whatever state: the guest is detached exactly once (I6), and the next client is
//! served.

use super::bed::Bed;
use super::bed::Client;
use super::bed::hex;
use crate::SessionSettings;
use std::time::Duration;
use vmm_core_defs::debug_rpc::DetachAction;
use vmm_core_defs::session::DebugSession;
use vmm_core_defs::stop::CrashCause;
use vmm_core_defs::stop::GuestEnd;

/// The action that the VM gets for a lost client: a guest that no client has resumed stays held (I6).
const LOST: DetachAction = DetachAction::ResumeUnlessHeld;

/// The state in which the client goes.
#[derive(Debug, Clone, Copy)]
enum When {
    Stopped,
    Running,
    MidPacket,
    MidPacketRunning,
    /// An operation is in progress.
    Waiting,
}

const EVERY_STATE: [When; 5] = [
    When::Stopped,
    When::Running,
    When::MidPacket,
    When::MidPacketRunning,
    When::Waiting,
];

fn client_in_state(bed: &Bed, when: When) -> Client {
    let mut client = match when {
        When::Stopped | When::MidPacket | When::Waiting => bed.attach(),
        When::Running | When::MidPacketRunning => bed.attach_and_continue(),
    };
    match when {
        When::MidPacket | When::MidPacketRunning => client.send_raw(b"$m1000,"),
        When::Waiting => {
            bed.vm.mute("get vp state");
            client.send("g");
            bed.vm.wait_asked("get vp state");
        }
        When::Stopped | When::Running => {}
    }
    client
}

/// The client goes, the guest is detached once, and another client is served.
fn ends_by(how: impl Fn(Client) -> Option<Client>) {
    for when in EVERY_STATE {
        for action in [DetachAction::Resume, DetachAction::Stay] {
            let rpc_deadline = Duration::from_millis(200);
            let bed = Bed::with(SessionSettings {
                on_disconnect: action,
                rpc_deadline,
                ..Default::default()
            });
            let rest = how(client_in_state(&bed, when));
            let lost = action.unless_held();
            assert_eq!(bed.vm.wait_detached(), [lost], "{when:?}");
            bed.vm.mute("");
            let mut next = bed.attach();
            assert!(!next.ask("g").starts_with('E'), "{when:?}");
            assert_eq!(
                bed.vm.wait_detached().len(),
                1,
                "{when:?}: no second detach"
            );
            drop(rest);
        }
    }
}

#[test]
fn by_a_closed_connection() {
    ends_by(|client| {
        drop(client);
        None
    });
}

#[test]
fn by_a_reset_connection() {
    ends_by(|client| {
        client.reset();
        None
    });
}

#[test]
fn by_a_half_closed_connection() {
    ends_by(|mut client| {
        client.half_close();
        Some(client)
    });
}

#[test]
fn by_kill() {
    use DetachAction::*;
    // `k` does not choose what happens to a crashed guest.
    for (when, policy, action) in [
        (When::Stopped, Stay, Stay),
        (When::Waiting, Resume, ResumeUnlessCrashed),
        (When::Stopped, Kill, Kill),
    ] {
        let settings = SessionSettings {
            on_disconnect: policy,
            rpc_deadline: Duration::from_millis(200),
            ..Default::default()
        };
        let bed = Bed::with(settings);
        let mut client = client_in_state(&bed, when);
        client.send("k");
        // An explicit request of the client also applies to a held guest.
        assert_eq!(bed.vm.wait_detached(), [action], "{when:?}");
        while client.try_reply().is_some() {}
        let _next = bed.attach();
        assert_eq!(bed.vm.wait_detached().len(), 1, "{when:?}");
    }
}

#[test]
fn by_detach_which_lets_the_guest_run_whatever_the_setting() {
    let bed = Bed::with(SessionSettings {
        on_disconnect: DetachAction::Stay,
        ..Default::default()
    });
    let mut client = bed.attach();
    assert_eq!(client.ask("D"), "OK");
    client.expect_closed();
    assert_eq!(bed.vm.wait_detached(), [DetachAction::Resume]);
}

#[test]
fn by_stopping_the_worker() {
    for when in EVERY_STATE {
        let mut bed = Bed::with(SessionSettings {
            rpc_deadline: Duration::from_millis(200),
            ..Default::default()
        });
        let mut client = client_in_state(&bed, when);
        bed.stop();
        // The server has ended, so it has awaited the answer to its detach.
        assert_eq!(bed.vm.asked("detach"), 1, "{when:?}");
        while client.try_reply().is_some() {}
    }
}

#[test]
fn by_dropping_the_server() {
    for when in EVERY_STATE {
        let mut bed = Bed::new();
        let mut client = client_in_state(&bed, when);
        bed.drop_server();
        assert_eq!(bed.vm.wait_detached(), [LOST], "{when:?}");
        while client.try_reply().is_some() {}
    }
}

#[test]
fn by_stopping_or_dropping_while_it_attaches() {
    let attaching = || {
        let bed = Bed::new();
        bed.vm.mute("attach");
        let mut client = bed.connect();
        client.send("?");
        bed.vm.wait_asked("attach");
        (bed, client)
    };
    let (mut bed, _client) = attaching();
    bed.stop();
    bed.vm.answer_muted();
    assert_eq!(bed.vm.wait_detached(), [LOST]);

    let (mut bed, _client) = attaching();
    bed.drop_server();
    bed.vm.answer_muted();
    assert_eq!(bed.vm.wait_detached(), [LOST]);

    let (bed, mut client) = attaching();
    bed.evictor.evict();
    client.expect_closed();
    bed.vm.answer_muted();
    assert_eq!(bed.vm.wait_detached(), [LOST]);
}

#[test]
fn a_client_that_is_gone_before_the_guest_is_attached_leaves_nothing() {
    let bed = Bed::new();
    bed.vm.mute("attach");
    let mut client = bed.connect();
    client.send("?");
    bed.vm.wait_asked("attach");
    drop(client);
    bed.vm.answer_muted();
    assert_eq!(bed.vm.wait_detached(), [LOST]);
    bed.attach();
}

/// A client that closes its direction may read on, but a dump would keep the guest stopped for minutes.
#[test]
fn by_a_client_that_closes_before_or_during_its_dump_which_leaves_no_file() {
    for before in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let bed = Bed::with(SessionSettings {
            dump_folder: Some(folder.path().to_owned()),
            // The dump does not end by itself.
            rpc_deadline: Duration::from_secs(3600),
            ..Default::default()
        });
        let mut client = bed.attach();
        bed.vm.mute("read memory");
        let dump = format!("qRcmd,{}", hex("dump core"));
        if before {
            // The session reads the request and the end of the stream while another request is in progress.
            client.send("m0,1");
            bed.vm.wait_asked("read memory");
            client.send(&dump);
            client.half_close();
            bed.settle();
            bed.vm.answer_muted();
        } else {
            client.send(&dump);
            bed.vm.wait_asked("read memory");
            assert!(folder.path().join("core").exists());
            // A person sees that something goes on.
            let line = format!("O{}", hex("0 of 1 MiB written\n"));
            assert_eq!(client.reply(), line);
            client.half_close();
        }
        assert_eq!(bed.vm.wait_detached(), [LOST]);
        while client.try_reply().is_some() {}
        assert_eq!(folder.path().read_dir().unwrap().count(), 0, "{before}");
    }
}

#[test]
fn an_idle_server_stops() {
    let mut bed = Bed::new();
    bed.stop();
    assert_eq!(bed.vm.asked("attach"), 0);
    assert_eq!(bed.vm.asked("detach"), 0, "nothing to detach from");
}

#[test]
fn a_refused_attach_is_not_followed_by_a_detach() {
    let (requests, vm_requests) = mesh::channel();
    let (thread, driver) = pal_async::DefaultPool::spawn_on_thread("another debugger");
    let vm = super::fake_vm::FakeVm::new();
    let task = pal_async::task::Spawn::spawn(&driver, "vm", vm.clone().run(vm_requests));
    // A program that uses the channel itself is the guest's debugger.
    let attach = DebugSession::attach(&requests, DetachAction::Resume);
    let _session = pal_async::local::block_on(attach).unwrap();
    let listener =
        crate::DebugListener::bind(&"127.0.0.1:0".parse().unwrap(), Default::default()).unwrap();
    let crate::ListenAddress::Tcp(address) = listener.local_addr() else {
        unreachable!("bound so")
    };
    let (owner, stop) = mesh::channel();
    let parameters = crate::DebuggerParameters::new(listener, requests);
    let server = pal_async::task::Spawn::spawn(
        &driver,
        "server",
        crate::serve(driver.clone(), parameters, stop),
    );
    let mut client = Client::new(std::net::TcpStream::connect(address).unwrap());
    let refusal = client.ask("?");
    assert!(
        refusal.starts_with("E.the debugger cannot attach: another debugger is attached"),
        "{refusal}"
    );
    client.expect_closed();
    owner.send(mesh::worker::WorkerRpc::Stop);
    pal_async::local::block_on(server).unwrap();
    assert_eq!(vm.asked("detach"), 0);
    drop((task, driver));
    thread.join().unwrap();
}

#[test]
fn the_next_client_is_served_however_soon_it_comes() {
    let bed = Bed::new();
    for _ in 0..100 {
        let mut client = bed.attach();
        assert_eq!(client.ask("D"), "OK");
        // The two events are independent: the new connection may arrive before the old one is closed.
        let mut next = bed.connect();
        next.start();
        drop((client, next));
        let mut after_a_crash = bed.connect();
        after_a_crash.start();
        assert_eq!(after_a_crash.ask("D"), "OK");
    }
}

/// The client gets a packet that says how the guest ended. Clients report a connection that ends without one as a crash
/// of the server.
#[test]
fn by_the_end_of_the_guest_which_the_client_is_told_of() {
    let vp = vmm_core_defs::addr::VpIndex::new(1);
    let cause = CrashCause::Internal { suberror: 1 };
    let ends = [
        (GuestEnd::PowerOff, "W00", ""),
        (GuestEnd::Reset, "W03", "it asked for a reset"),
        (
            GuestEnd::TripleFault { vp, shown: false },
            "X0b",
            "VP 1 met a triple fault",
        ),
        (
            GuestEnd::Crashed {
                vp,
                cause,
                shown: true,
            },
            "X06",
            "cannot go on",
        ),
        (GuestEnd::Killed, "X09", "its debugger ended it"),
        (GuestEnd::Stopped, "X0f", "the VMM was told to end"),
        (GuestEnd::Released, "W00", "the VMM has ended the guest"),
    ];
    for (how, wanted, words) in ends {
        for told_to_stop in [false, true] {
            for at_once in [false, true] {
                let mut bed = Bed::new();
                let mut client = match at_once {
                    true => {
                        let mut client = bed.attach();
                        bed.vm.end_at_next_resume(how);
                        client.send("vCont;c");
                        client
                    }
                    false => {
                        let client = bed.attach_and_continue();
                        bed.vm.end(how);
                        bed.answers_arrive();
                        client
                    }
                };
                if told_to_stop && !at_once {
                    // The VMM stops the server when the guest has ended.
                    bed.stop();
                }
                let mut console = String::new();
                let end = loop {
                    let reply = client.reply();
                    match reply.strip_prefix('O') {
                        Some(text) => console.push_str(&super::bed::unhex(text)),
                        None => break reply,
                    }
                };
                assert_eq!(end, wanted, "{how:?} {told_to_stop} {at_once}");
                assert!(console.contains(words), "{console}");
                client.expect_closed();
            }
        }
    }
}
