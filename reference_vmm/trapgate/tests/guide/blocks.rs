//! The fenced blocks of the project's pages.

use std::fs;
use std::path::Path;

/// The pages whose blocks are checked.
const PAGES: [&str; 4] = [
    "README.md",
    "CONTRIBUTING.md",
    "support/README.md",
    "gdb_frontend/README.md",
];

#[derive(Debug)]
pub(crate) struct Block {
    pub page: String,
    /// The text behind the opening fence.
    pub kind: String,
    pub text: String,
}

impl Block {
    /// The commands that a person types at this prompt, without comments.
    pub(crate) fn typed<'a>(&'a self, prompt: &'a str) -> impl Iterator<Item = &'a str> {
        let lines = self.text.lines();
        let typed = lines.filter_map(move |line| line.strip_prefix(prompt));
        typed.map(|line| line.split("  #").next().unwrap_or(line).trim())
    }
}

/// The blocks of one page. A fence is three or more backticks or tildes, at any indentation.
fn of_page(page: &str, text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<(&str, Block)> = None;
    for line in text.lines() {
        let trimmed = line.trim_start_matches([' ', '>']);
        let fence = ["```", "~~~"].into_iter().find(|f| trimmed.starts_with(f));
        match (open.take(), fence) {
            (None, Some(fence)) => {
                let kind = trimmed.trim_start_matches(['`', '~']).trim().to_owned();
                let (page, text) = (page.to_owned(), String::new());
                open = Some((fence, Block { page, kind, text }));
            }
            (Some((opened, block)), Some(fence)) if fence == opened => blocks.push(block),
            (Some((opened, mut block)), _) => {
                block.text.push_str(line);
                block.text.push('\n');
                open = Some((opened, block));
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{page}: a block without an end");
    blocks
}

/// The blocks of all pages whose kind begins with `kind`, in upper or lower case.
pub(crate) fn blocks(kind: &str) -> Vec<Block> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .unwrap();
    let guide = fs::read_dir(root.join("Guide/src")).unwrap();
    let mut pages: Vec<_> = guide
        .map(|page| page.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".md"))
        .map(|name| format!("Guide/src/{name}"))
        .collect();
    pages.extend(PAGES.map(str::to_owned));
    let mut all = Vec::new();
    for page in pages {
        let text = fs::read_to_string(root.join(&page)).unwrap();
        all.extend(of_page(&page, &text));
    }
    all.retain(|block| block.kind.to_lowercase().starts_with(kind));
    all
}

#[test]
fn fences_of_every_form_are_found() {
    let text = "```rust,ignore\na\n```\n  ~~~ Rust\n  b\n```\n  ~~~\n````console\n$ c  # d\n````\n";
    let blocks = of_page("page", text);
    let found: Vec<_> = blocks.iter().map(|b| (&*b.kind, &*b.text)).collect();
    let wanted = [
        ("rust,ignore", "a\n"),
        ("Rust", "  b\n```\n"),
        ("console", "$ c  # d\n"),
    ];
    assert_eq!(found, wanted);
    assert_eq!(blocks[2].typed("$ ").collect::<Vec<_>>(), ["c"]);
}
