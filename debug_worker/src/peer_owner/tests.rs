//! Tests which users are admitted, and looks up real sockets by each method.

use super::*;
use std::net::TcpListener;
use std::net::TcpStream;

const OURS: u32 = 1000;
const OTHERS: u32 = 1001;

fn users() -> Users {
    Users {
        ours: OURS,
        allowed: Vec::new(),
        overflow_uid: None,
    }
}

fn held(uid: u32) -> Option<PeerSocket> {
    Some(PeerSocket { uid, inode: 1 })
}

#[test]
fn our_user_and_root_are_let_in_and_others_where_they_are_allowed() {
    let mut users = users();
    let ask = |users: &Users, uid| users.admit(peer_of(Ok(held(uid)), || true));
    assert_eq!(ask(&users, OURS), Ok(()));
    assert_eq!(ask(&users, 0), Ok(()));
    let refused = PeerRefused::OtherUser {
        theirs: OTHERS,
        ours: OURS,
    };
    assert_eq!(ask(&users, OTHERS), Err(refused));
    users.allow(OTHERS);
    assert_eq!(ask(&users, OTHERS), Ok(()));
    assert!(refused.to_string().contains("unix:PATH"));
}

/// For a socket that no program holds, the kernel reports the user id 0. This does not mean root.
#[test]
fn a_socket_that_is_closed_already_is_nobodys() {
    let orphan = Some(PeerSocket { uid: 0, inode: 0 });
    let gone = Err(PeerRefused::Gone);
    assert_eq!(users().admit(peer_of(Ok(orphan), || true)), gone);
    assert_eq!(users().admit(peer_of(Ok(orphan), || false)), gone);
    assert_eq!(users().admit(peer_of(Ok(None), || true)), gone);
    assert_eq!(
        users().admit(peer_of(Ok(None), || false)),
        Ok(()),
        "elsewhere"
    );
}

#[test]
fn where_nothing_can_be_looked_up_only_other_machines_get_in() {
    let failed = || Err(io::ErrorKind::PermissionDenied.into());
    let unknown = Err(PeerRefused::Unknown { ours: OURS });
    assert_eq!(users().admit(peer_of(failed(), || true)), unknown);
    assert_eq!(users().admit(peer_of(failed(), || false)), Ok(()));
}

#[test]
fn a_number_that_stands_for_several_users_is_none_of_them() {
    let mut users = users();
    users.ours = 65534;
    users.allow(65534);
    assert_eq!(users.admit(Peer::User(65534)), Ok(()));
    users.overflow_uid = Some(65534);
    let unknown = Err(PeerRefused::Unknown { ours: 65534 });
    assert_eq!(users.admit(Peer::User(65534)), unknown);
}

#[test]
fn a_user_is_known_where_the_namespace_maps_it() {
    let initial = "         0          0 4294967295\n";
    assert!(is_mapped(initial, 65534) && is_mapped(initial, 0));
    let container = "0 1000 1\n1 100000 65533\n";
    assert!(is_mapped(container, 65533) && !is_mapped(container, 65534));
    assert!(!is_mapped("", 0) && !is_mapped("nonsense\n0 1\n", 0));
    assert_eq!(several_users("65534\n", initial), None);
    assert_eq!(several_users("65534\n", container), Some(65534));
    assert_eq!(several_users("65534\n", ""), Some(65534));
}

#[test]
fn addresses_of_this_machine_are_told_from_others() {
    let peer = |address: &str| Endpoints {
        peer: address.parse().unwrap(),
        ours: "10.1.2.3:4".parse().unwrap(),
    };
    assert!(is_on_this_machine(peer("127.0.0.2:5")));
    assert!(is_on_this_machine(peer("[::1]:5")));
    assert!(is_on_this_machine(peer("10.1.2.3:5")));
    // TEST-NET-1 (RFC 5737): an address without a machine.
    assert!(!is_own_address("192.0.2.77:5".parse().unwrap()).unwrap_or(false));
    match is_own_address("192.0.2.77:5".parse().unwrap()) {
        Ok(_) => assert!(!is_on_this_machine(peer("192.0.2.77:5"))),
        Err(error) => println!("SKIP: no way leads to other machines: {error}"),
    }
    assert!(is_own_address("127.0.0.1:5".parse().unwrap()).unwrap());
}

fn connected(listener: &TcpListener, to: SocketAddr) -> (TcpStream, TcpStream, Endpoints) {
    let client = TcpStream::connect(to).unwrap();
    let (server, peer) = listener.accept().unwrap();
    let endpoints = Endpoints {
        peer: canonical(peer),
        ours: canonical(server.local_addr().unwrap()),
    };
    (client, server, endpoints)
}

fn tables() -> Lookup {
    Lookup::ProcNet(ProcNet::open())
}

/// The kernel's answers, if it answers for this socket.
fn kernel(listening: SocketAddr) -> Option<Lookup> {
    let kernel = SockDiag::open().ok();
    let usable = kernel.filter(|kernel| kernel.is_usable(listening));
    if usable.is_none() {
        println!("SKIP: sock_diag does not work here");
    }
    usable.map(Lookup::SockDiag)
}

/// Each method of the lookup, with real sockets of every address family.
#[test]
fn the_owner_of_a_real_socket_is_found_until_it_is_closed() {
    let listeners = ["127.0.0.1:0", "[::1]:0", "[::]:0"];
    for address in listeners {
        let listener = match TcpListener::bind(address) {
            Ok(listener) => listener,
            Err(error) => {
                println!("SKIP: cannot listen on {address}: {error}");
                continue;
            }
        };
        let listening = listener.local_addr().unwrap();
        let ways: Vec<_> = [tables()].into_iter().chain(kernel(listening)).collect();
        let mut targets = vec![listening];
        if address == "[::]:0" {
            // A client of IPv4 that the server sees as an IPv4-mapped IPv6 address, and a client that uses the mapped
            // address itself.
            targets = vec![
                ([127, 0, 0, 1], listening.port()).into(),
                format!("[::ffff:127.0.0.1]:{}", listening.port())
                    .parse()
                    .unwrap(),
            ];
        }
        for target in targets {
            for way in &ways {
                let find = |endpoints| way.find(endpoints);
                let what = format!("{way:?}, {target}");
                let (client, _server, endpoints) = connected(&listener, target);
                let found = find(endpoints).unwrap().expect(&what);
                assert_eq!(found.uid, rustix::process::geteuid().as_raw(), "{what}");
                assert_ne!(found.inode, 0, "{what}");
                drop(client);
                let gone = find(endpoints).unwrap();
                assert!(gone.is_none_or(|gone| gone.inode == 0), "{what}: {gone:?}");
            }
        }
    }
}

/// Both methods; also when the server runs as root, whose programs are always admitted.
#[test]
fn a_real_client_is_let_in_or_sent_away_by_its_owner() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let listening = listener.local_addr().unwrap();
    for way in [Some(tables()), kernel(listening)].into_iter().flatten() {
        let what = format!("{way:?}");
        let mut owner = PeerOwner {
            users: users(),
            lookup: way,
        };
        let (client, _server, endpoints) = connected(&listener, listening);
        let ours = rustix::process::geteuid().as_raw();
        let mut check = |overflow_uid| {
            owner.users = Users {
                ours,
                allowed: Vec::new(),
                overflow_uid,
            };
            owner.check(endpoints)
        };
        assert_eq!(check(None), Ok(()), "{what}");
        let unknown = Err(PeerRefused::Unknown { ours });
        assert_eq!(check(Some(ours)), unknown, "{what}");
        drop(client);
        assert_eq!(check(None), Err(PeerRefused::Gone), "{what}");
    }
}

/// A program may listen on the port of a client that is gone.
#[test]
fn a_listening_socket_is_no_client() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoints = Endpoints {
        peer: other.local_addr().unwrap(),
        ours: listener.local_addr().unwrap(),
    };
    for way in [Some(tables()), kernel(endpoints.ours)]
        .into_iter()
        .flatten()
    {
        assert_eq!(way.find(endpoints).unwrap(), None, "{way:?}");
    }
}

#[test]
fn where_there_is_no_socket_at_all_none_is_found() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let listening = listener.local_addr().unwrap();
    let ways = [Some(tables()), kernel(listening)];
    drop(listener);
    let endpoints = Endpoints {
        peer: listening,
        ours: listening,
    };
    for way in ways.into_iter().flatten() {
        assert_eq!(way.find(endpoints).unwrap(), None, "{way:?}");
    }
}
