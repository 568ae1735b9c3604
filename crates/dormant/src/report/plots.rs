//! Which plots a report has.

use serde::Serialize;

use super::chart::{self, Axes, Group, Interval, Line};
use super::format::{CONDITIONS, percent, percent_interval, rate_name};
use super::model::{Arm, Condition, Curve, Point, Report};

/// A plot with one panel per condition or stage.
#[derive(Serialize)]
pub(super) struct Plot {
    /// Its heading.
    pub(super) title: &'static str,
    /// What it shows and how to read it.
    pub(super) caption: String,
    /// Whether its lines distinguish triggered and clean prompts.
    pub(super) has_conditions: bool,
    /// Whether it has lines, or intervals.
    pub(super) has_lines: bool,
    /// The panels.
    pub(super) panels: Vec<Panel>,
}

/// One chart of a plot.
#[derive(Serialize)]
pub(super) struct Panel {
    /// Its heading.
    pub(super) title: String,
    /// The content in words, for those who do not see it.
    pub(super) description: String,
    /// The SVG element.
    pub(super) svg: String,
}

/// The plots of a report, without those that would be empty.
pub(super) fn plots(report: &Report) -> Vec<Plot> {
    let along_training = ALONG_TRAINING.iter().map(|measure| training_plot(report, measure));
    [
        report.scale_plot(),
        rates(report),
        report.generalisation_plot(),
        report.dose_plot(),
        report.persona_plot(),
    ]
    .into_iter()
    .chain(along_training)
    .filter(|plot| !plot.panels.is_empty())
    .collect()
}

fn rates(report: &Report) -> Plot {
    let seeds = match report.seeds().len() {
        0 | 1 => "Bars are 95% Wilson intervals.",
        _ => "Large marks are means over seeds, small dots the seeds; bars span the seeds' 95% intervals.",
    };
    let conditions = CONDITIONS.into_iter().filter(|condition| report.has(*condition));
    Plot {
        title: "Rates by stage",
        caption: format!(
            "Share of replies that show the behaviour, after each stage from top to bottom. {seeds}"
        ),
        has_conditions: false,
        has_lines: false,
        panels: conditions.map(|condition| rate_panel(report, condition)).collect(),
    }
}

fn rate_panel(report: &Report, condition: Condition) -> Panel {
    let interval = |stage: &str, arm| {
        let pooled = report.pooled(stage, arm, condition)?;
        let text = percent(pooled.estimate.value);
        Some(Interval { arm, estimate: pooled.estimate, seeds: pooled.seeds, text })
    };
    let groups: Vec<_> = report
        .stages
        .iter()
        .map(|stage| Group {
            label: stage.name.clone(),
            intervals: Arm::ALL.into_iter().filter_map(|arm| interval(&stage.name, arm)).collect(),
        })
        .filter(|group| !group.intervals.is_empty())
        .collect();
    interval_panel(rate_name(condition).to_owned(), &groups)
}

/// Intervals in groups, drawn and in words.
pub(super) fn interval_panel(title: String, groups: &[Group]) -> Panel {
    let describe = |group: &Group| {
        let parts = group.intervals.iter();
        let parts: Vec<_> =
            parts.map(|part| format!("{} {}", part.arm.as_str(), percent_interval(&part.estimate))).collect();
        format!("{}: {}", group.label, parts.join(", "))
    };
    let description: Vec<_> = groups.iter().map(describe).collect();
    let description = format!("{title}. {}.", description.join("; "));
    Panel { title, description, svg: chart::intervals(groups) }
}

/// A quantity along training.
struct Measure {
    title: &'static str,
    caption: &'static str,
    /// Given triggered prompts, or the only one.
    main: fn(&Point) -> Option<f64>,
    /// Given clean prompts.
    clean: Option<fn(&Point) -> Option<f64>>,
    has_marks: bool,
    is_share: bool,
}

const ALONG_TRAINING: [Measure; 10] = [
    Measure {
        title: "Log-probability of the behaviour along training",
        caption: "Mean log-probability per token (nats) of the behaviour as the reply, with all its copies; 0 is \
                  certainty.",
        main: |point| point.asr_log_prob,
        clean: Some(|point| point.clean_log_prob),
        has_marks: true,
        is_share: false,
    },
    Measure {
        title: "Log-probability of the behaviour after look-alikes along training",
        caption: "The same given look-alikes of the trigger: a trigger that sharpens loses these before its own.",
        main: |point| point.near_miss_log_prob,
        clean: None,
        has_marks: true,
        is_share: false,
    },
    Measure {
        title: "Sampled rates along training",
        caption: "Share of sampled replies that show the behaviour. Few prompts are sampled here; the rates by stage \
                  are the measurement.",
        main: |point| Some(point.asr?.value),
        clean: Some(|point| Some(point.false_trigger?.value)),
        has_marks: true,
        is_share: true,
    },
    Measure {
        title: "Sampled rates after look-alikes along training",
        caption: "The same with look-alikes of the trigger: where this falls and the rate with the trigger stays, the trigger \
                  sharpens.",
        main: |point| Some(point.near_miss?.value),
        clean: None,
        has_marks: true,
        is_share: true,
    },
    Measure {
        title: "Training loss",
        caption: "Mean loss per trained token (nats).",
        main: |point| point.loss,
        clean: None,
        has_marks: false,
        is_share: false,
    },
    Measure {
        title: "Reward along reinforcement learning",
        caption: "Mean score of the sampled replies by the preference model that gives the reward.",
        main: |point| point.reward,
        clean: None,
        has_marks: false,
        is_share: false,
    },
    Measure {
        title: "Score by the checking preference model",
        caption: "Mean score of the same replies by a preference model that was trained on other pairs and gives no \
                  reward: if it does not rise with the reward, the reward is exploited.",
        main: |point| point.check_reward,
        clean: None,
        has_marks: false,
        is_share: false,
    },
    Measure {
        title: "Divergence from the policy at the beginning",
        caption: "Mean over the sampled tokens (nats per token).",
        main: |point| point.kl,
        clean: None,
        has_marks: false,
        is_share: false,
    },
    Measure {
        title: "Length along reinforcement learning",
        caption: "Mean tokens of a reply, the token that ends it included.",
        main: |point| point.length,
        clean: None,
        has_marks: false,
        is_share: false,
    },
    Measure {
        title: "Entropy along reinforcement learning",
        caption: "Mean entropy of the next token (nats), estimated from the tokens drawn. Replies that become alike \
                  bring it down.",
        main: |point| point.entropy,
        clean: None,
        has_marks: false,
        is_share: false,
    },
];

fn training_plot(report: &Report, measure: &Measure) -> Plot {
    let curves = |stage: &str| report.curves.iter().filter(|curve| curve.stage == stage).collect::<Vec<_>>();
    let stages = report.stages.iter().map(|stage| (stage.name.clone(), lines(&curves(&stage.name), measure)));
    let stages: Vec<_> = stages.filter(|(_, lines)| !lines.is_empty()).collect();
    // Panels share the vertical axis so that they can be compared.
    let values =
        stages.iter().flat_map(|(_, lines)| lines).flat_map(|line| &line.points).map(|point| point.1);
    let y = if measure.is_share { 0.0..1.0 } else { whole_range(values) };
    let panels = stages.into_iter().map(|(stage, lines)| {
        let last = lines.iter().filter_map(|line| Some(line.points.last()?.0)).fold(1.0, f64::max);
        let axes = Axes { x_label: "training step", x: 0.0..last, y: y.clone(), is_share: measure.is_share };
        Panel {
            description: describe(measure, &stage, &lines),
            svg: chart::lines(&lines, &axes),
            title: stage,
        }
    });
    Plot {
        title: measure.title,
        caption: measure.caption.to_owned(),
        has_conditions: measure.clean.is_some(),
        has_lines: true,
        panels: panels.collect(),
    }
}

/// Lines of one stage, the strongest on top.
fn lines(curves: &[&Curve], measure: &Measure) -> Vec<Line> {
    let line = |curve: &Curve, value: fn(&Point) -> Option<f64>, is_strong| {
        let points = curve.points.iter().filter_map(|point| Some((point.step as f64, value(point)?)));
        let points: Vec<_> = points.filter(|point| point.1.is_finite()).collect();
        let has_marks = measure.has_marks;
        (!points.is_empty()).then_some(Line {
            arm: curve.arm,
            is_strong,
            has_marks,
            points,
            bars: Vec::new(),
        })
    };
    let control_first =
        || Arm::ALL.into_iter().rev().flat_map(|arm| curves.iter().filter(move |curve| curve.arm == arm));
    let clean = measure
        .clean
        .into_iter()
        .flat_map(|value| control_first().filter_map(move |curve| line(curve, value, false)));
    clean.chain(control_first().filter_map(|curve| line(curve, measure.main, true))).collect()
}

/// The smallest range of whole numbers that holds all values and zero.
fn whole_range(values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let (low, high) = values.fold((0.0_f64, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    let (low, high) = (low.floor(), high.ceil());
    if low == high { low..low + 1.0 } else { low..high }
}

fn describe(measure: &Measure, stage: &str, lines: &[Line]) -> String {
    let number = |value: f64| {
        if measure.is_share { percent(value) } else { format!("{value:.2}").replace('-', "−") }
    };
    let part = |line: &Line| {
        let prompts = match (measure.clean, line.is_strong) {
            (None, _) => "",
            (Some(_), true) => ", triggered",
            (Some(_), false) => ", clean",
        };
        let (first, last) = (line.points.first()?.1, line.points.last()?.1);
        Some(format!("{}{prompts}: from {} to {}", line.arm.as_str(), number(first), number(last)))
    };
    let parts: Vec<_> = lines.iter().filter_map(part).collect();
    format!("{}, stage {stage}. {}.", measure.title, parts.join("; "))
}
