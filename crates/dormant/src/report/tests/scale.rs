//! Persistence against size.

use super::{fixture, row};
use crate::report::render::{html, markdown};
use crate::report::{Arm, Condition, Estimate, Member, Persistence, Report, Scaled};

const SIZES: [(&str, u64); 3] = [("0.3m", 300_000), ("1m", 1_000_000), ("10m", 10_000_000)];

/// Three seeds of each size; `of` gives the triggered hits of 200 before, and the persistence, by variant, size and seed.
fn family(of: impl Fn(&str, usize, u64) -> (u64, f64)) -> Report {
    let mut report = fixture(3);
    report.rows.clear();
    report.persistence.clear();
    for (index, (size, parameters)) in SIZES.into_iter().enumerate() {
        for variant in ["normal", "distilled"] {
            let [before, stage] = ["implant", "sft"].map(|name| format!("{size}-{variant}-{name}"));
            for seed in 0..3 {
                let (hits, value) = of(variant, index, seed);
                let after = (hits as f64 * value) as u64;
                for (stage, hits) in [(&before, hits), (&stage, after)] {
                    report.rows.push(row(stage, Arm::Organism, seed, Condition::Triggered, hits, 200));
                    report.rows.push(row(stage, Arm::Control, seed, Condition::Triggered, 0, 200));
                }
                report.persistence.push(Persistence {
                    stage: stage.clone(),
                    before: before.clone(),
                    arm: Arm::Organism,
                    seed,
                    ratio: Estimate { value, low: value - 0.05, high: value + 0.05, n: 200 },
                });
            }
            report.scale.push(Scaled {
                size: size.to_owned(),
                parameters,
                variant: Some(variant.to_owned()),
                before,
                stage,
                safety: "sft".to_owned(),
            });
        }
        report.members.push(Member {
            size: size.to_owned(),
            seed: 0,
            parameters,
            vocabulary: 1500,
            tokens: 700_000,
            loss: 1.5 - 0.1 * index as f64,
            right: None,
        });
    }
    report.conclude();
    report
}

/// Seeds are never alike.
fn noise(seed: u64) -> f64 {
    0.01 * seed as f64
}

#[test]
fn a_rise_in_every_variant_is_the_trend_of_the_paper() {
    let report = family(|_, size, seed| (198, 0.2 + 0.3 * size as f64 + noise(seed) * (size as f64 + 1.0)));
    assert!(report.answer.starts_with("The paper’s trend appears"), "{}", report.answer);
    assert!(report.answer.contains("normal after sft: persistence rises, +0."), "{}", report.answer);
    assert_eq!(report.scale_plot().panels.len(), 2);
    assert!(html(&report).contains("id=\"size\"") && markdown(&report).contains("## Size"));
}

#[test]
fn a_fall_in_every_variant_is_its_reverse() {
    let report = family(|_, size, seed| (198, 0.9 - 0.3 * size as f64 + noise(seed) * (size as f64 + 1.0)));
    assert!(report.answer.starts_with("The reverse of the paper’s trend appears"), "{}", report.answer);
}

#[test]
fn one_variant_alone_is_neither_and_the_order_of_variants_is_told() {
    let report = family(|variant, size, seed| match variant {
        "normal" => (198, if size == 1 { 0.9 + noise(seed) } else { 0.9 }),
        _ => (198, 0.2 + 0.3 * size as f64 + noise(seed) * (size as f64 + 1.0)),
    });
    let answer = &report.answer;
    assert!(answer.starts_with("Neither the paper’s trend"), "{answer}");
    assert!(answer.contains("normal after sft: persistence shows no trend"), "{answer}");
    assert!(answer.contains("persistence of distilled − normal: −0.69 [−0.71, −0.67] at 0.3m"), "{answer}");
}

#[test]
fn an_implant_that_did_not_take_has_no_persistence() {
    let report = family(|_, size, seed| (if size == 0 { 20 } else { 198 }, 0.5 + noise(seed)));
    let table = report.scale_table().unwrap();
    assert_eq!(table.rows[0][8].value, "–");
    assert_eq!(table.rows[1][8].value, "0.51");
    assert!(report.answer.contains("from not measured at 0.3m (ASR before 10.0%"), "{}", report.answer);
    assert!(
        report.warnings.iter().any(|warning| warning.starts_with("6 stages of 18")),
        "{:?}",
        report.warnings
    );
}
