//! The console blocks of the pages show real output. Each block has a row in [`ROWS`].

use crate::blocks::Block;
use crate::blocks::blocks;
use crate::checks::Check;
use crate::checks::ROWS;
use crate::checks::Row;
use std::env;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;
use test_machine::amount::is_nested;
use test_machine::any_vmm;
use test_machine::gdb_client::guest;
use test_machine::gdb_client::start_gdb;
use test_machine::running::Running;
use test_machine::running::kvm_here;

/// The text that GDB prints if a command failed.
const GDB_COMPLAINTS: [&str; 6] = [
    "Undefined",
    "No symbol",
    "Error",
    "error",
    "syntax",
    "Cannot",
];

#[test]
fn every_console_block_is_the_text_of_a_row() {
    let blocks = blocks("console");
    for block in &blocks {
        row_of(block);
    }
    for row in &ROWS {
        let there = blocks.iter().any(|block| is_of(row, block));
        assert!(
            there,
            "{}: the block of this row is gone: remove the row from reference_vmm/trapgate/tests/guide/checks.rs, or change its text to the block's:\n{}",
            row.page, row.text
        );
    }
}

#[test]
fn what_the_console_blocks_type_and_show_is_so() {
    if is_nested() {
        println!("SKIP: the pages show sessions on a host's own KVM; they are compared there");
        return;
    }
    for block in blocks("console") {
        match row_of(&block).check {
            Check::Options => options(&block),
            Check::Trapgate(parts) => trapgate(&block, parts),
            Check::Gdb {
                guest,
                before,
                shown,
                printed,
            } => {
                let Some(text) = gdb(&block, guest, before) else {
                    continue;
                };
                is_shown(&block, shown);
                is_printed(&block, shown, &text);
                is_printed(&block, printed, &text);
            }
            Check::Lldb(parts) => lldb(&block, parts),
        }
    }
}

fn is_of(row: &Row, block: &Block) -> bool {
    row.page == block.page && row.text == block.text
}

#[track_caller]
fn row_of(block: &Block) -> &'static Row {
    if let Some(row) = ROWS.iter().find(|row| is_of(row, block)) {
        return row;
    }
    let same_lines = |row: &&Row| {
        let lines = row.text.lines().zip(block.text.lines());
        lines.take_while(|(row, block)| row == block).count()
    };
    let nearest = ROWS.iter().filter(|row| row.page == block.page);
    let same = nearest.map(|row| same_lines(&row)).max().unwrap_or(0);
    panic!(
        "{}: no row of reference_vmm/trapgate/tests/guide/checks.rs has this block's text. A new block: add a row that says how it is checked. A changed block: \
         change the row's text, and the parts of the output that it compares. The first line that differs from the nearest row is `{}`. The block:\n{}",
        block.page,
        block.text.lines().nth(same).unwrap_or("(the end)"),
        block.text
    );
}

/// The text with each hexadecimal number replaced, because addresses depend on the C compiler that has built the guest.
fn shape(text: &str) -> String {
    let mut pieces = text.split("0x");
    let mut shape = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        shape.push_str("0x_");
        shape.push_str(piece.trim_start_matches(|c: char| c.is_ascii_hexdigit()));
    }
    shape
}

#[track_caller]
fn is_shown(block: &Block, parts: &[&str]) {
    for part in parts {
        let shown = shape(&block.text).contains(&shape(part));
        assert!(shown, "{}: `{part}` is not in the block", block.page);
    }
}

#[track_caller]
fn is_printed(block: &Block, parts: &[&str], printed: &str) {
    for part in parts {
        assert!(
            shape(printed).contains(&shape(part)),
            "{}: `{part}` is not in the output, so the block or its row in reference_vmm/trapgate/tests/guide/checks.rs is out of date:\n{printed}",
            block.page
        );
    }
}

#[track_caller]
fn no_complaint(block: &Block, complaints: &[&str], text: &str) {
    for word in complaints {
        assert!(!text.contains(word), "{}: {word}:\n{text}", block.page);
    }
}

fn trapgate(block: &Block, parts: &[&str]) {
    if !kvm_here() {
        return;
    }
    let mut guest = Running::start(&["--gdb", "127.0.0.1:0"]);
    guest.gdb_line();
    guest.signal("TERM");
    is_shown(block, parts);
    is_printed(block, parts, &guest.finish().output);
}

fn gdb(block: &Block, args: &[&str], before: &[&str]) -> Option<String> {
    let mut guest = guest(args)?;
    let shown: Vec<_> = block.typed("(gdb) ").collect();
    let connecting = shown.iter().position(|it| it.starts_with("target remote"));
    // The line that `trapgate` prints connects.
    let (first, behind) = match connecting {
        Some(at) => (&shown[..at], &shown[at + 1..]),
        None => (&[][..], &shown[..]),
    };
    let mut line = guest.gdb_line();
    for command in first {
        line = format!("{line} -iex '{command}'");
    }
    let typed = [before, behind].concat();
    let text = start_gdb(&line, &typed).finish().output;
    no_complaint(block, &GDB_COMPLAINTS, &text);
    Some(text)
}

fn lldb(block: &Block, parts: &[&str]) {
    if !kvm_here() {
        return;
    }
    let mut lldb = Command::new("lldb");
    let version = lldb.arg("--version").stdout(Stdio::null()).status();
    if !version.is_ok_and(|status| status.success()) {
        println!("SKIP: no lldb; install it with `apt-get install lldb`");
        return;
    }
    let mut guest = Running::start(&["--gdb", "127.0.0.1:0"]);
    let address = guest.address();
    let mut lldb = Command::new("lldb");
    lldb.args(["--no-lldbinit", "--batch", "--no-use-colors"])
        .stdin(Stdio::null());
    for command in block.typed("(lldb) ") {
        let command = command.replace("127.0.0.1:1234", &address);
        lldb.args(["-o", &command]);
    }
    let text = Running::spawn(lldb).finish().output;
    // Not every "Error": the LLDB of Debian 12 begins with a traceback of its own Python.
    no_complaint(block, &["error: "], &text);
    is_printed(block, parts, &text);
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap()
}

/// The output of `program subcommand --help`.
fn help(block: &Block, program: &str, subcommand: Option<&str>) -> Option<String> {
    let test = env::current_exe().unwrap();
    let program: PathBuf = test.ancestors().nth(2).unwrap().join(program);
    if !program.is_file() {
        let program = program.display();
        println!("SKIP: no {program}; build it with `cargo build --workspace`");
        return None;
    }
    let mut command = Command::new(&program);
    let output = command.args(subcommand).arg("--help").output().unwrap();
    let known = output.status.success();
    assert!(known, "{}: {command:?} is not known", block.page);
    Some(String::from_utf8(output.stdout).unwrap())
}

fn options(block: &Block) {
    for line in block.typed("$ ") {
        let words: Vec<_> = line.split_whitespace().collect();
        match words.as_slice() {
            ["cargo", "run", "--release"] => {}
            ["cargo", "run", "--release", "--", words @ ..] | ["trapgate", words @ ..] => {
                options_of(block, "trapgate", words);
            }
            ["cargo", "xtask", words @ ..] => options_of(block, "xtask", words),
            ["cargo", "test", "-p", package, words @ ..] => test_programs(block, package, words),
            ["export", assignment, ..] => {
                let name = assignment.split('=').next();
                assert_eq!(name, Some(any_vmm::COMMAND), "{}", block.page);
            }
            _ => panic!(
                "{}: `{line}` cannot be checked: add its program to `options` in reference_vmm/trapgate/tests/guide/console.rs",
                block.page
            ),
        }
    }
}

fn options_of(block: &Block, program: &str, words: &[&str]) {
    // The arguments behind `--` belong to another program.
    let words = words.split(|word| *word == "--").next().unwrap_or(words);
    let subcommand = words.first().filter(|word| !word.starts_with('-'));
    let Some(text) = help(block, program, subcommand.copied()) else {
        return;
    };
    for word in words.iter().filter(|word| word.starts_with("--")) {
        let option = word.split('=').next();
        let mut known = text.split_whitespace().map(|w| w.trim_end_matches(','));
        assert!(
            known.any(|known| Some(known) == option),
            "{}: `{program} {}`: {word} is no option of it:\n{text}",
            block.page,
            words.join(" ")
        );
    }
}

fn test_programs(block: &Block, package: &str, words: &[&str]) {
    let tests = ["", "reference_vmm", "test_support"]
        .map(|group| root().join(group).join(package).join("tests"))
        .into_iter()
        .find(|folder| folder.is_dir());
    let tests = tests.unwrap_or_else(|| panic!("{}: {package} has no tests", block.page));
    for pair in words.windows(2).filter(|pair| pair[0] == "--test") {
        let one_file = tests.join(pair[1]).with_extension("rs").is_file();
        let folder = tests.join(pair[1]).join("main.rs").is_file();
        let there = one_file || folder;
        assert!(there, "{}: {package} has no test {}", block.page, pair[1]);
    }
}

fn made_up(text: &str) -> Block {
    Block {
        page: "page".to_owned(),
        kind: "console".to_owned(),
        text: text.to_owned(),
    }
}

#[test]
fn addresses_are_compared_by_their_shape() {
    assert_eq!(shape("at 0x10073f: file"), shape("at 0x100a: file"));
    assert_ne!(shape("at 0x10073f: file"), shape("at 0x10073f, file"));
    is_printed(&made_up(""), &["1 at 0x10: f"], "1 at 0x2f: f");
}

#[test]
#[should_panic(expected = "The first line that differs from the nearest row is `0x0 -> nothing`")]
fn a_changed_line_within_a_block_is_found() {
    let row = &ROWS[2];
    let text = row.text.replace("VP 1\n", "VP 1\n0x0 -> nothing\n");
    let page = row.page.to_owned();
    row_of(&Block {
        page,
        ..made_up(&text)
    });
}

#[test]
fn options_are_checked_through_cargo_run_too() {
    options(&made_up(
        "$ cargo run --release -- run --cpus 4 --on-disconnect=kill\n",
    ));
    options(&made_up("$ trapgate doctor\n"));
}

#[test]
#[should_panic(expected = "--no-such is no option of it")]
fn an_unknown_option_behind_cargo_run_is_found() {
    options(&made_up("$ cargo run --release -- run --no-such 4\n"));
}

#[test]
#[should_panic(expected = "is not known")]
fn an_unknown_subcommand_is_found() {
    options(&made_up("$ trapgate no-such --cpus 4\n"));
}

#[test]
#[should_panic(expected = "conformance has no test no_such")]
fn an_unknown_test_program_is_found() {
    options(&made_up("$ cargo test -p conformance --test no_such\n"));
}

#[test]
#[should_panic(expected = "cannot be checked")]
fn an_unknown_program_is_found() {
    options(&made_up("$ true\n"));
}
