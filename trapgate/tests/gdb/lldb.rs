use crate::running::Running;
use crate::running::kvm_here;
use std::process::Command;
use std::process::Stdio;

#[test]
fn lldb_attaches_reads_steps_and_detaches() {
    if !kvm_here() {
        return;
    }
    if !Command::new("lldb")
        .arg("--version")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
    {
        println!("SKIP: no lldb; install it with `apt-get install lldb`");
        return;
    }
    let mut guest = Running::start(&["--gdb", "127.0.0.1:0"]);
    let connect = format!("gdb-remote {}", guest.address());
    let mut lldb = Command::new("lldb");
    lldb.args(["--no-lldbinit", "--batch", "--no-use-colors"])
        .stdin(Stdio::null());
    for command in [
        connect.as_str(),
        "thread list",
        "register read rip cr3 cs",
        "memory read --size 1 --count 2 --format x 0x100000",
        "thread step-inst",
        "register read rip",
        "memory write 0x900000 0x5a",
        "memory read --size 1 --count 1 --format x 0x900000",
        "detach",
    ] {
        lldb.args(["-o", command]);
    }
    let text = Running::spawn(lldb).finish().output;
    crate::gdb_client::in_order(
        &text,
        &[
            "thread #1",
            "thread #2",
            "rip = 0x0000000000100000",
            "0x00100000: 0xfa 0xfc",
            "rip = 0x0000000000100001",
            "0x00900000: 0x5a",
            "detached",
        ],
    );
    guest.wait_for("demo guest: boot 1");
}
