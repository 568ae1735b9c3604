//! C: a walk over functions that follows untrusted data and what is known of sizes.

mod access;
mod buffer;
mod call;
mod declaration;
mod expr;
mod format;
mod guard;
mod inline;
mod input;
mod linear;
mod statement;
mod text;
mod value;

use std::collections::{BTreeMap, BTreeSet};

use tree_sitter::Node;

use self::buffer::length_symbol;
use self::linear::Linear;
use self::value::{Buffer, State, Value};
use super::markup::is_markup;
use super::report::{Budget, Report, TooComplex};
use super::rules::{C, Rules};
use super::taint::{Dangers, Origin, Taint};

type Walk<T = ()> = Result<T, TooComplex>;

/// Calls are followed this deep.
const INLINE: usize = 4;

/// Walks a translation unit.
pub(super) fn walk(source: &str, root: Node<'_>) -> Walk<Report> {
    let mut walker = Walker {
        source,
        rules: &C,
        functions: BTreeMap::new(),
        called: BTreeSet::new(),
        walked: BTreeSet::new(),
        fields: BTreeMap::new(),
        macros: BTreeMap::new(),
        globals: State::default(),
        frames: vec![Frame::default()],
        frame_count: 0,
        markup: false,
        report: Report::default(),
        budget: Budget::new(),
    };
    walker.declare(root)?;
    let mut state = State::default();
    walker.block(root, &mut state)?;
    state.dead = false;
    // When a function is entered, others may have changed what is not constant.
    let mut changed = BTreeSet::new();
    walker.changed(root, &mut changed);
    let mut globals = walker.unknown(&state, &changed);
    for node in children(root).filter(|node| node.kind() == "declaration") {
        for name in walker.changeable(node) {
            globals.facts.forget(&length_symbol(&walker.symbol(name)));
        }
    }
    walker.globals = globals;
    walker.enter_all()?;
    Ok(walker.report)
}

struct Walker<'t> {
    source: &'t str,
    rules: &'static Rules,
    functions: BTreeMap<String, Node<'t>>,
    called: BTreeSet<String>,
    /// Where the functions start that were entered or followed.
    walked: BTreeSet<usize>,
    /// Arrays in structures, by the name of the field: elements and bytes of one.
    fields: BTreeMap<String, (Option<Linear>, i64)>,
    macros: BTreeMap<String, String>,
    globals: State,
    frames: Vec<Frame<'t>>,
    frame_count: usize,
    /// Some text of the file is HTML, so that what is printed is a page.
    markup: bool,
    report: Report,
    budget: Budget,
}

/// A function that is being walked.
#[derive(Default)]
struct Frame<'t> {
    name: String,
    /// Makes the symbols of its variables its own.
    id: usize,
    returns: Vec<(State, Option<Node<'t>>, Value)>,
    breaks: Vec<State>,
    continues: Vec<State>,
    /// Symbols of parameters that are numbers, with their names.
    numbers: Vec<(String, String)>,
}

impl<'t> Walker<'t> {
    fn text(&self, node: Node<'t>) -> &'t str {
        self.source.get(node.byte_range()).unwrap_or_default()
    }

    fn field_text(&self, node: Node<'t>, field: &str) -> &'t str {
        node.child_by_field_name(field).map_or("", |child| self.text(child))
    }

    /// Collects functions, macros, arrays in structures and the names that are called.
    fn declare(&mut self, node: Node<'t>) -> Walk {
        self.budget.enter()?;
        match node.kind() {
            "function_definition" => {
                if let Some(name) = node.child_by_field_name("declarator").and_then(|it| declared_name(it)) {
                    self.functions.insert(self.text(name).to_owned(), node);
                }
            }
            "preproc_def" => {
                let value = self.field_text(node, "value").trim().trim_matches(['(', ')']).to_owned();
                self.macros.insert(self.field_text(node, "name").to_owned(), value);
            }
            "enumerator" => {
                let value = self.field_text(node, "value").to_owned();
                self.macros.insert(self.field_text(node, "name").to_owned(), value);
            }
            "field_declaration" => self.field(node),
            "call_expression" => {
                let name = self.field_text(node, "function").to_owned();
                self.called.insert(name);
            }
            "string_literal" => {
                self.markup |= is_markup(self.text(node)) || self.text(node).contains("text/html");
            }
            _ => {}
        }
        for child in children(node) {
            self.declare(child)?;
        }
        self.budget.leave();
        Ok(())
    }

    fn field(&mut self, node: Node<'t>) {
        let element = self.size_of_type(self.field_text(node, "type"));
        let mut cursor = node.walk();
        for declarator in node.children_by_field_name("declarator", &mut cursor) {
            let array = first_of(declarator, "array_declarator");
            let (Some(array), Some(name)) = (array, first_of(declarator, "field_identifier")) else {
                continue;
            };
            let size = array.child_by_field_name("size").and_then(|size| self.constant(self.text(size)));
            let is_pointer =
                array.child_by_field_name("declarator").is_some_and(|it| it.kind() == "pointer_declarator");
            let element = if is_pointer { 8 } else { element };
            self.fields.insert(self.text(name).to_owned(), (size.map(Linear::constant), element));
        }
    }

    /// The value of a number or of a macro that stands for one, also of simple sums and products.
    fn constant(&self, text: &str) -> Option<i64> {
        let mut text = text.trim().trim_matches(['(', ')']).to_owned();
        for _ in 0..8 {
            if let Some(number) = integer(&text) {
                return Some(number);
            }
            for operator in ['+', '*', '-'] {
                if let Some((left, right)) = text.split_once(operator).filter(|(left, _)| !left.is_empty()) {
                    let (left, right) = (self.constant_of(left)?, self.constant_of(right)?);
                    return match operator {
                        '+' => left.checked_add(right),
                        '*' => left.checked_mul(right),
                        _ => left.checked_sub(right),
                    };
                }
            }
            text = self.macros.get(text.trim())?.clone();
        }
        None
    }

    fn constant_of(&self, text: &str) -> Option<i64> {
        let text = text.trim().trim_matches(['(', ')']);
        integer(text).or_else(|| integer(self.macros.get(text)?.trim()))
    }

    /// Enters the functions that nothing in the file calls, and then whatever was not reached from there.
    fn enter_all(&mut self) -> Walk {
        let all: Vec<(bool, Node<'t>)> =
            self.functions.iter().map(|(name, node)| (self.called.contains(name), *node)).collect();
        for (_, function) in all.iter().filter(|(called, _)| !called) {
            self.enter(*function)?;
        }
        for (_, function) in all {
            if !self.walked.contains(&function.start_byte()) {
                self.enter(function)?;
            }
        }
        Ok(())
    }

    /// Walks a function as its unknown callers would enter it.
    fn enter(&mut self, function: Node<'t>) -> Walk {
        self.walked.insert(function.start_byte());
        let name = function.child_by_field_name("declarator").and_then(|it| declared_name(it));
        let name = name.map_or("", |name| self.text(name)).to_owned();
        let mut state = State {
            buffers: self.globals.buffers.clone(),
            facts: self.globals.facts.clone(),
            ..State::default()
        };
        self.push_frame(name);
        for parameter in self.parameters(function) {
            self.untrusted(&parameter, &mut state);
        }
        if let Some(body) = function.child_by_field_name("body") {
            self.block(body, &mut state)?;
        }
        self.frames.pop();
        Ok(())
    }

    fn push_frame(&mut self, name: String) {
        self.frame_count += 1;
        self.frames.push(Frame { name, id: self.frame_count, ..Frame::default() });
    }

    fn untrusted(&mut self, parameter: &declaration::Parameter<'t>, state: &mut State) {
        let symbol = self.symbol(parameter.name);
        let trusted = self.rules.trusted.is_match(parameter.name);
        let taint = if trusted { Taint::default() } else { Taint::of(parameter.origin) };
        let mut value = Value { taint, ..Value::default() };
        if parameter.pointer {
            let buffer = Buffer {
                capacity: None,
                element: self.size_of_type(parameter.kind),
                taint: value.taint.clone(),
                unsigned: is_unsigned(parameter.kind),
                parameter: true,
                ..Buffer::default()
            };
            state.buffers.insert(symbol.clone(), buffer);
            let offset = format!("@{symbol}");
            state.facts.learn_equal(&Linear::symbol(offset.clone()), &Linear::default());
            value.pointer = Some(value::Pointer { base: symbol, offset: Linear::symbol(offset) });
        } else {
            if is_unsigned(parameter.kind) {
                state.facts.learn_natural(&symbol);
            }
            if let Some(frame) = self.frames.last_mut() {
                frame.numbers.push((symbol.clone(), parameter.name.to_owned()));
            }
            value.number = Some(Linear::symbol(symbol));
        }
        state.vars.insert(parameter.name.to_owned(), value);
    }

    /// The symbol of a variable, or of a field of one, of the function that is being walked.
    fn symbol(&self, text: &str) -> String {
        let id = self.frames.last().map_or(0, |frame| frame.id);
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        format!("{id}.{text}")
    }

    fn used(&mut self, value: &Value, node: Node<'t>, state: &State) {
        let taint = state.content(value);
        if taint.is_empty() {
            return;
        }
        if state.cleared.has_cleared(&taint, Dangers::UNCHECKED) {
            self.report.checked = true;
        }
        if state.cleared.left(&taint).has(Dangers::UNCHECKED) {
            let line = line(node);
            if taint.origins().all(|origin| origin < self.source.len() as Origin) {
                self.report.unchecked_parameter.get_or_insert(line);
            } else {
                if value.converted {
                    self.report.unchecked_number.get_or_insert(line);
                }
                self.report.unchecked.get_or_insert(line);
            }
        }
    }
}

fn is_unsigned(kind: &str) -> bool {
    kind.contains("unsigned")
        || kind.contains("size_t") && !kind.contains("ssize_t")
        || kind.contains("uint")
        || kind.contains("u8")
        || kind.contains("u32")
        || kind.contains("u16")
}

fn integer(text: &str) -> Option<i64> {
    let text = text.trim().trim_end_matches(['u', 'U', 'l', 'L']);
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return i64::from_str_radix(hex, 16).ok();
    }
    if text.len() > 1 && text.starts_with('0') {
        return i64::from_str_radix(text, 8).ok();
    }
    text.parse().ok()
}

fn children(node: Node<'_>) -> impl Iterator<Item = Node<'_>> {
    (0..node.named_child_count() as u32).filter_map(move |i| node.named_child(i))
}

fn first_of<'t>(node: Node<'t>, kind: &str) -> Option<Node<'t>> {
    if node.kind() == kind {
        return Some(node);
    }
    children(node).find_map(|child| first_of(child, kind))
}

/// The identifier inside pointers, arrays and parameter lists.
fn declared_name(declarator: Node<'_>) -> Option<Node<'_>> {
    let mut node = declarator;
    loop {
        match node.kind() {
            "identifier" | "field_identifier" => return Some(node),
            _ => {
                node = node
                    .child_by_field_name("declarator")
                    .or_else(|| node.named_child(0).filter(|_| node.kind() == "parenthesized_declarator"))?;
            }
        }
    }
}

fn line(node: Node<'_>) -> usize {
    node.start_position().row + 1
}
