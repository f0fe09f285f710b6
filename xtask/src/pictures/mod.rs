//! `cargo xtask pictures`: generates the SVG files of README and Guide from the text files beside them.
//!
//! | text | picture |
//! |---|---|
//! | `Guide/src/pictures/*.txt` | boxes and arrows ([`diagram`]) |
//! | `Guide/src/pictures/*.cast` | a recorded session in a terminal ([`session`]) |
//!
//! The lints of `cargo xtask fmt` fail if a picture differs from the picture that its text generates.

mod diagram;
mod recording;
mod session;

use crate::process;
use anyhow::Context as _;
use std::path::Path;
use std::path::PathBuf;

const FOLDER: &str = "Guide/src/pictures";

/// Arguments of `cargo xtask pictures`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// First record the GDB session anew: boots the demo guest and types into GDB.
    #[arg(long)]
    record: bool,
}

/// A picture that differs from the picture that its text generates.
pub(crate) struct Stale {
    /// The path of the picture, relative to the root.
    pub file: String,
}

/// Runs `cargo xtask pictures`.
pub(crate) fn main(args: &Args) -> anyhow::Result<i32> {
    if args.record {
        recording::record(&folder().join("session.cast"))?;
    }
    for (path, svg) in pictures()? {
        std::fs::write(&path, svg).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(0)
}

/// The pictures that differ from those that their texts generate.
pub(crate) fn stale() -> anyhow::Result<Vec<Stale>> {
    let stale = |(path, svg): (PathBuf, String)| {
        let current = std::fs::read_to_string(&path).is_ok_and(|found| found == svg);
        let file = path
            .strip_prefix(process::workspace_root())
            .unwrap_or(&path);
        (!current).then(|| Stale {
            file: file.display().to_string(),
        })
    };
    Ok(pictures()?.into_iter().filter_map(stale).collect())
}

/// The path of each picture, and the SVG that its text generates.
fn pictures() -> anyhow::Result<Vec<(PathBuf, String)>> {
    let mut pictures = Vec::new();
    for entry in std::fs::read_dir(folder())? {
        let path = entry?.path();
        let draw: fn(&str) -> anyhow::Result<String> =
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("txt") => diagram::draw,
                Some("cast") => session::draw,
                _ => continue,
            };
        let text = std::fs::read_to_string(&path)?;
        let svg = draw(&text).with_context(|| path.display().to_string())?;
        pictures.push((path.with_extension("svg"), svg));
    }
    pictures.sort();
    anyhow::ensure!(!pictures.is_empty(), "{FOLDER} has no picture");
    Ok(pictures)
}

fn folder() -> PathBuf {
    process::workspace_root().join(Path::new(FOLDER))
}

/// As the text of an SVG element.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pictures_are_what_their_texts_make() {
        let stale: Vec<_> = stale()
            .unwrap()
            .into_iter()
            .map(|stale| stale.file)
            .collect();
        assert!(stale.is_empty(), "{stale:?}: run `cargo xtask pictures`");
    }
}
