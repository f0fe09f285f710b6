//! Programs that try to leave the sandbox. Each is this test program again, which runs one test.

use super::*;
use crate::peer_owner::Endpoints;
use crate::peer_owner::user_by_tables;
use std::fs::File;
use std::net::TcpListener;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;

/// Names the way out that the process tries.
const WAY_OUT: &str = "TRAPGATE_TEST_WAY_OUT";

/// Its own end, if the sandbox does not stop it.
const STAYED: i32 = 17;
const REFUSED: i32 = 18;

/// Runs [`a_process_in_the_sandbox`] in a process of its own.
fn tried(way_out: &str) -> ExitStatus {
    let program = std::env::current_exe().expect("a process knows its program");
    Command::new(program)
        .args([
            "--exact",
            "process::sandbox::tests::a_process_in_the_sandbox",
        ])
        .args(["--nocapture", "--test-threads", "1"])
        .env(WAY_OUT, way_out)
        .stdout(Stdio::null())
        .status()
        .expect("the test program runs")
}

/// No test by itself: the process of the tests below.
#[test]
fn a_process_in_the_sandbox() {
    let Ok(way_out) = std::env::var(WAY_OUT) else {
        return;
    };
    let dump_folder = way_out.strip_prefix("folder ").map(PathBuf::from);
    let profile = SandboxProfile {
        network: way_out == "udp",
        dump_folder: dump_folder.clone(),
    };
    if way_out == "landlock" {
        profile.landlock().expect("landlock");
        let refused = File::open("/etc/passwd").is_err() && UdpSocket::bind("127.0.0.1:0").is_ok();
        std::process::exit(if refused { REFUSED } else { STAYED });
    }
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let ours = listener.local_addr().expect("an address");
    let client = TcpStream::connect(ours).expect("a connection");
    let peer = client.local_addr().expect("an address");
    let user_of = user_by_tables().expect("the tables");
    let own_user = rustix::process::geteuid().as_raw();
    let sandbox = profile.finalize();
    assert!(sandbox.active.contains(&Part::Seccomp), "{sandbox}");
    if way_out == "tables" {
        let found = user_of(Endpoints { peer, ours });
        std::process::exit(if found == Some(own_user) {
            STAYED
        } else {
            REFUSED
        });
    }
    if let Some(folder) = dump_folder {
        let mut options = File::options();
        let made = options
            .write(true)
            .create_new(true)
            .open(folder.join("core"));
        let read = File::open("/etc/passwd").is_ok();
        std::process::exit(if made.is_ok() && !read {
            REFUSED
        } else {
            STAYED
        });
    }
    match way_out.as_str() {
        "nothing" => {}
        "open" => drop(File::open("/etc/passwd")),
        "tcp" => drop(TcpStream::connect("127.0.0.1:9")),
        "udp" => {
            let bound = UdpSocket::bind("127.0.0.1:0").is_ok();
            std::process::exit(if bound { REFUSED } else { STAYED });
        }
        "socket" => drop(UdpSocket::bind("127.0.0.1:0")),
        "exec" => drop(Command::new("/bin/true").status()),
        "thread" => drop(std::thread::Builder::new().spawn(|| {})),
        "signal" => {
            let parent = rustix::process::getppid();
            let _ = parent.map(rustix::process::test_kill_process);
        }
        "fcntl" => drop(rustix::io::fcntl_setfd(
            &client,
            rustix::io::FdFlags::empty(),
        )),
        "limits" => drop(set_limit(Resource::Nofile, DESCRIPTORS)),
        other => panic!("{other}"),
    }
    std::process::exit(STAYED);
}

#[test]
fn each_way_out_kills_the_process_and_only_it() {
    assert_eq!(tried("nothing").code(), Some(STAYED), "the sandbox alone");
    let ended = tried("tables");
    assert_eq!(ended.code(), Some(STAYED), "the user of a client: {ended}");
    for way_out in [
        "open", "tcp", "socket", "exec", "thread", "signal", "limits", "fcntl",
    ] {
        let ended = tried(way_out);
        assert_eq!(ended.signal(), Some(libc::SIGSYS), "{way_out}: {ended}");
    }
    assert_eq!(tried("udp").code(), Some(REFUSED), "for the network");
}

#[test]
fn landlock_alone_refuses_files_but_new_ones_in_the_folder() {
    if SandboxProfile::default().is_without_landlock() {
        println!("SKIP: this kernel has no landlock");
        return;
    }
    assert_eq!(tried("landlock").code(), Some(REFUSED));
    let folder = tempfile::tempdir().expect("a folder");
    let ended = tried(&format!("folder {}", folder.path().display()));
    assert_eq!(ended.code(), Some(REFUSED), "{ended}");
    assert!(folder.path().join("core").exists());
}

/// Capabilities belong to a thread, and these threads end.
#[test]
fn no_capability_is_left_but_the_one_for_the_folder() {
    let left = |profile: SandboxProfile| {
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                profile.no_capabilities().expect("rights can be given up");
                capabilities(None).expect("the calling thread exists")
            });
            thread.join().expect("no panic")
        })
    };
    let had = capabilities(None).expect("the calling thread exists");
    let none = left(SandboxProfile::default());
    assert!(none.permitted.is_empty() && none.effective.is_empty());
    let folder = SandboxProfile {
        network: false,
        dump_folder: Some("/".into()),
    };
    let kept = left(folder).permitted;
    assert_eq!(kept, had.permitted & CapabilitySet::DAC_OVERRIDE);
}

impl SandboxProfile {
    /// Tried in a thread, which ends.
    fn is_without_landlock(&self) -> bool {
        std::thread::scope(|scope| {
            let tried = scope.spawn(|| self.landlock().is_err());
            tried.join().expect("no panic")
        })
    }
}

#[test]
fn what_is_missing_is_named_with_the_reason() {
    let mut sandbox = Sandbox::default();
    sandbox.note(Part::Seccomp, Ok(()));
    assert!(sandbox.is_complete());
    sandbox.note(Part::Landlock, Err(anyhow::anyhow!("old kernel")));
    assert_eq!(
        sandbox.to_string(),
        "a process of its own, seccomp; missing: landlock (old kernel)"
    );
    assert!(!sandbox.is_complete());
}
