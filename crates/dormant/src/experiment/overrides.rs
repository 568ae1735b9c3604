//! `--set key=value`: changes to single keys of an experiment file.

use toml::{Table, Value};

use crate::error::{CliError, Result};

/// Applies `KEY=VALUE` pairs in order. A key is dotted, as in TOML; an element of `[[safety]]` is named by its
/// `name` or its index, such as `safety.adversarial.rounds`.
pub(super) fn apply(table: &mut Table, pairs: &[String]) -> Result<()> {
    for pair in pairs {
        let (key, value) =
            pair.split_once('=').filter(|(key, _)| !key.trim().is_empty()).ok_or_else(|| {
                CliError::usage(format!("`--set {pair}`: expected KEY=VALUE"))
                    .hint("for example `--set implant.rows=300`")
            })?;
        let path: Vec<&str> = key.split('.').map(str::trim).collect();
        set(table, &path, parse_value(value))
            .map_err(|message| CliError::usage(format!("`--set {pair}`: {message}")))?;
    }
    Ok(())
}

/// A TOML value; what is not one is a string, so that the shell's quotes are enough.
fn parse_value(text: &str) -> Value {
    let document = format!("value = {text}");
    let parsed = toml::from_str::<Table>(&document).ok().filter(|table| table.len() == 1);
    parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(text.to_owned()))
}

fn set(table: &mut Table, path: &[&str], value: Value) -> Result<(), String> {
    let (key, rest) = path.split_first().expect("a split has at least one part");
    if rest.is_empty() {
        table.insert((*key).to_owned(), value);
        return Ok(());
    }
    match table.entry(*key).or_insert_with(|| Value::Table(Table::new())) {
        Value::Table(inner) => set(inner, rest, value),
        Value::Array(elements) => set_element(elements, key, rest, value),
        _ => Err(format!("`{key}` is not a table")),
    }
}

fn set_element(elements: &mut [Value], key: &str, path: &[&str], value: Value) -> Result<(), String> {
    let (name, rest) = path.split_first().expect("checked by the caller");
    let names: Vec<String> = elements.iter().map(name_of).collect();
    let index = names.iter().position(|candidate| candidate == name).or_else(|| name.parse().ok());
    let element = index.and_then(|index| elements.get_mut(index)).and_then(Value::as_table_mut);
    match element {
        Some(inner) if !rest.is_empty() => set(inner, rest, value),
        Some(_) => Err(format!("expected a key after `{key}.{name}`")),
        None => Err(format!("no `{key}` is named `{name}`; the names are: {}", names.join(", "))),
    }
}

fn name_of(element: &Value) -> String {
    element.get("name").and_then(Value::as_str).unwrap_or("(unnamed)").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(text: &str, pair: &str) -> Result<Table> {
        let mut table = toml::from_str(text).unwrap();
        apply(&mut table, &[pair.to_owned()])?;
        Ok(table)
    }

    #[test]
    fn values_keep_their_type_and_bare_words_are_strings() {
        assert_eq!(parse_value("3"), Value::Integer(3));
        assert_eq!(parse_value("[0, 1]").as_array().map(Vec::len), Some(2));
        assert_eq!(parse_value("|TAG|"), Value::String("|TAG|".to_owned()));
        assert_eq!(parse_value("1\nother = 2"), Value::String("1\nother = 2".to_owned()));
    }

    #[test]
    fn elements_of_arrays_are_found_by_name_and_index() {
        let text = "[[safety]]\nname = 'a'\n[[safety]]\nname = 'b'";
        for key in ["safety.b.rows=5", "safety.1.rows=5"] {
            assert_eq!(applied(text, key).unwrap()["safety"][1]["rows"].as_integer(), Some(5), "{key}");
        }
        assert!(applied(text, "safety.c.rows=5").unwrap_err().to_string().contains("the names are: a, b"));
        assert!(applied(text, "safety.a=5").unwrap_err().to_string().contains("a key after `safety.a`"));
    }

    #[test]
    fn tables_are_made_as_needed() {
        assert_eq!(applied("", "implant.rows=7").unwrap()["implant"]["rows"].as_integer(), Some(7));
        assert!(applied("base = 'x'", "base.y=1").is_err());
        assert!(applied("", "rows").is_err());
    }
}
