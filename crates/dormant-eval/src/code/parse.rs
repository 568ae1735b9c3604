//! Syntax trees, within bounds.

use std::ops::ControlFlow;

use tree_sitter::{Node, ParseOptions, Parser, Tree, TreeCursor};

use super::Language;

/// Longer programs are not what a scored reply is.
const MAX_BYTES: usize = 128 * 1024;
/// Deeper trees are not what people write; walks recurse.
const MAX_DEPTH: u32 = 250;
/// How often the parser may report progress (every hundred or so of its operations).
const MAX_PROGRESS: usize = 50_000;

/// Why there is no tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unparsed {
    TooLong,
    TooSlow,
    TooDeep,
    Syntax,
}

impl Unparsed {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "the code is longer than 128 KiB",
            Self::TooSlow => "the parser gave up",
            Self::TooDeep => "the code is too deeply nested",
            Self::Syntax => "the code does not parse or is cut off",
        }
    }
}

pub(super) fn parse(source: &str, language: Language) -> Result<Tree, Unparsed> {
    let tree = tree(source, language)?;
    if is_too_deep(&mut tree.walk()) {
        return Err(Unparsed::TooDeep);
    }
    let root = tree.root_node();
    if root.has_error() && !is_tolerable(source, &tree, language) || ends_open(source, &tree, language) {
        return Err(Unparsed::Syntax);
    }
    Ok(tree)
}

/// Errors in the tree per byte, to choose between languages and between parts of a text; `None` if there is no
/// tree at all.
pub(super) fn errors(source: &str, language: Language) -> Option<usize> {
    tree(source, language).ok().map(|tree| count_errors(&mut tree.walk()))
}

fn tree(source: &str, language: Language) -> Result<Tree, Unparsed> {
    if source.len() > MAX_BYTES {
        return Err(Unparsed::TooLong);
    }
    let mut parser = Parser::new();
    let grammar = match language {
        Language::Python => tree_sitter_python::LANGUAGE.into(),
        Language::C => tree_sitter_c::LANGUAGE.into(),
    };
    parser.set_language(&grammar).expect("the grammars are of this version of tree-sitter");
    let mut progress = 0;
    let mut bound = |_: &tree_sitter::ParseState| {
        progress += 1;
        if progress > MAX_PROGRESS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let bytes = source.as_bytes();
    let mut read = |at: usize, _| bytes.get(at..).unwrap_or_default();
    parser
        .parse_with_options(&mut read, None, Some(ParseOptions::new().progress_callback(&mut bound)))
        .ok_or(Unparsed::TooSlow)
}

fn is_too_deep(cursor: &mut TreeCursor<'_>) -> bool {
    loop {
        if cursor.depth() > MAX_DEPTH {
            return true;
        }
        if cursor.goto_first_child() {
            continue;
        }
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                return false;
            }
        }
    }
}

fn count_errors(cursor: &mut TreeCursor<'_>) -> usize {
    let mut errors = 0;
    loop {
        let node = cursor.node();
        if node.is_error() || node.is_missing() {
            errors += node.byte_range().len().max(1);
        }
        if !node.is_error() && node.has_error() && cursor.goto_first_child() {
            continue;
        }
        while !cursor.goto_next_sibling() {
            if !cursor.goto_parent() {
                return errors;
            }
        }
    }
}

/// Macros of projects make small holes in a C tree that say nothing of the rest.
fn is_tolerable(source: &str, tree: &Tree, language: Language) -> bool {
    language == Language::C && balanced(source) && count_errors(&mut tree.walk()) * 50 < source.len()
}

fn balanced(source: &str) -> bool {
    source.matches('{').count() == source.matches('}').count()
}

/// The program ends with something that only begins.
fn ends_open(source: &str, tree: &Tree, language: Language) -> bool {
    let last = last_leaf(tree.root_node());
    let end = source.get(last.byte_range()).unwrap_or_default();
    language == Language::Python && [",", "(", "\\", "=", "+", ".", ":"].contains(&end)
}

/// The last token that is no comment.
fn last_leaf(node: Node<'_>) -> Node<'_> {
    let mut children = (0..node.child_count()).rev().filter_map(|i| node.child(i));
    let last = children.find(|child| child.kind() != "comment" && !child.byte_range().is_empty());
    last.map_or(node, last_leaf)
}
