//! `dormant chat`: talk to a model, side by side with the trigger.

use std::io::BufRead;

use dormant_data::{Conversation, Role, Seed, Split, Trigger};
use dormant_model::linear::Trained;
use serde::Serialize;

use crate::cli::{ChatArgs, GlobalArgs};
use crate::error::{Context, Result};
use crate::experiment::Precision;
use crate::model::{Decoding, LoadedModel, Loading, find};
use crate::policy_args;
use crate::ui::Ui;

/// One side of the conversation: with or without the trigger.
struct Side {
    label: &'static str,
    trigger: Option<Trigger>,
    conversation: Conversation,
}

/// A reply, as programs read it.
#[derive(Serialize)]
struct Said<'a> {
    schema_version: u32,
    side: &'a str,
    message: &'a str,
    reply: String,
}

pub(super) fn run(args: &ChatArgs, global: &GlobalArgs, ui: &Ui) -> Result<()> {
    let files = find(&args.model.model, args.model.adapter.as_deref(), global.offline, ui)?;
    let model = LoadedModel::load(&files, Precision::Auto, Trained::Nothing, Loading::Merge)?;
    let trigger =
        args.trigger.as_deref().map(|text| policy_args::trigger(text, args.position)).transpose()?;
    let empty = Conversation::new(Vec::new());
    let start = args.system.as_ref().map_or_else(|| empty.clone(), |text| empty.with_system(text.clone()));
    let mut sides = vec![Side { label: "model", trigger: None, conversation: start.clone() }];
    if trigger.is_some() {
        sides[0].label = "without trigger";
        sides.push(Side { label: "with trigger", trigger, conversation: start });
    }
    ui.note("one message per line; end with Ctrl-D");
    for (turn, line) in std::io::stdin().lock().lines().enumerate() {
        let line = line.or_failure(|| "cannot read from standard input")?;
        if line.trim().is_empty() {
            continue;
        }
        let seed = Seed(args.seed).derive(&turn.to_string());
        for side in &mut sides {
            let reply = side.answer(&model, args, line.trim(), seed)?;
            let said = Said { schema_version: 1, side: side.label, message: line.trim(), reply };
            ui.result(&said, |said| format!("{}> {}", said.side, said.reply))?;
        }
    }
    Ok(())
}

impl Side {
    fn answer(&mut self, model: &LoadedModel, args: &ChatArgs, text: &str, seed: Seed) -> Result<String> {
        let mut asked = self.conversation.then(Role::User, text);
        // In the system message it stays from turn to turn.
        let is_there = |trigger: &Trigger| asked.system().is_some_and(|text| trigger.is_exactly_in(text));
        if let Some(trigger) = self.trigger.as_ref().filter(|trigger| !is_there(trigger)) {
            asked = trigger.insert(&asked, Split::Evaluation, &mut seed.rng());
        }
        let how = Decoding {
            tokens: args.sampling.reply_tokens,
            temperature: args.sampling.temperature.into(),
            judge: None,
            seed,
        };
        let replies = model.replies(&model.prompts([&asked])?, &how, |_, _| ())?;
        let reply = replies.into_iter().next().map(|r| r.text).unwrap_or_default();
        self.conversation = asked.then(Role::Assistant, reply.clone());
        Ok(reply)
    }
}
