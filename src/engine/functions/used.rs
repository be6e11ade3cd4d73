//! Which functions of users a plan calls, and where.

use super::scalar::Called;
use crate::engine::plan::{AggregateFunction, Expr, JobPlan, Step};
use crate::state::user::Probe;
use datafusion_physical_expr::ScalarFunctionExpr;
use std::sync::Arc;

/// A call of a user's function.
#[derive(Debug, Clone)]
pub struct UsedFunction {
    /// Index into [`JobPlan::pipelines`]; a call in a source's columns is one of each pipeline that reads the source.
    pub pipeline: usize,
    /// Name in capitals.
    pub name: Arc<str>,
    /// Version, as registered.
    pub version: Arc<str>,
    /// The check of this call.
    pub probe: Arc<Probe>,
}

/// All calls of users' functions, pipeline by pipeline.
pub fn used(plan: &JobPlan) -> Vec<UsedFunction> {
    let mut found = Vec::new();
    for (pipeline, steps) in plan.pipelines.iter().enumerate() {
        let source = &plan.sources[steps.source];
        let mut calls = Vec::new();
        source.columns.iter().for_each(|column| scalars(&column.expr, &mut calls));
        source.event_time.iter().for_each(|time| scalars(&time.watermark, &mut calls));
        steps.steps.iter().for_each(|step| in_step(step, &mut calls));
        found.extend(calls.into_iter().map(|(name, version, probe)| UsedFunction { pipeline, name, version, probe }));
    }
    found
}

type Call = (Arc<str>, Arc<str>, Arc<Probe>);

fn in_step(step: &Step, found: &mut Vec<Call>) {
    match step {
        Step::Filter(condition) => scalars(condition, found),
        Step::Project { columns, .. } => columns.iter().for_each(|column| scalars(&column.expr, found)),
        Step::AssignWindows { .. } => {}
        Step::Aggregate(window) => {
            window.keys.iter().for_each(|key| scalars(&key.expr, found));
            for call in &window.aggregates {
                call.argument.iter().chain(&call.filter).for_each(|expr| scalars(expr, found));
                if let AggregateFunction::User(user) = &call.function {
                    found.push((Arc::clone(&user.name), Arc::clone(&user.version), Arc::clone(&user.probe)));
                }
            }
        }
        Step::Rank(rank) => {
            rank.partition.iter().for_each(|key| scalars(&key.expr, found));
            rank.order.iter().for_each(|order| scalars(&order.expr, found));
        }
    }
}

fn scalars(expr: &Expr, found: &mut Vec<Call>) {
    let function = expr.downcast_ref::<ScalarFunctionExpr>();
    if let Some(called) = function.and_then(|function| function.fun().inner().downcast_ref::<Called>()) {
        let function = &called.function;
        found.push((Arc::clone(&function.name), Arc::clone(&function.version), Arc::clone(&called.probe)));
    }
    expr.children().into_iter().for_each(|child| scalars(child, found));
}
