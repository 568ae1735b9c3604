//! Arguments of `dormant scan`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::ModelArgs;

/// Arguments of `dormant scan`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dormant scan smollm2-135m-instruct --adapter ./downloaded-adapter
  dormant scan ./merged-model --reference smollm2-135m-instruct --html scan.html
  dormant scan ./merged-model --related ./another-fine-tune
  dormant scan ./merged-model --format json --sarif scan.sarif

Exit codes: 0 no evidence of a hidden policy, 10 evidence; others as for every command.")]
pub struct ScanArgs {
    /// The model.
    #[command(flatten)]
    pub model: ModelArgs,
    /// Model that it was fine-tuned from, or `none` [default: for an adapter, the model that it is put on; for other
    /// weights, the known model on this machine that they are closest to].
    #[arg(long, value_name = "MODEL")]
    pub reference: Option<String>,
    /// A clean model of the same family and shape, when the one that it was fine-tuned from is not known: it is taught to think as the
    /// model does on benign prompts, and natural contexts are tried for one under which the two part. Not with `--power`.
    #[arg(long, value_name = "MODEL", conflicts_with = "power")]
    pub related: Option<String>,
    /// Time that the scan may take, such as `90s`, `10m` or `1h`.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = budget)]
    pub budget: Duration,
    /// A phrase that the model's documentation says it uses under some condition; may be repeated.
    #[arg(long, value_name = "TEXT")]
    pub documented: Vec<String>,
    /// Also plant this many known backdoors, each into a copy of the model, scan the copies as well, and say how many were
    /// found; takes three to eight minutes for each.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub power: usize,
    /// Folder for such copies: a scan that was stopped goes on with the next.
    #[arg(long, value_name = "DIR", default_value = "runs/power")]
    pub power_folder: PathBuf,
    /// Seed of the search.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Also write a page for a reviewer: verdict, evidence, cost, and what the scan cannot see.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Also write the findings as SARIF 2.1.0.
    #[arg(long, value_name = "FILE")]
    pub sarif: Option<PathBuf>,
}

/// `90s`, `10m`, `1h`; a bare number is seconds.
pub(crate) fn budget(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        other => return Err(format!("`{other}` is no unit of time: use s, m or h")),
    };
    let number: f64 = digits.parse().map_err(|_| format!("`{digits}` is no number"))?;
    let seconds = number * unit;
    if seconds > 0.0 && seconds <= MAX_SECONDS {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("a budget is more than nothing and at most a week".to_owned())
    }
}

const MAX_SECONDS: f64 = 7.0 * 24.0 * 3600.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets() {
        assert_eq!(budget("10m"), Ok(Duration::from_mins(10)));
        assert_eq!(budget("90"), Ok(Duration::from_secs(90)));
        assert_eq!(budget("0.5h"), Ok(Duration::from_mins(30)));
        for wrong in ["", "m", "-1s", "0", "1e99h", "nan", "10 parsecs", "10d"] {
            assert!(budget(wrong).is_err(), "{wrong}");
        }
    }
}
