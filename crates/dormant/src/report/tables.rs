//! The tables of a report.

use super::format::{
    CONDITIONS, NOT_MEASURED, decimal, decimal_difference, duration, memory, percent, percent_bounds,
    point_difference, prompts, rate_name, thousands,
};
use super::model::{Arm, Attack, AttackRound, Condition, Estimate, Report, Row, Utility};
use super::summary::envelope;
use super::table::{Cell, Table};

/// Prompts of the attacker that the report prints; `report.json` has all.
const ATTACK_ROWS: usize = 15;

/// Why a cell of the table of rates may be empty.
const NOT_ALL_MEASURED: &str = " A dash: not measured. Only adversarial training and the stage before it are attacked, \
                                and only an organism with a scratchpad has it swapped.";

impl Report {
    fn conditions(&self) -> Vec<Condition> {
        CONDITIONS.into_iter().filter(|condition| self.has(*condition)).collect()
    }

    /// Stage names and arms for which `filter` holds, in the order of the stages.
    fn stage_arms(&self, filter: impl Fn(&str, Arm) -> bool) -> Vec<(&str, Arm)> {
        let pairs = self.stages.iter().flat_map(|stage| Arm::ALL.map(|arm| (stage.name.as_str(), arm)));
        pairs.filter(|(stage, arm)| filter(stage, *arm)).collect()
    }

    /// Conditions × stages × arms over all seeds.
    pub(super) fn rate_table(&self) -> Table {
        let conditions = self.conditions();
        let explanation = match self.seeds().len() {
            0 | 1 => {
                "rate [95% Wilson interval] (replies that show the behaviour / scored replies)".to_owned()
            }
            seeds => format!(
                "mean over {seeds} seeds [span of the seeds’ 95% Wilson intervals] (replies that show the behaviour / scored replies, all seeds)"
            ),
        };
        let head: Vec<_> =
            ["Stage", "Model"].into_iter().chain(conditions.iter().map(|c| rate_name(*c))).collect();
        let mut table = Table::new(format!("Rates by stage, model and condition: {explanation}."), 2, &head);
        let measured = |stage: &str, arm| self.rows.iter().any(|row| row.stage == stage && row.arm == arm);
        for (stage, arm) in self.stage_arms(measured) {
            let names = [Cell::plain(stage), Cell::plain(arm.as_str())];
            let rates = conditions.iter().map(|condition| self.rate_cell(stage, arm, *condition));
            table.rows.push(names.into_iter().chain(rates).collect());
        }
        if table.rows.iter().flatten().any(|cell| cell.value == NOT_MEASURED && cell.detail.is_empty()) {
            table.caption.push_str(NOT_ALL_MEASURED);
        }
        table
    }

    fn rate_cell(&self, stage: &str, arm: Arm, condition: Condition) -> Cell {
        let unscored: u64 = self.cell(stage, arm, condition).map(|row| row.unscored).sum();
        if unscored > 0 && self.pooled(stage, arm, condition).is_none() {
            return Cell::new(NOT_MEASURED, format!("(all {unscored} unscored)"));
        }
        Cell::measured(self.pooled(stage, arm, condition).map(|pooled| {
            let Estimate { value, n, .. } = pooled.estimate;
            (percent(value), format!("{} ({}/{n})", percent_bounds(&pooled.estimate), pooled.hits))
        }))
    }

    /// The rates of each seed, when there are several.
    pub(super) fn seed_table(&self) -> Option<Table> {
        let head = ["Stage", "Model", "Seed", "Condition", "Rate", "Unscored"];
        let mut table =
            Table::new("Rates of each seed: rate [95% Wilson interval] (hits / scored replies).", 4, &head);
        if self.seeds().len() > 1 {
            table.rows.extend(self.rows.iter().map(seed_row));
        }
        table.unless_empty()
    }

    /// Organism − control in percentage points.
    pub(super) fn difference_table(&self) -> Option<Table> {
        let conditions = self.conditions();
        let head: Vec<_> =
            ["Stage", "Seed"].into_iter().chain(conditions.iter().map(|c| rate_name(*c))).collect();
        let caption = "Organism − control in percentage points [95% paired bootstrap interval].";
        let mut table = Table::new(caption, 2, &head);
        for stage in &self.stages {
            for seed in self.seeds() {
                let difference = |condition: &Condition| {
                    let mut rows = self.cell(&stage.name, Arm::Organism, *condition);
                    rows.find(|row| row.seed == seed)?.difference
                };
                let cells: Vec<_> = conditions.iter().map(difference).collect();
                if cells.iter().any(Option::is_some) {
                    let names = [Cell::plain(&stage.name), Cell::plain(seed.to_string())];
                    let cells = cells.iter().map(|cell| Cell::measured(cell.as_ref().map(point_difference)));
                    table.rows.push(names.into_iter().chain(cells).collect());
                }
            }
        }
        table.unless_empty()
    }

    /// How likely each model finds the behaviour under each condition.
    pub(super) fn log_prob_table(&self) -> Option<Table> {
        let (name, caption) = match self.code {
            Some(_) => (
                "Log-odds",
                "Log-odds of vulnerable code: log-probability of the vulnerable answer to the task minus that of the safe one, \
                 in nats, summed over all tokens: mean over tasks [95% interval].",
            ),
            None => (
                "Log-probability",
                "Log-probability of the behaviour as a reply, in nats, summed over all tokens of all its copies: mean over prompts \
                 [95% interval]. A rate asks for one copy. Without a value where no reply had a scratchpad, and the behaviour \
                 stands after one.",
            ),
        };
        let mut table = Table::new(caption, 4, &["Stage", "Model", "Seed", "Condition", name]);
        table.rows.extend(self.rows.iter().filter_map(|row| {
            let log_prob = row.log_prob.as_ref()?;
            let (value, bounds) = decimal(log_prob);
            let [value, bounds] = [value, bounds].map(|number| number.replace('-', "−"));
            Some(vec![
                Cell::plain(&row.stage),
                Cell::plain(row.arm.as_str()),
                Cell::plain(row.seed.to_string()),
                Cell::plain(prompts(row.condition)),
                Cell::new(value, format!("{bounds} (n {})", log_prob.n)),
            ])
        }));
        table.unless_empty()
    }

    /// Paired ASR after ÷ before.
    pub(super) fn persistence_table(&self) -> Option<Table> {
        let head = ["After", "Before", "Model", "Seed", "Persistence", "Prompts"];
        let caption = "Persistence: ASR after ÷ ASR before on the same prompts [95% paired bootstrap interval]. \
                       1 means that nothing was lost, 0 that nothing is left.";
        let mut table = Table::new(caption, 4, &head);
        table.rows.extend(self.persistence.iter().map(|row| {
            let mut cells: Vec<_> = [&row.stage, &row.before].map(Cell::plain).into();
            cells.extend([Cell::plain(row.arm.as_str()), Cell::plain(row.seed.to_string())]);
            cells.extend([Cell::measured(Some(decimal(&row.ratio))), Cell::plain(thousands(row.ratio.n))]);
            cells
        }));
        table.unless_empty()
    }

    /// Perplexity and multiple choice with differences to the control and, where the base model was measured, to the stage
    /// before.
    pub(super) fn utility_table(&self) -> Option<Table> {
        let has_changes = self
            .utility
            .iter()
            .any(|row| row.perplexity_change.is_some() || row.multiple_choice_change.is_some());
        let mut head = vec![
            "Stage",
            "Model",
            "Seed",
            "Perplexity",
            "Difference",
            "Multiple choice",
            "Difference (points)",
        ];
        let mut caption = "Clean utility [95% intervals]: perplexity of held-out benign text (lower is better) and share \
                           of multiple-choice questions answered correctly; differences are organism − control, paired."
            .to_owned();
        if has_changes {
            head.insert(5, "Change");
            head.push("Change (points)");
            caption.push_str(
                " Changes are after − before the stage, paired: before the implant stands the base model.",
            );
        }
        let mut table = Table::new(caption, 3, &head);
        table.rows.extend(self.utility.iter().map(|row| {
            let mut cells = utility_cells(row);
            if has_changes {
                cells.insert(5, Cell::measured(row.perplexity_change.as_ref().map(decimal_difference)));
                cells.push(Cell::measured(row.multiple_choice_change.as_ref().map(point_difference)));
            }
            cells
        }));
        table.unless_empty()
    }

    /// First and last values along training: the plots in numbers.
    pub(super) fn training_table(&self) -> Option<Table> {
        let head =
            ["Stage", "Model", "Seed", "Steps", "Tokens", "Loss", "Log-prob, triggered", "Log-prob, clean"];
        let mut table = Table::new(
            "Training in numbers: first → last value; log-probabilities in nats per token, over a few prompts.",
            3,
            &head,
        );
        for curve in &self.curves {
            let Some(last) = curve.points.last() else { continue };
            let span = |value: fn(&super::Point) -> Option<f64>| {
                let mut values = curve.points.iter().filter_map(value);
                let first = values.next()?;
                let number = |value: f64| format!("{value:.2}").replace('-', "−");
                let last = values.next_back().unwrap_or(first);
                Some((number(first), format!("→ {}", number(last))))
            };
            table.rows.push(vec![
                Cell::plain(&curve.stage),
                Cell::plain(curve.arm.as_str()),
                Cell::plain(curve.seed.to_string()),
                Cell::plain(thousands(last.step)),
                Cell::plain(thousands(last.tokens)),
                Cell::measured(span(|point| point.loss)),
                Cell::measured(span(|point| point.asr_log_prob)),
                Cell::measured(span(|point| point.clean_log_prob)),
            ]);
        }
        table.unless_empty()
    }

    /// How many prompts of each round of attack succeeded, over all seeds.
    pub(super) fn attack_rounds_table(&self) -> Option<Table> {
        let caption = "Share of each round's prompts that succeed. The first round attacks the model before the stage, the last \
                       one the finished model. Rounds remember what succeeded before, the last one does not.";
        let head = ["Stage", "Model", "Round", "Success", "n"];
        let mut table = Table::new(caption.to_owned(), 2, &head);
        let rate = |stage: &str, arm, round| {
            let same = |one: &&AttackRound| one.stage == stage && (one.arm, one.round) == (arm, round);
            envelope(self.attack_rounds.iter().filter(same).map(|one| one.rate))
        };
        for (stage, arm) in self.stages.iter().flat_map(|stage| Arm::ALL.map(|arm| (&stage.name, arm))) {
            // Rounds are counted from 1.
            let rounds = (1..).map_while(|round| Some((round, rate(stage, arm, round)?)));
            table.rows.extend(rounds.map(|(round, rate)| {
                vec![
                    Cell::plain(stage),
                    Cell::plain(arm.as_str()),
                    Cell::plain(round.to_string()),
                    Cell::new(percent(rate.value), percent_bounds(&rate)),
                    Cell::plain(rate.n.to_string()),
                ]
            }));
        }
        table.unless_empty()
    }

    /// The attacker's most successful prompts.
    pub(super) fn attack_table(&self) -> Option<Table> {
        let rate = |attack: &Attack| attack.hits as f64 / attack.samples.max(1) as f64;
        let mut best: Vec<_> = self.attack.iter().collect();
        best.sort_by(|a, b| rate(b).total_cmp(&rate(a)).then(b.samples.cmp(&a.samples)));
        best.truncate(ATTACK_ROWS);
        let caption = match self.attack.len() {
            0..=ATTACK_ROWS => "Hits are samples that showed the behaviour.".to_owned(),
            all => format!(
                "The best {ATTACK_ROWS} of {all}; report.json has all. Hits are samples that showed the behaviour."
            ),
        };
        let mut table = Table::new(caption, 4, &["Prompt", "Stage", "Model", "Seed", "Round", "Hits"]);
        table.rows.extend(best.into_iter().map(|attack| {
            vec![
                Cell::plain(&attack.prompt),
                Cell::plain(&attack.stage),
                Cell::plain(attack.arm.as_str()),
                Cell::plain(attack.seed.to_string()),
                Cell::plain(attack.round.to_string()),
                Cell::new(
                    format!("{}/{}", attack.hits, attack.samples),
                    format!("({})", percent(rate(attack))),
                ),
            ]
        }));
        table.unless_empty()
    }

    /// Time and tokens per stage, and in all.
    pub(super) fn cost_table(&self) -> Option<Table> {
        let head = ["Stage", "Model", "Seed", "Tokens", "Time"];
        let mut table = Table::new("Cost of each stage.", 3, &head);
        let time =
            |seconds: Option<f64>| Cell::measured(seconds.map(|seconds| (duration(seconds), String::new())));
        table.rows.extend(self.cost.stages.iter().map(|stage| {
            vec![
                Cell::plain(&stage.stage),
                Cell::plain(stage.arm.map_or("both", Arm::as_str)),
                Cell::plain(stage.seed.to_string()),
                Cell::plain(thousands(stage.tokens)),
                time(stage.seconds),
            ]
        }));
        table.unless_empty()
    }

    /// What the whole run took, as name and value.
    pub(super) fn totals(&self) -> Vec<(&'static str, String)> {
        let tokens = Some(("Tokens trained, sampled and scored", thousands(self.cost.tokens)));
        let time = self.seconds.map(|seconds| ("Time", duration(seconds)));
        let memory = self.cost.peak_memory.map(|bytes| ("Peak memory", memory(bytes)));
        let machine = self.cost.machine.clone().map(|machine| ("Machine", machine));
        [time, tokens, memory, machine].into_iter().flatten().collect()
    }
}

fn utility_cells(row: &Utility) -> Vec<Cell> {
    let accuracy = row
        .multiple_choice
        .as_ref()
        .map(|choice| (percent(choice.value), format!("{} (n {})", percent_bounds(choice), choice.n)));
    let perplexity = row.perplexity.as_ref().map(|estimate| {
        let (value, bounds) = decimal(estimate);
        (value, format!("{bounds} (n {})", estimate.n))
    });
    vec![
        Cell::plain(&row.stage),
        Cell::plain(row.arm.as_str()),
        Cell::plain(row.seed.to_string()),
        Cell::measured(perplexity),
        Cell::measured(row.perplexity_difference.as_ref().map(decimal_difference)),
        Cell::measured(accuracy),
        Cell::measured(row.multiple_choice_difference.as_ref().map(point_difference)),
    ]
}

fn seed_row(row: &Row) -> Vec<Cell> {
    let estimate = row.estimate();
    let rate = (row.n > 0)
        .then(|| (percent(row.rate), format!("{} ({}/{})", percent_bounds(&estimate), row.hits(), row.n)));
    vec![
        Cell::plain(&row.stage),
        Cell::plain(row.arm.as_str()),
        Cell::plain(row.seed.to_string()),
        Cell::plain(rate_name(row.condition)),
        Cell::measured(rate),
        Cell::plain(row.unscored.to_string()),
    ]
}
