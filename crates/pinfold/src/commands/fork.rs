//! `fork`.

use http::Method;
use pinfold_types::{
    Error, ErrorCode, Result,
    exec::ExecSpec,
    workspace::{ForkOutcome, ForkWorkspace},
};

use super::{Context, snapshot, workspace_path};
use crate::{
    args::{
        snapshot::Fork,
        values::{EnvVar, ForkSource, Pair},
    },
    output::{
        escape::visible,
        table::{Cell, Paint, Table},
    },
};

pub(super) async fn fork(context: &Context, args: Fork) -> Result<u8> {
    let mut body = ForkWorkspace {
        count: args.count,
        name: args.name,
        limits: args.limits.limits()?,
        env: args.env.into_iter().map(|EnvVar(name, value)| (name, value)).collect(),
        command: None,
        ttl_ms: args.ttl.map(|time| time.0),
        stopped: args.stopped,
        labels: args.label.into_iter().map(|Pair(name, value)| (name, value)).collect(),
        ..ForkWorkspace::default()
    };
    if !args.command.is_empty() {
        let mut spec = ExecSpec::argv(args.command);
        spec.background = true;
        spec.check()?;
        body.command = Some(spec);
    }
    let path = match &args.source {
        ForkSource::Workspace(name) => workspace_path(name, "/fork"),
        ForkSource::Snapshot(reference) => {
            format!("/api/v1/snapshots/{}/fork", snapshot::resolve(context, reference).await?)
        }
    };
    let outcomes: Vec<ForkOutcome> = context.client.send(Method::POST, &path, &body).await?;
    context.output.show(&outcomes, |outcomes| table(context, outcomes))?;
    let failed: Vec<&Error> = outcomes
        .iter()
        .filter_map(|outcome| match outcome {
            ForkOutcome::Error(error) => Some(error),
            ForkOutcome::Workspace(_) => None,
        })
        .collect();
    match failed.as_slice() {
        [] => Ok(0),
        [first, ..] => {
            let (count, of) = (failed.len(), outcomes.len());
            let message = format!("{count} of {of} forks failed: {}", first.message);
            let code = if failed.len() == 1 { first.code } else { common(&failed) };
            Err(Error { hint: first.hint.clone(), ..Error::new(code, message) })
        }
    }
}

fn common(errors: &[&Error]) -> ErrorCode {
    let first = errors[0].code;
    if errors.iter().all(|error| error.code == first) { first } else { ErrorCode::Internal }
}

fn table(context: &Context, outcomes: &[ForkOutcome]) -> String {
    // One child that went well needs no table: its name can be used at once.
    if let [ForkOutcome::Workspace(info)] = outcomes {
        return format!("{}\n", info.name);
    }
    let mut table = Table::new(context.output.color(), &["#", "NAME", "RESULT"]);
    for (place, outcome) in outcomes.iter().enumerate() {
        let number = Cell::from((place + 1).to_string());
        match outcome {
            ForkOutcome::Workspace(info) => {
                let state = Cell::painted(info.state.as_str(), Paint::Good);
                table.row([number, info.name.as_str().into(), state]);
            }
            ForkOutcome::Error(error) => {
                let text = format!("error: {}", visible(&error.message));
                table.row([number, "-".into(), Cell::painted(text, Paint::Bad)]);
            }
        }
    }
    table.render()
}
