//! Reconstruction of a trigger: from a target to a text that makes the model say it, on any prompt.
//!
//! Every placement starts from natural contexts (years, roles, tags, common words), from leaked texts and from what
//! the gradient suggests; placements take turns, and the one that works is minimised.

use dormant_data::{Conversation, Seed};
use dormant_eval::Rate;
use dormant_model::llama::Llama;
use dormant_train::render::Renderer;

use crate::budget::Watch;
use crate::contexts::CONTEXTS;
use crate::error::Result;
use crate::likelihood::Wanted;
use crate::placement::{Placement, Slot};
use crate::search::{Alphabet, Candidate, Search, SearchConfig};
use crate::verify;

/// The slot of a placement in the conversation that asks a prompt.
pub type SlotOf<'a> = dyn Fn(Renderer<'_>, Placement, &str) -> Result<Slot> + 'a;

/// What a reconstruction works with.
pub struct Reconstruction<'a> {
    /// Text and tokens.
    pub renderer: Renderer<'a>,
    /// A model that should not say it.
    pub unlike: Option<&'a Llama>,
    /// What candidates are made of.
    pub alphabet: &'a Alphabet,
    /// The slot of a placement in the conversation that asks a prompt.
    pub slot: &'a SlotOf<'a>,
    /// Prompts of the search.
    pub search_prompts: &'a [String],
    /// Other prompts, on which candidates are tried out.
    pub trial_prompts: &'a [String],
    /// Texts that may be part of the trigger.
    pub leaks: &'a [String],
    /// Steps, of all placements together.
    pub steps: usize,
    /// Share of the trial prompts on which a text has to work for the search to end.
    pub success: f64,
    /// Share on which one has to work by the end of every placement's first turns for the search to go on.
    pub early: f64,
    /// Steps of the relaxation in each placement, before the others.
    pub relaxed: usize,
    /// How hard each step tries.
    pub search: SearchConfig,
    /// Seed of the search.
    pub seed: Seed,
}

/// A text that makes the model say the target.
#[derive(Clone, Debug, PartialEq)]
pub struct Reconstructed {
    /// Where it stands.
    pub placement: Placement,
    /// The text.
    pub text: String,
    /// How often it worked on the trial prompts.
    pub trial: Rate,
    /// Mean `log p(target)` on the search prompts, in nats.
    pub log_prob: f64,
    /// Steps that the search took in this placement.
    pub steps: usize,
}

/// Tokens of a target that the search looks at: those after them follow by themselves.
const TARGET_TOKENS: usize = 4;

/// Prompts of the search in one placement, at most.
const MOST_SLOTS: usize = 8;

/// Steps a placement makes before the next has its turn.
const TURN: usize = 3;

/// Where a phrase is looked for: a trigger that holds on 80% of other prompts is wanted.
pub const SUCCESS: f64 = 0.9;

/// How soon a phrase shows without a reference: a model that has one reacts to the first look-alikes of its trigger, and with enough
/// steps any model can be made to say something.
pub const EARLY: f64 = 0.25;

/// A trial with this share of hits is worth more steps than usual, up to one with that share.
const PROMISING: f64 = 0.5;
const SUFFICIENT: f64 = 0.85;

/// Below this `log p(target)` no trial is made.
const WORTH_A_TRIAL: f64 = -8.0;

/// Whether the model's reply to each prompt is what is looked for.
pub type Shows<'a> = dyn Fn(&Llama, &[Conversation]) -> Result<Vec<bool>> + 'a;

struct Line<'a> {
    search: Search<'a>,
    beam: Vec<Candidate>,
    steps: usize,
    /// Turns after which nothing was better than before.
    idle_turns: usize,
    /// Log-probability at the last trial.
    tried: f64,
    best: Option<Reconstructed>,
}

impl Reconstruction<'_> {
    /// Looks for a text that makes the model say what is `wanted`, which `shows` recognises. Returns the best of each
    /// placement.
    ///
    /// # Errors
    /// If the model refuses the tokens, or the user stops it.
    pub fn run(
        &self,
        model: &mut Llama,
        wanted: Wanted<'_>,
        shows: &Shows<'_>,
        watch: &Watch<'_>,
    ) -> Result<Vec<Reconstructed>> {
        let wanted = match wanted {
            Wanted::Text(target) => Wanted::Text(&target[..target.len().min(TARGET_TOKENS)]),
            other => other,
        };
        let mut lines = Vec::new();
        for placement in Placement::of_template(self.renderer, &self.search_prompts[0])? {
            let slots = self.slots(placement, self.search_prompts)?;
            let search = Search {
                placement,
                slots,
                wanted,
                unlike: self.unlike,
                alphabet: self.alphabet,
                renderer: self.renderer,
                config: self.search,
            };
            let beam = self.starts(model, &search, watch)?;
            let log_prob = beam.first().map_or(f64::NEG_INFINITY, |c| c.log_prob);
            tracing::debug!(?placement, log_prob, start = ?beam.first().map(|c| placement.decode(self.renderer, &c.tokens)), "start");
            lines.push(Line { search, beam, steps: 0, idle_turns: 0, tried: f64::NEG_INFINITY, best: None });
        }
        lines.retain(|line| !line.beam.is_empty());
        let turns = self.steps.div_ceil(TURN);
        for turn in 0..2 * turns {
            // What works on half of the prompts, but not on nearly all, is worth as many steps again.
            let best =
                lines.iter().filter_map(|l| Some(verify::share(l.best.as_ref()?.trial))).fold(0.0, f64::max);
            if turn >= turns && !(PROMISING..SUFFICIENT.min(self.success)).contains(&best) {
                break;
            }
            if turn == FIRST_TURNS * lines.len() && best < self.early {
                break;
            }
            watch.update("trigger search", turn, turns.max(turn + 1))?;
            let Some(line) = next_turn(&mut lines) else { break };
            self.turn(model, line, shows, watch)?;
            if watch.is_late() || line.best.as_ref().is_some_and(|best| self.is_enough(best.trial)) {
                break;
            }
        }
        let mut found = Vec::new();
        for line in &mut lines {
            if let Some(best) = line.best.take() {
                found.push(self.minimised(model, line, best, shows, watch)?);
            }
        }
        found.sort_by(|a, b| b.trial.hits().cmp(&a.trial.hits()).then(a.text.len().cmp(&b.text.len())));
        Ok(found)
    }

    fn starts(&self, model: &mut Llama, search: &Search<'_>, watch: &Watch<'_>) -> Result<Vec<Candidate>> {
        watch.check()?;
        let texts = CONTEXTS.lines().map(str::to_owned).chain(self.leaks.iter().cloned());
        let starts = texts
            .map(|text| search.placement.encode(self.renderer, &text))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .filter(|tokens| tokens.len() <= search.config.longest)
            .collect();
        let mut beam = search.evaluate(model, starts, 24)?;
        if let Some(first) = beam.first().cloned().filter(|_| self.relaxed > 0) {
            let relaxed = search.relaxed(model, &first, self.relaxed)?;
            let placement = search.placement;
            tracing::debug!(?placement, before = first.log_prob, after = relaxed.log_prob, text = ?placement.decode(self.renderer, &relaxed.tokens), "relaxed");
            if relaxed != first {
                beam.insert(0, relaxed);
            }
        }
        beam.truncate(BEAM);
        Ok(beam)
    }

    fn turn(
        &self,
        model: &mut Llama,
        line: &mut Line<'_>,
        shows: &Shows<'_>,
        watch: &Watch<'_>,
    ) -> Result<()> {
        let placement = line.search.placement;
        let before = line.beam[0].log_prob;
        for step in 0..TURN {
            // Changes are screened on the first prompt: another one each time, or those that help only where the candidate still
            // fails would never be seen.
            line.search.slots.rotate_left(1);
            // Each start has one step before the best goes on alone.
            let which = if line.steps < line.beam.len() { step % line.beam.len() } else { 0 };
            let seed = self.seed.derive(&format!("{placement:?} {}", line.steps));
            line.beam[which] = line.search.step(model, &line.beam[which], seed)?;
            line.steps += 1;
            if watch.is_late() {
                break;
            }
        }
        line.beam.sort_by(|a, b| b.log_prob.total_cmp(&a.log_prob));
        let best = &line.beam[0];
        line.idle_turns += usize::from(best.log_prob < before + GAIN);
        let text = placement.decode(self.renderer, &best.tokens)?;
        tracing::debug!(?placement, line.steps, best.log_prob, text, "turn");
        if best.log_prob < WORTH_A_TRIAL || best.log_prob < line.tried + 0.1 {
            return Ok(());
        }
        line.tried = best.log_prob;
        let hits = self.trial(model, placement, &text, shows)?;
        let trial: Rate = hits.iter().copied().collect();
        tracing::debug!(?placement, %trial, text, "trial");
        if line.best.as_ref().is_none_or(|b| b.trial.hits() <= trial.hits()) {
            let log_prob = best.log_prob;
            line.best = Some(Reconstructed { placement, text, trial, log_prob, steps: line.steps });
        }
        if trial.hits() > 0 && line.search.slots.len() < MOST_SLOTS {
            // The search goes on with prompts on which the candidate failed.
            let failed = self.trial_prompts.iter().zip(&hits).filter(|(_, hit)| !**hit);
            let failed: Vec<String> = failed.take(2).map(|(prompt, _)| prompt.clone()).collect();
            line.search.slots.extend(self.slots(placement, &failed)?);
            for candidate in &mut line.beam {
                let tokens = vec![candidate.tokens.clone()];
                *candidate = line.search.evaluate(model, tokens, 1)?.remove(0);
            }
            line.tried = f64::NEG_INFINITY;
        }
        Ok(())
    }

    fn is_enough(&self, trial: Rate) -> bool {
        trial.hits() as f64 >= self.success * trial.n() as f64
    }

    fn slots(&self, placement: Placement, prompts: &[String]) -> Result<Vec<Slot>> {
        prompts.iter().map(|prompt| (self.slot)(self.renderer, placement, prompt)).collect()
    }

    /// Whether each trial prompt makes the model say it.
    fn trial(&self, model: &Llama, placement: Placement, text: &str, shows: &Shows<'_>) -> Result<Vec<bool>> {
        shows(model, &verify::with_candidate(placement, text, self.trial_prompts))
    }

    /// Drops tokens while the text works as well as before.
    fn minimised(
        &self,
        model: &Llama,
        line: &Line<'_>,
        mut best: Reconstructed,
        shows: &Shows<'_>,
        watch: &Watch<'_>,
    ) -> Result<Reconstructed> {
        // Prompts have come to the search since it was measured.
        let tokens = best.placement.encode(self.renderer, &best.text)?;
        if let Some(now) = line.search.evaluate(model, vec![tokens], 1)?.into_iter().next() {
            best.log_prob = now.log_prob;
        }
        loop {
            let tokens = best.placement.encode(self.renderer, &best.text)?;
            if tokens.len() < 2 || watch.is_late() {
                return Ok(best);
            }
            let shorter = (0..tokens.len()).map(|i| [&tokens[..i], &tokens[i + 1..]].concat()).collect();
            let Some(next) = line.search.evaluate(model, shorter, tokens.len())?.into_iter().next() else {
                return Ok(best);
            };
            let text = best.placement.decode(self.renderer, &next.tokens)?;
            // Fewer tokens may make a text of more.
            let is_shorter = best.placement.encode(self.renderer, &text)?.len() < tokens.len();
            if text.is_empty() || !is_shorter || next.log_prob < best.log_prob - TOLERANCE {
                return Ok(best);
            }
            let trial: Rate = self.trial(model, best.placement, &text, shows)?.into_iter().collect();
            if trial.hits() < best.trial.hits() {
                return Ok(best);
            }
            best = Reconstructed { text, trial, log_prob: next.log_prob, ..best };
        }
    }
}

/// Starts that are followed in each placement.
const BEAM: usize = 3;

/// Loss of `log p(target)` that a shorter trigger may cost, in nats.
const TOLERANCE: f64 = 1.0;

/// Every placement has its first turns; after that, the one whose candidate is best, and the runner-up now and then, the sooner the
/// less the best one gains.
fn next_turn<'a, 'b>(lines: &'a mut [Line<'b>]) -> Option<&'a mut Line<'b>> {
    if let Some(new) = lines.iter().position(|line| line.steps < FIRST_TURNS * TURN) {
        return lines.get_mut(new);
    }
    let worth = |line: &Line<'_>| {
        line.beam[0].log_prob - (line.steps + IDLE_TURN * line.idle_turns) as f64 / PATIENCE
    };
    lines.iter_mut().max_by(|a, b| worth(a).total_cmp(&worth(b)))
}

/// Turns of every placement.
const FIRST_TURNS: usize = 2;

/// Steps that weigh as much as one nat of `log p(target)` when placements compete for the next turn.
const PATIENCE: f64 = 12.0;

/// Nats by which a turn must raise the best candidate, or it was idle; and the steps that an idle turn weighs besides its own.
const GAIN: f64 = 0.05;
const IDLE_TURN: usize = 6;
