//! Python: an intra-procedural taint walk that follows calls to functions of the same file.

mod call;
mod collection;
mod expr;
mod guard;
mod html;
mod matching;
mod operator;
mod sink;
mod statement;
mod value;

use std::collections::{BTreeMap, BTreeSet};

use tree_sitter::Node;

use self::value::{State, Value};
use super::report::{Budget, Report, TooComplex};
use super::rules::{PYTHON, Rules};
use super::taint::{Dangers, Origin, Taint};

type Walk<T = ()> = Result<T, TooComplex>;

/// Calls are followed this deep.
const INLINE: usize = 4;

/// Walks a module.
pub(super) fn walk(source: &str, root: Node<'_>) -> Walk<Report> {
    let mut walker = Walker::new(source);
    walker.declare(root)?;
    walker.frames.push(Frame::default());
    let mut module = State::default();
    walker.top_level = true;
    walker.block(root, &mut module)?;
    walker.top_level = false;
    walker.frames.clear();
    walker.globals = module.vars;
    walker.construct()?;
    walker.enter_all()?;
    Ok(walker.report)
}

struct Walker<'t> {
    source: &'t str,
    rules: &'static Rules,
    imports: BTreeMap<String, String>,
    /// Functions and methods of the file by [`Walker::key`].
    functions: BTreeMap<String, Vec<Node<'t>>>,
    /// Keys of functions that something in the file calls.
    called: BTreeSet<String>,
    /// Where the functions start that were entered or followed.
    walked: BTreeSet<usize>,
    globals: BTreeMap<String, Value<'t>>,
    /// What constructors leave in `self`, by the start of the class.
    objects: BTreeMap<usize, State<'t>>,
    frames: Vec<Frame<'t>>,
    report: Report,
    budget: Budget,
    top_level: bool,
    /// Line of the test that is looked at.
    line: usize,
}

/// A function that is being walked.
#[derive(Default)]
struct Frame<'t> {
    key: String,
    /// A web framework calls it and sends what it returns.
    handler: bool,
    entry: bool,
    returns: Vec<(State<'t>, Option<Node<'t>>, Value<'t>)>,
    breaks: Vec<State<'t>>,
}

impl<'t> Walker<'t> {
    fn new(source: &'t str) -> Self {
        Self {
            source,
            rules: &PYTHON,
            imports: BTreeMap::new(),
            functions: BTreeMap::new(),
            called: BTreeSet::new(),
            walked: BTreeSet::new(),
            globals: BTreeMap::new(),
            objects: BTreeMap::new(),
            frames: Vec::new(),
            report: Report::default(),
            budget: Budget::new(),
            top_level: false,
            line: 1,
        }
    }

    fn text(&self, node: Node<'t>) -> &'t str {
        self.source.get(node.byte_range()).unwrap_or_default()
    }

    fn field_text(&self, node: Node<'t>, field: &str) -> &'t str {
        node.child_by_field_name(field).map_or("", |child| self.text(child))
    }

    /// Collects imports, functions and the names that are called, wherever they are.
    fn declare(&mut self, node: Node<'t>) -> Walk {
        self.budget.enter()?;
        match node.kind() {
            "import_statement" | "import_from_statement" => self.import(node),
            "function_definition" => {
                let key = self.key(node);
                self.functions.entry(key).or_default().push(node);
            }
            "class_definition" => self.class(node),
            "call" => {
                let callee = node.child_by_field_name("function");
                self.called.extend(callee.and_then(|callee| self.key_of_callee(callee)));
            }
            _ => {}
        }
        for child in children(node) {
            self.declare(child)?;
        }
        self.budget.leave();
        Ok(())
    }

    fn import(&mut self, node: Node<'t>) {
        let module = self.field_text(node, "module_name");
        let mut cursor = node.walk();
        for name in node.children_by_field_name("name", &mut cursor) {
            let (path, alias) = match name.kind() {
                "aliased_import" => (self.field_text(name, "name"), self.field_text(name, "alias")),
                _ => (self.text(name), ""),
            };
            if module.is_empty() && alias.is_empty() {
                // `import a.b` binds `a`, and `a.b` is what it says.
                let first = path.split('.').next().unwrap_or(path);
                self.imports.insert(first.to_owned(), first.to_owned());
            } else {
                let full = if module.is_empty() { path.to_owned() } else { format!("{module}.{path}") };
                let bound = if alias.is_empty() { path } else { alias };
                self.imports.insert(bound.to_owned(), full);
            }
        }
    }

    /// A class with an allow-list of what may be unpickled is another thing than its base.
    fn class(&mut self, node: Node<'t>) {
        let (name, bases) = (self.field_text(node, "name"), self.field_text(node, "superclasses"));
        if bases.contains("Unpickler") {
            let restricted = self.field_text(node, "body").contains("def find_class");
            let path = if restricted { "RestrictedUnpickler" } else { "pickle.Unpickler" };
            self.imports.insert(name.to_owned(), path.to_owned());
        }
    }

    /// What a function is called by: its name, with a dot before that of a method, because a bare call means none.
    fn key(&self, function: Node<'t>) -> String {
        let dot = if class_of(function).is_some() { "." } else { "" };
        format!("{dot}{}", self.field_text(function, "name"))
    }

    /// The key of what a call means if it is in the file: `f()`, `self.f()`.
    fn key_of_callee(&self, callee: Node<'t>) -> Option<String> {
        let text = self.text(callee);
        match text.split_once('.') {
            None => Some(text.to_owned()),
            Some(("self" | "cls", method)) => (!method.contains('.')).then(|| format!(".{method}")),
            Some(_) => None,
        }
    }

    /// Enters the functions that nothing in the file calls and those that a framework calls, and then whatever was
    /// not reached from there.
    fn enter_all(&mut self) -> Walk {
        let all: Vec<(bool, Node<'t>)> = self
            .functions
            .iter()
            .flat_map(|(key, nodes)| nodes.iter().map(|node| (self.called.contains(key), *node)))
            .collect();
        for (called, function) in all.iter().filter(|(_, node)| !has_ancestor(*node, "function_definition")) {
            if !called || is_route(&self.decorators(*function)) {
                self.enter_method(*function)?;
            }
        }
        for (_, function) in all {
            if !self.walked.contains(&function.start_byte()) {
                self.enter_method(function)?;
            }
        }
        Ok(())
    }

    /// Enters a function, with what the constructor left if it is a method.
    fn enter_method(&mut self, function: Node<'t>) -> Walk {
        let object = class_of(function).and_then(|class| self.objects.get(&class.start_byte()).cloned());
        self.enter(function, &object.unwrap_or_default()).map(drop)
    }

    /// Walks the constructors: what they store is what methods find.
    fn construct(&mut self) -> Walk {
        for constructor in self.functions.get(".__init__").cloned().unwrap_or_default() {
            let Some(class) = class_of(constructor) else { continue };
            let mut state = self.enter(constructor, &State::default())?;
            state.vars.retain(|name, _| name.starts_with("self."));
            self.objects.insert(class.start_byte(), State { dead: false, ..state });
        }
        Ok(())
    }

    /// Walks a function as its unknown callers would enter it, with what is around it: all parameters are untrusted.
    /// Returns what holds where it ends.
    fn enter(&mut self, function: Node<'t>, around: &State<'t>) -> Walk<State<'t>> {
        self.walked.insert(function.start_byte());
        let decorators = self.decorators(function);
        let handler = is_route(&decorators);
        let mut state = around.clone();
        for parameter in self.parameters(function) {
            let value = self.untrusted(&parameter, handler, &decorators);
            state.vars.insert(parameter.name, value);
        }
        self.frames.push(Frame { key: self.key(function), handler, entry: true, ..Frame::default() });
        let body = function.child_by_field_name("body");
        body.map_or(Ok(()), |body| self.block(body, &mut state))?;
        let returns = self.frames.pop().map(|frame| frame.returns).unwrap_or_default();
        Ok(returns.into_iter().map(|(at, _, _)| State { dead: false, ..at }).fold(state, State::join))
    }

    fn decorators(&self, function: Node<'t>) -> String {
        let parent = function.parent().filter(|parent| parent.kind() == "decorated_definition");
        let lines = parent.map(|parent| children(parent).filter(|child| child.kind() == "decorator"));
        lines.into_iter().flatten().map(|node| self.text(node)).collect::<Vec<_>>().join("\n")
    }

    fn parameters(&self, function: Node<'t>) -> Vec<Parameter<'t>> {
        let list = function.child_by_field_name("parameters");
        let parameter = |node: Node<'t>| {
            let name = match node.kind() {
                "identifier" => Some(node),
                "list_splat_pattern" | "dictionary_splat_pattern" | "typed_parameter" => {
                    first_of(node, "identifier")
                }
                _ => node.child_by_field_name("name"),
            }?;
            Some(Parameter {
                name: self.text(name).to_owned(),
                origin: name.start_byte() as Origin,
                annotation: self.field_text(node, "type"),
                default: node.child_by_field_name("value"),
            })
        };
        list.into_iter().flat_map(children).filter_map(parameter).collect()
    }

    fn untrusted(&self, parameter: &Parameter<'t>, handler: bool, decorators: &str) -> Value<'t> {
        let name = &parameter.name;
        let mut value = Value::named(name.clone());
        if self.rules.trusted.is_match(name) {
            return value;
        }
        value.taint = Taint::of(parameter.origin);
        let number = matches!(parameter.annotation, "int" | "float" | "bool");
        let converted =
            ["int", "float", "uuid"].iter().any(|kind| decorators.contains(&format!("<{kind}:{name}>")));
        if handler && (number || converted) {
            value = value.without(Dangers::TEXT);
        }
        if parameter.annotation.ends_with("Path") {
            value.path = Some("pathlib.Path()".to_owned());
        }
        value
    }

    /// Notes that a value is used, for input validation as such.
    fn used(&mut self, value: &Value<'t>, node: Node<'t>, state: &State<'t>) {
        if value.taint.is_empty() {
            return;
        }
        if state.cleared.has_cleared(&value.taint, Dangers::UNCHECKED) {
            self.report.checked = true;
        }
        if state.left(value).has(Dangers::UNCHECKED) {
            let line = line(node);
            let parameter = |origin| self.is_parameter(origin);
            if value.taint.origins().all(parameter) {
                self.report.unchecked_parameter.get_or_insert(line);
            } else {
                if value.numeric {
                    self.report.unchecked_number.get_or_insert(line);
                }
                self.report.unchecked.get_or_insert(line);
            }
        }
    }

    /// Origins of parameters are positions in the source; those of expressions have the high bit.
    fn is_parameter(&self, origin: Origin) -> bool {
        origin < self.source.len() as Origin
    }
}

/// The class that a method is in.
fn class_of(function: Node<'_>) -> Option<Node<'_>> {
    let class = std::iter::successors(function.parent(), tree_sitter::Node::parent).nth(1)?;
    let class = if class.kind() == "block" { class.parent()? } else { class };
    (class.kind() == "class_definition").then_some(class)
}

struct Parameter<'t> {
    name: String,
    origin: Origin,
    annotation: &'t str,
    default: Option<Node<'t>>,
}

fn is_route(decorators: &str) -> bool {
    [
        ".route(",
        ".get(",
        ".post(",
        ".put(",
        ".delete(",
        ".patch(",
        "@view_config",
        ".expose",
        "@get(",
        "@post(",
        "@route(",
        "require_http_methods",
        ".errorhandler(",
    ]
    .iter()
    .any(|mark| decorators.contains(mark))
}

fn children(node: Node<'_>) -> impl Iterator<Item = Node<'_>> {
    (0..node.named_child_count() as u32).filter_map(move |i| node.named_child(i))
}

fn first_of<'t>(node: Node<'t>, kind: &str) -> Option<Node<'t>> {
    children(node).find_map(|child| if child.kind() == kind { Some(child) } else { first_of(child, kind) })
}

fn ancestor<'t>(node: Node<'t>, kind: &str) -> Option<Node<'t>> {
    std::iter::successors(node.parent(), tree_sitter::Node::parent).find(|node| node.kind() == kind)
}

fn has_ancestor(node: Node<'_>, kind: &str) -> bool {
    ancestor(node, kind).is_some()
}

fn line(node: Node<'_>) -> usize {
    node.start_position().row + 1
}
