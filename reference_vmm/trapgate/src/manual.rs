//! `trapgate completions` and `trapgate man`: what a shell and `man` know of the command line.

use crate::cli::Cli;
use crate::cli::Shell;
use clap::CommandFactory as _;
use clap_mangen::Man;
use std::io;
use std::io::Write as _;
use std::path::Path;

/// Prints the completions for a shell.
pub(crate) fn completions(shell: Shell) -> io::Result<()> {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "trapgate", &mut text);
    print(&text)
}

/// Writes a page for the program and for each command into the folder. Without a folder, prints the page of the program.
pub(crate) fn man(folder: Option<&Path>) -> io::Result<()> {
    // `trapgate help` has no page.
    let program = Cli::command().disable_help_subcommand(true);
    match folder {
        Some(folder) => clap_mangen::generate_to(program, folder),
        None => {
            let mut text = Vec::new();
            Man::new(program).render(&mut text)?;
            print(&text)
        }
    }
}

/// A reader that has read enough is no error.
fn print(text: &[u8]) -> io::Result<()> {
    match io::stdout().write_all(text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}
