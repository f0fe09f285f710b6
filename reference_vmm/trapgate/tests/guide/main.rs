//! The pages are correct: their Rust blocks are parts of `embedding.rs` and `smallest.rs`, which are compiled, and their console blocks
//! are checked as `console.rs` says for each block.

mod blocks;
mod checks;
mod console;
mod embedding;
mod smallest;
mod where_is_what;

use blocks::blocks;

#[test]
fn every_rust_block_is_a_piece_of_what_compiles() {
    let compiled = [include_str!("embedding.rs"), include_str!("smallest.rs")];
    let compiled = compiled.map(|text| text.lines().collect::<Vec<_>>());
    let blocks = blocks("rust");
    for block in &blocks {
        let page = &block.page;
        assert_eq!(block.kind, "rust", "{page}: a block that nothing compiles");
        assert!(
            compiled
                .iter()
                .any(|lines| is_whole_piece(lines, &block.text)),
            "{page}: this is no whole item, or items, of embedding.rs or smallest.rs in reference_vmm/trapgate/tests/guide/, letter for letter:\n{}",
            block.text
        );
    }
    assert!(blocks.len() >= 3, "only {} blocks were found", blocks.len());
}

/// Whether the lines are consecutive lines, from the beginning of an item to the end of an item.
fn is_whole_piece(compiled: &[&str], block: &str) -> bool {
    let block: Vec<_> = block.lines().collect();
    let items = |at: usize| {
        let before = at.checked_sub(1).and_then(|at| compiled.get(at));
        let after = compiled.get(at + block.len());
        let ends = |line: Option<&&str>| line.is_none_or(|line| line.is_empty());
        ends(before) && ends(after)
    };
    let mut windows = compiled.windows(block.len().max(1)).enumerate();
    !block.is_empty() && windows.any(|(at, lines)| lines == block && items(at))
}

#[test]
fn half_an_item_is_no_piece() {
    let compiled = ["fn f() {", "    g();", "}", "", "fn h() {}"];
    assert!(is_whole_piece(&compiled, "fn f() {\n    g();\n}\n"));
    assert!(is_whole_piece(&compiled, "fn h() {}\n"));
    assert!(!is_whole_piece(&compiled, "    g();\n"));
    assert!(!is_whole_piece(&compiled, "fn f() {\n"));
    assert!(!is_whole_piece(&compiled, ""));
}
