//! Records a real GDB session: the demo guest under Trapgate, and a GDB that gets commands.

use crate::process;
use anyhow::Context as _;
use std::fmt::Write as _;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read as _;
use std::io::Write as _;
use std::path::Path;
use std::process::Child;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::time::Instant;

const PROMPT: &[u8] = b"(gdb) ";
const COLUMNS: usize = 118;
/// The line with which the server announces its address begins with this text.
const LISTENING: &str = "gdb: listening on ";

/// The address in the picture. The port of the real address changes with each recording.
const SHOWN_ADDRESS: &str = "127.0.0.1:1234";

/// The commands that are typed into GDB.
const COMMANDS: &[&str] = &[
    "break do_round",
    "continue",
    "bt",
    "info threads",
    "p cpus[1]",
    "stepi",
    "delete 1",
    "hbreak is_prime",
    "continue",
    "monitor translate 0x10073f",
    "detach",
];

/// A process that is killed when this is dropped, so that a recording that fails leaves none behind.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots the guest, types the commands, and writes the output of GDB as an asciicast.
pub(super) fn record(to: &Path) -> anyhow::Result<()> {
    process::run(process::cargo().args(["build", "--package", "trapgate"]))?;
    let program = process::target_dir().join("debug/trapgate");
    let mut server = Started(
        Command::new(&program)
            .args(["run", "--gdb", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?,
    );
    let stdout = server.0.stdout.take().context("no standard output")?;
    let mut said = BufReader::new(stdout).lines();
    let address = loop {
        let line = said.next().context("trapgate ended")??;
        if let Some(address) = line.strip_prefix(LISTENING) {
            break address.to_owned();
        }
    };
    let cast = gdb(&address)?;
    std::fs::write(to, cast).with_context(|| format!("cannot write {}", to.display()))
}

fn gdb(address: &str) -> anyhow::Result<String> {
    let mut gdb = Started(
        // The answers of monitor commands come on standard error.
        Command::new("sh")
            .args(["-c", "exec gdb \"$@\" 2>&1", "gdb"])
            .args(["-q", "-nx", "-iex", "set pagination off"])
            .args([
                "-iex",
                "set confirm off",
                "-iex",
                "set filename-display basename",
            ])
            .args(["-iex", &format!("set width {COLUMNS}")])
            .args(["-iex", "set style enabled off"])
            .arg(demo_guest::ELF_PATH)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start gdb")?,
    );
    let mut input = gdb.0.stdin.take().context("no standard input")?;
    let mut output = gdb.0.stdout.take().context("no standard output")?;
    let begun = Instant::now();
    let mut cast = serde_json::json!({
        "version": 2, "width": COLUMNS, "height": 40,
        "title": "gdb, attached to a guest that Trapgate runs",
    })
    .to_string()
        + "\n";
    // Before its first prompt GDB names the files that it reads. This text is not part of the picture.
    until_prompt(&mut output)?;
    let mut type_line = |typed: &str, shown: &str| -> anyhow::Result<()> {
        let mut event = |text: &str| {
            let event = serde_json::json!([begun.elapsed().as_secs_f64(), "o", text]);
            writeln!(cast, "{event}")
        };
        event(&format!("(gdb) {shown}\r\n"))?;
        writeln!(input, "{typed}")?;
        let answer = until_prompt(&mut output)?
            .replace(address, SHOWN_ADDRESS)
            .replace(demo_guest::ELF_PATH, "demo-guest.elf");
        // GDB prints an empty line before a hit. The picture omits the line.
        let lines = answer.lines().filter(|line| !line.trim().is_empty());
        let text: String = lines.map(|line| format!("{line}\r\n")).collect();
        event(&text)?;
        Ok(())
    };
    type_line(
        &format!("target remote {address}"),
        &format!("target remote {SHOWN_ADDRESS}"),
    )?;
    for command in COMMANDS {
        type_line(command, command)?;
    }
    Ok(cast)
}

/// The output of GDB before its next prompt.
fn until_prompt(output: &mut ChildStdout) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(PROMPT) {
        let mut byte = [0];
        let read = output.read(&mut byte)?;
        anyhow::ensure!(read == 1, "gdb ended: {}", String::from_utf8_lossy(&bytes));
        bytes.push(byte[0]);
    }
    bytes.truncate(bytes.len() - PROMPT.len());
    Ok(String::from_utf8(bytes)?)
}
