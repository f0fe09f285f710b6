//! The Guide's and README's Rust blocks are pieces of `embedding.rs`, which the compiler has seen.

mod embedding;

use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// The lines between fences, of which the opening one begins with ```` ```rust ````.
fn rust_blocks(page: &str) -> Vec<(&str, String)> {
    let mut blocks = Vec::new();
    let mut block: Option<(&str, String)> = None;
    for line in page.lines() {
        match (&mut block, line.strip_prefix("```")) {
            (None, Some(kind)) => block = Some((kind, String::new())),
            (Some(_), Some(_)) => blocks.extend(block.take()),
            (Some((_, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks.retain(|(kind, _)| kind.starts_with("rust"));
    blocks
}

fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let guide = fs::read_dir(root.join("Guide/src")).unwrap();
    let mut pages: Vec<_> = guide.map(|page| page.unwrap().path()).collect();
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.push(root.join("README.md"));
    pages
}

#[test]
fn every_rust_block_is_a_piece_of_what_compiles() {
    let compiled = include_str!("embedding.rs");
    let mut count = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for (kind, block) in rust_blocks(&text) {
            assert_eq!(
                kind,
                "rust",
                "{}: a block that nothing compiles",
                page.display()
            );
            assert!(
                compiled.contains(&block),
                "{}: this is not in trapgate/tests/guide/embedding.rs, letter for letter:\n{block}",
                page.display()
            );
            count += 1;
        }
    }
    assert!(count >= 3, "only {count} blocks were found");
}
