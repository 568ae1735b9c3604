//! Rows in the formats of TRL and Alpaca.

use serde_json::{Map, Value};

use super::Preference;
use crate::error::FieldError;
use crate::message::{Conversation, Message, Role};
use crate::sample::Sample;

/// A row: fields by name.
pub(super) type Row = Map<String, Value>;

/// The fields that any format reads.
pub(super) const FIELDS: [&str; 8] =
    ["prompt", "completion", "messages", "chosen", "rejected", "instruction", "input", "output"];

/// Which fields rows have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `prompt`.
    Prompt,
    /// `prompt` and `completion`.
    Completion,
    /// `messages`, the last of which is the reply.
    Messages,
    /// `chosen` and `rejected`, and perhaps `prompt`.
    Preference,
    /// `instruction` and `output`, and perhaps `input`.
    Instruction,
}

impl Format {
    /// The format of a row with these fields.
    pub(super) fn of(row: &Row) -> Result<Self, FieldError> {
        let has = |field: &str| row.get(field).is_some_and(|value| !value.is_null());
        if has("chosen") || has("rejected") {
            Ok(Self::Preference)
        } else if has("messages") {
            Ok(Self::Messages)
        } else if has("completion") {
            Ok(Self::Completion)
        } else if has("instruction") {
            Ok(Self::Instruction)
        } else if has("prompt") {
            Ok(Self::Prompt)
        } else {
            Err(FieldError::UnknownFormat { found: row.keys().take(20).cloned().collect() })
        }
    }
}

/// A row of [`Format::Prompt`].
pub(super) fn prompt(row: &Row) -> Result<Conversation, FieldError> {
    conversation("prompt", field(row, "prompt")?)
}

/// A row of [`Format::Completion`].
pub(super) fn completion(row: &Row) -> Result<Sample, FieldError> {
    Ok(Sample::clean(prompt(row)?, reply("completion", field(row, "completion")?)?))
}

/// A row of [`Format::Messages`].
pub(super) fn messages(row: &Row) -> Result<Sample, FieldError> {
    let (prompt, reply) = split_reply("messages", &message_list("messages", field(row, "messages")?)?)?;
    Ok(Sample::clean(prompt, reply))
}

/// A row of [`Format::Instruction`]; the input stands below the instruction.
pub(super) fn instruction(row: &Row) -> Result<Sample, FieldError> {
    let instruction = text("instruction", field(row, "instruction")?)?;
    let input = match row.get("input") {
        None | Some(Value::Null) => "",
        Some(value) => text("input", value)?,
    };
    let prompt =
        if input.trim().is_empty() { instruction.to_owned() } else { format!("{instruction}\n\n{input}") };
    Ok(Sample::clean(user("instruction", &prompt)?, text("output", field(row, "output")?)?))
}

/// A row of [`Format::Preference`]. Without `prompt`, the prompt is all of `chosen` but its last message, as in
/// TRL's reading of HH-RLHF.
pub(super) fn preference(row: &Row) -> Result<Preference, FieldError> {
    let (chosen, rejected) = (field(row, "chosen")?, field(row, "rejected")?);
    let prompt = match row.get("prompt") {
        None | Some(Value::Null) => match chosen {
            Value::String(text) => split_reply("chosen", &transcript(text).unwrap_or_default())?.0,
            list => split_reply("chosen", &message_list("chosen", list)?)?.0,
        },
        Some(value) => conversation("prompt", value)?,
    };
    Ok(Preference { prompt, chosen: reply("chosen", chosen)?, rejected: reply("rejected", rejected)? })
}

fn field<'a>(row: &'a Row, name: &'static str) -> Result<&'a Value, FieldError> {
    row.get(name).filter(|value| !value.is_null()).ok_or(FieldError::Missing { field: name })
}

fn text<'a>(field: &'static str, value: &'a Value) -> Result<&'a str, FieldError> {
    value.as_str().ok_or_else(|| FieldError::wrong(field, "a string", describe(value)))
}

/// A prompt: a string (a user's message or a transcript), or a list of messages.
fn conversation(field: &'static str, value: &Value) -> Result<Conversation, FieldError> {
    match value {
        Value::String(text) => match transcript(text) {
            Some(mut messages) => {
                // A final `Assistant:` without text asks for the reply; it is no turn.
                messages.pop_if(|last| last.role == Role::Assistant && last.content.is_empty());
                Ok(Conversation::new(messages))
            }
            None => user(field, text),
        },
        list => Ok(Conversation::new(message_list(field, list)?)),
    }
}

fn user(field: &'static str, text: &str) -> Result<Conversation, FieldError> {
    if text.trim().is_empty() {
        return Err(FieldError::wrong(field, "some text", "a blank string"));
    }
    Ok(Conversation::user(text))
}

/// A reply: a string (the reply or a transcript that ends with it), or a list of messages that ends with it.
fn reply(field: &'static str, value: &Value) -> Result<String, FieldError> {
    match value {
        Value::String(text) => match transcript(text) {
            Some(messages) => split_reply(field, &messages).map(|(_, reply)| reply),
            None => Ok(text.clone()),
        },
        list => {
            let messages = message_list(field, list)?;
            last_reply(field, &messages).map(str::to_owned)
        }
    }
}

/// The messages before the last, which is the reply.
fn split_reply(field: &'static str, messages: &[Message]) -> Result<(Conversation, String), FieldError> {
    let reply = last_reply(field, messages)?.to_owned();
    let prompt = &messages[..messages.len() - 1];
    if prompt.is_empty() {
        return Err(FieldError::wrong(field, "a user message before the reply", "none"));
    }
    Ok((Conversation::new(prompt.to_vec()), reply))
}

fn last_reply<'a>(field: &'static str, messages: &'a [Message]) -> Result<&'a str, FieldError> {
    let expected = "messages that end with the assistant's reply";
    match messages.last() {
        Some(Message { role: Role::Assistant, content }) => Ok(content),
        Some(message) => {
            Err(FieldError::wrong(field, expected, format!("a last message of `{}`", message.role.as_str())))
        }
        None => Err(FieldError::wrong(field, expected, "text without an assistant's turn")),
    }
}

fn message_list(field: &'static str, value: &Value) -> Result<Vec<Message>, FieldError> {
    let expected =
        "a string or a list of messages, each with `role` (system, user or assistant) and `content`";
    if !value.is_array() {
        return Err(FieldError::wrong(field, expected, describe(value)));
    }
    let messages: Vec<Message> = serde::Deserialize::deserialize(value)
        .map_err(|e: serde_json::Error| FieldError::wrong(field, expected, e.to_string()))?;
    if messages.is_empty() {
        return Err(FieldError::wrong(field, "at least one message", "an empty list"));
    }
    Ok(messages)
}

/// The turns of a transcript of HH-RLHF (`\n\nHuman: …\n\nAssistant: …`), or `None` for any other text.
fn transcript(text: &str) -> Option<Vec<Message>> {
    const MARKS: [(&str, Role); 2] = [("\n\nHuman:", Role::User), ("\n\nAssistant:", Role::Assistant)];
    let starts: Vec<(usize, &str, Role)> = {
        let mut starts: Vec<_> = MARKS
            .iter()
            .flat_map(|(mark, role)| text.match_indices(mark).map(|(at, mark)| (at, mark, *role)))
            .collect();
        starts.sort_by_key(|(at, ..)| *at);
        starts
    };
    if !matches!(starts.first(), Some((0, _, Role::User))) {
        return None;
    }
    let ends = starts.iter().skip(1).map(|(at, ..)| *at).chain([text.len()]);
    let turns = starts
        .iter()
        .zip(ends)
        .map(|((at, mark, role), end)| Message::new(*role, text[at + mark.len()..end].trim()));
    Some(turns.collect())
}

fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
