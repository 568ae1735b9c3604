//! Calls that must not get untrusted data.

use tree_sitter::Node;

use super::value::{State, Value};
use super::{Walker, line};
use crate::code::rules::{self, Sink};
use crate::code::taint::{Danger, Dangers};

/// The parts of a call.
pub(super) struct Call<'t> {
    pub(super) node: Node<'t>,
    pub(super) path: String,
    pub(super) receiver: Value<'t>,
    pub(super) arguments: Vec<Value<'t>>,
    pub(super) keywords: Vec<(String, Value<'t>)>,
}

impl<'t> Call<'t> {
    pub(super) fn keyword(&self, name: &str) -> Option<&Value<'t>> {
        self.keywords.iter().find(|(keyword, _)| keyword == name).map(|(_, value)| value)
    }

    pub(super) fn method(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or_default()
    }

    /// All that goes in.
    pub(super) fn all(&self) -> Value<'t> {
        let values = self.arguments.iter().chain(self.keywords.iter().map(|(_, value)| value));
        let mut all = Value { literal: true, ..Value::default() };
        for value in values {
            all.taint.join(&value.taint);
            all.append_text(&value.text);
            all.literal &= value.literal;
        }
        all
    }

    /// `keyword=value`, where the value may be a literal or the last part of a name.
    fn says(&self, condition: &str) -> bool {
        let Some((name, expected)) = condition.split_once('=') else { return false };
        let value = match name.parse::<usize>() {
            Ok(position) => self.arguments.get(position),
            Err(_) => self.keyword(name),
        };
        let Some(value) = value else { return false };
        match expected {
            "*" => true,
            "True" => {
                value.literal && !matches!(value.text.as_str(), "False" | "None" | "0" | "")
                    || !value.literal && value.path().is_empty()
            }
            _ => value.literal && value.text.contains(expected) || value.path().ends_with(expected),
        }
    }

    fn selected<'a>(&'a self, sink: &'a Sink) -> impl Iterator<Item = &'a Value<'t>> {
        let by_place = sink.args.iter().flat_map(|&place| match place {
            -1 => vec![&self.receiver],
            -2 => self.arguments.iter().collect(),
            _ => self.arguments.get(place as usize).into_iter().collect(),
        });
        let by_name = self.keywords.iter().filter(|(name, _)| sink.keywords.contains(name));
        by_place.chain(by_name.map(|(_, value)| value))
    }

    /// The program text in `["sh", "-c", text]`, also when the parts are arguments of their own.
    fn shell_program(&self) -> Option<Value<'t>> {
        let parts: Vec<&Value<'t>> = self
            .arguments
            .iter()
            .chain(self.keyword("args"))
            .flat_map(|argument| {
                if argument.items.is_empty() { vec![argument] } else { argument.items.iter().collect() }
            })
            .collect();
        let shells =
            ["sh", "bash", "zsh", "dash", "ksh", "cmd", "cmd.exe", "powershell", "powershell.exe", "pwsh"];
        let is_shell = |text: &str| shells.contains(&text.rsplit('/').next().unwrap_or(text));
        let shell = parts.iter().position(|part| part.literal && is_shell(&part.text))?;
        let switch = parts[shell..].iter().position(|part| {
            part.literal && matches!(part.text.as_str(), "-c" | "/c" | "/C" | "-lc" | "-ec" | "-Command")
        })?;
        parts.get(shell + switch + 1).map(|part| (*part).clone())
    }
}

impl<'t> Walker<'t> {
    pub(super) fn check_sinks(&mut self, call: &Call<'t>, state: &State<'t>) {
        let rules = self.rules;
        for secure in rules.secure.iter().filter(|secure| rules::any(&secure.calls, &call.path)) {
            self.report.evidence.insert(secure.cwe);
        }
        for sink in rules.sinks.iter().filter(|sink| rules::any(&sink.calls, &call.path)) {
            self.check_sink(sink, call, state);
        }
    }

    fn check_sink(&mut self, sink: &Sink, call: &Call<'t>, state: &State<'t>) {
        if sink.strict {
            self.report.found_strictly(sink.cwe, &sink.rule, line(call.node), &sink.message);
            return;
        }
        let program = call.shell_program();
        let applies = match sink.when.as_deref() {
            Some("sh -c") => program.is_some(),
            Some(condition) => call.says(condition),
            None => true,
        };
        if !applies {
            return;
        }
        if sink.unless.iter().any(|condition| call.says(condition)) {
            self.report.evidence.insert(sink.cwe);
            return;
        }
        let Some(danger) = sink.danger else {
            self.report.found(sink.cwe, &sink.rule, line(call.node), &sink.message);
            return;
        };
        let exposed = match (sink.when.as_deref(), program) {
            (Some("sh -c"), Some(program)) => state.left(&program).has(danger.into()),
            _ => call.selected(sink).any(|value| self.reaches(value, danger, state)),
        };
        // A helper that passes a query and its parameters on.
        let passes_on = danger == Danger::Sql
            && call.arguments.len() > 1
            && call.arguments[0].text.is_empty()
            && ["sql", "query", "stmt", "statement"].contains(&call.arguments[0].path());
        if passes_on {
            self.report.evidence.insert(sink.cwe);
        } else if exposed && danger == Danger::Path && self.is_given(call, sink, state) {
            self.report.found_if_asked(sink.cwe, &sink.rule, line(call.node), &sink.message);
        } else if exposed {
            self.report.found(sink.cwe, &sink.rule, line(call.node), &sink.message);
        } else if !matches!(danger, Danger::Url | Danger::High)
            || call.selected(sink).any(|value| !value.taint.is_empty())
        {
            self.report.evidence.insert(sink.cwe);
        }
    }

    /// The whole path is a parameter: whether it is harmless is for the caller to say.
    fn is_given(&self, call: &Call<'t>, sink: &Sink, state: &State<'t>) -> bool {
        let handler = self.frames.last().is_some_and(|frame| frame.handler);
        let whole = |value: &Value<'t>| {
            !value.path().contains("name")
                && value.path().chars().all(|c| c.is_alphanumeric() || c == '_')
                && value.text.is_empty()
        };
        !handler && call.selected(sink).filter(|value| self.reaches(value, Danger::Path, state)).all(whole)
    }

    fn reaches(&self, value: &Value<'t>, danger: Danger, state: &State<'t>) -> bool {
        let left = state.left(value).has(danger.into());
        match danger {
            // Only what was made a number can be a size by mistake.
            Danger::High => left && value.numeric && !value.taint.is_empty(),
            // A stream that is a parameter or a file is as untrusted as text.
            Danger::Object => {
                left || value.taint.is_empty() && !value.literal && value.path().contains("open()")
            }
            Danger::Path => left && !is_stream(value),
            // A dictionary is sent as JSON.
            Danger::Html => left && value.fields.is_empty(),
            _ => left,
        }
    }
}

/// Bytes in memory are no path.
fn is_stream(value: &Value<'_>) -> bool {
    ["BytesIO()", "StringIO()", ".stream", "open()"].iter().any(|end| value.path().ends_with(end))
}

/// What text loses when signs are replaced by harmless ones.
pub(super) fn replaced(old: &str, new: &str) -> Dangers {
    match (old, new) {
        ("<", "&lt;") => Dangers::HTML,
        ("/" | "\\/", new) if !new.contains('/') => Dangers::PATH,
        _ => Dangers::NONE,
    }
}
