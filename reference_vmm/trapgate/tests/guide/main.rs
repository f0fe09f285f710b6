//! The pages are correct: their Rust blocks are parts of `embedding.rs`, `smallest.rs` or an example, which are compiled, and their console blocks
//! are checked as `console.rs` says for each block.

mod blocks;
mod checks;
mod console;
mod embedding;
mod smallest;
mod where_is_what;

use blocks::blocks;

/// The files from which the blocks are.
const SOURCES: [&str; 9] = [
    include_str!("embedding.rs"),
    include_str!("smallest.rs"),
    include_str!("../../../../debug_client/examples/rounds/session.rs"),
    include_str!("../../../../examples/minimal_vmm/src/main.rs"),
    include_str!("../../../../examples/minimal_vmm/src/pc.rs"),
    include_str!("../../../../examples/own_run_loop/src/debugger.rs"),
    include_str!("../../../../examples/own_run_loop/src/snapshot.rs"),
    include_str!("../../../../examples/own_run_loop/src/states.rs"),
    include_str!("../../../../test_support/alioth_vmm/src/vcpu.rs"),
];

#[test]
fn every_rust_block_is_a_piece_of_what_compiles() {
    let compiled = SOURCES.map(|source| source.lines().collect::<Vec<_>>());
    let blocks = blocks("rust");
    for block in &blocks {
        let page = &block.page;
        assert_eq!(block.kind, "rust", "{page}: a block that nothing compiles");
        assert!(
            compiled
                .iter()
                .any(|source| is_whole_piece(source, &block.text)),
            "{page}: this is no whole item, or items, of one of the files that reference_vmm/trapgate/tests/guide/main.rs names, letter for letter:\n{}",
            block.text
        );
    }
    assert!(
        blocks.len() >= 12,
        "only {} blocks were found",
        blocks.len()
    );
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
