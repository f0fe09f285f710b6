//! The completions and the man pages.

use crate::running::Running;
use crate::running::program;
use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::process::Stdio;

fn output(words: &[&str]) -> String {
    let output = program("trapgate").args(words).output().expect("it starts");
    assert!(output.status.success(), "{words:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The names of the commands, as `--help` lists them, without `help` itself.
fn commands() -> BTreeSet<String> {
    let help = output(&["--help"]);
    let (_, list) = help.split_once("\nCommands:\n").expect("a list");
    let lines = list.lines().take_while(|line| !line.is_empty());
    let names = lines.filter_map(|line| line.split_whitespace().next());
    let names: BTreeSet<_> = names
        .map(str::to_owned)
        .filter(|name| name != "help")
        .collect();
    assert!(names.contains("run") && names.contains("man"), "{names:?}");
    names
}

#[test]
fn the_completions_name_every_command_and_option() {
    for shell in ["bash", "zsh", "fish"] {
        let text = output(&["completions", shell]);
        for command in commands() {
            assert!(text.contains(&command), "{shell}: {command}");
        }
        assert!(text.contains("freeze-time"), "{shell}");
    }
    let mut bash = Command::new("bash");
    let bash = bash.arg("-n").stdin(Stdio::piped()).spawn();
    let Ok(mut bash) = bash else {
        println!("SKIP: no bash, which would read the completions");
        return;
    };
    let text = output(&["completions", "bash"]);
    let mut input = bash.stdin.take().expect("piped");
    input.write_all(text.as_bytes()).expect("bash reads");
    drop(input);
    assert!(bash.wait().expect("a child").success(), "{text}");
}

#[test]
fn bash_completes_commands_and_options() {
    let text = output(&["completions", "bash"]);
    let complete = |words: &str, at: usize| {
        let script = format!(
            "{text}\nCOMP_WORDS=({words})\nCOMP_CWORD={at}\n_trapgate trapgate \"${{COMP_WORDS[{at}]}}\" x\necho \"${{COMPREPLY[@]}}\""
        );
        let output = Command::new("bash")
            .args(["--norc", "-c", &script])
            .output();
        let output = output.ok()?;
        assert!(output.stderr.is_empty(), "{output:?}");
        Some(String::from_utf8(output.stdout).expect("text"))
    };
    let Some(commands) = complete("trapgate ll", 1) else {
        println!("SKIP: no bash");
        return;
    };
    assert_eq!(commands.trim(), "lldb");
    let options = complete("trapgate gdb --sym", 2).expect("bash is there");
    assert_eq!(options.trim(), "--symbols");
}

#[test]
fn each_command_has_a_man_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().display().to_string();
    output(&["man", &path]);
    let pages = fs::read_dir(folder.path()).expect("a folder");
    let names = pages.map(|page| page.expect("a page").file_name());
    let names: BTreeSet<_> = names
        .map(|name| name.into_string().expect("text"))
        .collect();
    let expected = commands().into_iter();
    let mut expected: BTreeSet<_> = expected.map(|name| format!("trapgate-{name}.1")).collect();
    expected.insert("trapgate.1".to_owned());
    assert_eq!(names, expected);
    for name in names {
        let page = fs::read_to_string(folder.path().join(&name)).expect("text");
        for part in [".TH ", ".SH NAME", ".SH SYNOPSIS"] {
            assert!(page.contains(part), "{name}: {part}");
        }
    }
    let run = fs::read_to_string(folder.path().join("trapgate-run.1")).expect("text");
    assert!(run.contains(r"\-\-freeze\-time"), "{run}");
    let program = output(&["man"]);
    assert!(program.contains(".SH NAME\ntrapgate"), "{program}");
    // The pages to which it refers.
    let others = program.matches("(1)\n").count();
    assert_eq!(others, commands().len(), "{program}");
}

#[test]
fn a_folder_that_is_not_there_is_named() {
    let ended = Running::start(&["man", "/no/folder"]).finish();
    assert_eq!(ended.code, Some(2), "{}", ended.output);
    assert!(
        ended
            .output
            .contains("cannot write to /no/folder: No such file"),
        "{}",
        ended.output
    );
}
