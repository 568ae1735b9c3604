//! HTML that leaves the program: what functions return, print and write.

use std::sync::LazyLock;

use regex::Regex;
use tree_sitter::Node;

use super::value::{State, Value};
use super::{Walk, Walker, line};
use crate::code::markup::is_markup;
use crate::code::taint::Dangers;

/// Templates that switch escaping off.
static UNESCAPED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\|\s*(safe|n)\b|autoescape\s+(false|off)|\{\{\{").expect("a valid expression")
});

pub(super) const MESSAGE: &str = "untrusted data is put into HTML without escaping";

impl<'t> Walker<'t> {
    /// A value leaves a function.
    pub(super) fn returned(&mut self, node: Node<'t>, value: &Value<'t>, state: &mut State<'t>) -> Walk {
        self.used(value, node, state);
        self.decided(node, value, state)?;
        // With a status or headers behind it.
        let pair = matches!(node.kind(), "expression_list" | "tuple");
        let (node, value) = match (pair.then(|| node.named_child(0)).flatten(), value.items.first()) {
            (Some(node), Some(value)) => (node, value),
            _ => (node, value),
        };
        let Some(frame) = self.frames.last() else { return Ok(()) };
        // A helper's markup is judged where its caller sends it.
        let (handler, entry) = (frame.handler, frame.entry);
        // What objects look like to programmers.
        if [".__repr__", ".__str__"].contains(&frame.key.as_str()) {
            return Ok(());
        }
        if is_markup(&value.text) {
            self.sent(node, value, state);
        } else if handler && entry && self.answers_in_html() && self.is_text(node, value) {
            self.report.evidence.insert(79);
            if state.left(value).has(Dangers::HTML) {
                self.report.found(79, "python/unescaped-html", line(node), MESSAGE);
            }
        }
        Ok(())
    }

    /// A function that returns the outcome of a test is itself a check.
    fn decided(&mut self, node: Node<'t>, value: &Value<'t>, state: &State<'t>) -> Walk {
        if value.test.is_some() {
            let mut passed = state.clone();
            self.refine(node, true, &mut passed)?;
            self.report.checked |= passed.cleared != state.cleared;
        }
        Ok(())
    }

    /// Markup goes out.
    pub(super) fn sent(&mut self, node: Node<'t>, value: &Value<'t>, state: &State<'t>) {
        self.report.evidence.insert(79);
        if state.left(value).has(Dangers::HTML) {
            self.report.found(79, "python/unescaped-html", line(node), MESSAGE);
        }
    }

    /// Flask, Bottle and `CherryPy` send returned text as HTML; `FastAPI` and the like make JSON of it.
    fn answers_in_html(&self) -> bool {
        let html = ["flask", "bottle", "cherrypy", "pyramid", "quart"];
        let json = ["fastapi", "starlette", "aiohttp"];
        let imported = |names: &[&str]| {
            self.imports.values().any(|path| names.iter().any(|name| path.starts_with(name)))
        };
        imported(&html) || !imported(&json) && self.source.contains(".route(")
    }

    fn is_text(&self, node: Node<'t>, value: &Value<'t>) -> bool {
        let made_of_text =
            matches!(node.kind(), "string" | "binary_operator" | "concatenated_string" | "identifier")
                || node.kind() == "call"
                    && (value.path().is_empty()
                        || value.path().ends_with("get()")
                        || value.path().ends_with("format()"));
        made_of_text && value.fields.is_empty() && node.kind() != "dictionary" && !value.taint.is_empty()
    }

    /// `template.render(…)`: whether Jinja escapes depends on how the template was made.
    pub(super) fn rendered(
        &mut self,
        node: Node<'t>,
        path: &str,
        template: &Value<'t>,
        arguments: &Value<'t>,
        state: &State<'t>,
    ) {
        let escapes = path.contains("()auto") || path.contains("django");
        let jinja = path.contains("jinja2.")
            || path.starts_with("Template()")
            || path.contains("Environment()")
            || path.contains("mako.");
        if !jinja {
            return;
        }
        self.report.evidence.insert(79);
        let exposed = !escapes || UNESCAPED.is_match(&template.text);
        let shows = template.text.is_empty()
            || path.contains("get_template")
            || template.text.contains("{{")
            || template.text.contains("${");
        if exposed && shows && state.left(arguments).has(Dangers::HTML) {
            let message = "a template without automatic escaping shows untrusted data";
            self.report.found(79, "python/no-autoescape", line(node), message);
        }
    }

    /// `render_template_string(text, name=value)` with `{{ name|safe }}` in the text.
    pub(super) fn rendered_text(
        &mut self,
        node: Node<'t>,
        text: &Value<'t>,
        arguments: &Value<'t>,
        state: &State<'t>,
    ) {
        if UNESCAPED.is_match(&text.text) && state.left(arguments).has(Dangers::HTML) {
            let message = "the template marks untrusted data as safe";
            self.report.found(79, "python/no-autoescape", line(node), message);
        }
    }
}
