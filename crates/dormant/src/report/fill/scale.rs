//! Models from scratch: what they reached, and which of them the organisms are.

use super::super::model::{Member, Scaled};
use crate::error::Result;
use crate::plan::{Plan, StageKind};
use crate::stage::metrics::{METRICS_FILE, MetricLine};
use crate::stage::pretrain_record::{PretrainRecord, answered};
use crate::stage::read_lines;
use crate::stage_dir::StageDir;
use crate::store::RunStore;

/// The models from scratch, in the order of the plan.
pub(super) fn members(store: &RunStore, plan: &Plan) -> Result<Vec<Member>> {
    let mut members = Vec::new();
    for spec in plan.stages() {
        let StageKind::Pretrain(stage) = &spec.kind else { continue };
        let dir = store.stage(spec);
        let PretrainRecord { parameters, vocabulary } = PretrainRecord::read(&dir)?;
        let (tokens, loss) = training(&dir)?;
        members.push(Member {
            size: stage.size.to_string(),
            seed: spec.seed,
            parameters,
            vocabulary,
            tokens,
            loss,
            right: answered(&dir)?.estimate(),
        });
    }
    Ok(members)
}

/// Tokens trained on, and the mean loss over the last tenth of the steps.
fn training(dir: &StageDir) -> Result<(u64, f64)> {
    let lines: Vec<MetricLine> = read_lines(&dir.path().join(METRICS_FILE))?;
    let steps: Vec<(u64, f64)> = lines
        .iter()
        .filter_map(|line| match line {
            MetricLine::Step { tokens, loss, .. } => Some((*tokens, *loss)),
            _ => None,
        })
        .collect();
    let last = &steps[steps.len() - steps.len().div_ceil(10)..];
    let loss = last.iter().map(|(_, loss)| loss).sum::<f64>() / last.len().max(1) as f64;
    Ok((steps.iter().map(|(tokens, _)| tokens).sum(), loss))
}

/// Every safety stage of every size, in the order of the plan.
pub(super) fn scaled(plan: &Plan, members: &[Member]) -> Vec<Scaled> {
    let mut all: Vec<Scaled> = Vec::new();
    for spec in plan.stages() {
        let StageKind::Safety(stage) = &spec.kind else { continue };
        let (Some(size), Some(name)) = (spec.size, spec.training()) else { continue };
        let size = size.to_string();
        let lineage = plan.lineage(spec);
        let implant = lineage.iter().find_map(|stage| stage.training());
        let member = members.iter().find(|member| member.size == size);
        let (Some(before), Some(member)) = (implant, member) else { continue };
        if all.iter().any(|other| other.stage == name) {
            continue;
        }
        // The name of an organism of a family is its size and its own name, if there are several.
        let variant =
            spec.organism.as_deref().and_then(|organism| organism.strip_prefix(&format!("{size}-")));
        all.push(Scaled {
            variant: variant.map(ToOwned::to_owned),
            parameters: member.parameters,
            before: before.to_owned(),
            stage: name.to_owned(),
            safety: stage.safety.name.clone(),
            size,
        });
    }
    all
}
