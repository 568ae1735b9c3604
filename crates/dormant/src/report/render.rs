//! HTML and Markdown from one page and two templates.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, context};

use super::model::Report;
use super::page::Page;

const HTML: &str = "report.html";
const MARKDOWN: &str = "report.md";

/// The report as one HTML file that needs nothing else.
pub(super) fn html(report: &Report) -> String {
    render(report, HTML)
}

/// The report as Markdown.
pub(super) fn markdown(report: &Report) -> String {
    render(report, MARKDOWN)
}

fn render(report: &Report, template: &'static str) -> String {
    try_render(report, template).expect("the templates are part of the program and fit the page")
}

fn try_render(report: &Report, template: &'static str) -> Result<String, minijinja::Error> {
    let mut environment = environment()?;
    environment.add_template(HTML, include_str!("report.html.j2"))?;
    environment.add_template(MARKDOWN, include_str!("report.md.j2"))?;
    let page = Serde(Page::new(report));
    environment.get_template(template)?.render(context! { page, style => STYLE })
}

/// How all pages look.
pub(crate) const STYLE: &str = include_str!("style.css");

/// What all templates are rendered with. The name of a template decides whether text is escaped: HTML's is, Markdown's is not.
///
/// # Errors
/// None with this syntax.
pub(crate) fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    let syntax =
        SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build()?;
    environment.set_syntax(syntax);
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.add_filter("table_cell", |text: &str| table_cell(text));
    environment.add_filter("fenced", |text: &str| fenced(text));
    environment.add_filter("unbroken", |text: &str| unbroken(text));
    Ok(environment)
}

/// Text as a cell of a Markdown table, where it can break neither row nor cell nor start HTML.
fn table_cell(text: &str) -> String {
    let mut cell = String::with_capacity(text.len());
    for character in text.replace("](", "]\\(").chars() {
        match character {
            '|' | '`' | '*' | '_' => cell.extend(['\\', character]),
            '<' => cell.push_str("&lt;"),
            '\n' | '\r' => cell.push('⏎'),
            _ => cell.push(character),
        }
    }
    cell
}

/// Text whose brackets no line break separates.
fn unbroken(text: &str) -> String {
    let mut is_inside = false;
    let keep = |character| {
        is_inside = character == '[' || (is_inside && character != ']');
        if is_inside && character == ' ' { '\u{a0}' } else { character }
    };
    text.chars().map(keep).collect()
}

/// Text as a code block, in a fence longer than any in the text.
fn fenced(text: &str) -> String {
    let longest = text.split(|character| character != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("{fence}text\n{text}\n{fence}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_cells_hold_any_text() {
        assert_eq!(table_cell("a|b\n<i>"), "a\\|b⏎&lt;i>");
    }

    #[test]
    fn intervals_are_not_broken() {
        assert_eq!(unbroken("a [1, 2] b [3"), "a [1,\u{a0}2] b [3");
    }

    #[test]
    fn fences_are_longer_than_those_inside() {
        assert_eq!(fenced("a"), "```text\na\n```");
        assert_eq!(fenced("````"), "`````text\n````\n`````");
    }
}
