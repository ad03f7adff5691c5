//! `audit tail|verify|export`.

use std::{io::Write, time::Duration};

use http::Method;
use http_body_util::BodyExt;
use pinfold_types::{
    Error, ErrorCode, Result,
    access::{AuditEntry, AuditVerdict},
};

use super::Context;
use crate::{
    args::access::{AuditCommand, AuditExport, AuditTail},
    client::Body,
    output::{
        human,
        table::{Cell, Paint, Table},
    },
};

const ALL: &str = "/api/v1/audit";
/// Records asked for at once while following.
const PAGE: u32 = 1000;
/// How often a follower asks.
const LOOK: Duration = Duration::from_millis(500);

pub(super) async fn audit(context: &Context, args: AuditCommand) -> Result<()> {
    match args {
        AuditCommand::Tail(args) => tail(context, &args).await,
        AuditCommand::Verify => verify(context).await,
        AuditCommand::Export(args) => export(context, &args).await,
    }
}

async fn tail(context: &Context, args: &AuditTail) -> Result<()> {
    let path = format!("{ALL}?limit={}", args.lines);
    let mut found: Vec<AuditEntry> = context.client.get(&path).await?;
    if !args.follow {
        return context.output.show(&found, |found| table(context, found));
    }
    let mut next = found.last().map_or(1, |last| last.seq + 1);
    loop {
        for record in &found {
            context.output.show(record, line)?;
        }
        if context.output.closed() {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
        found = context.client.get(&format!("{ALL}?from={next}&limit={PAGE}")).await?;
        next = found.last().map_or(next, |last| last.seq + 1);
    }
}

fn line(record: &AuditEntry) -> String {
    let outcome = record.outcome.as_deref().unwrap_or("…");
    let line = format!(
        "{} {} {} {} {} {} {} {outcome}",
        record.seq,
        human::moment(record.at),
        record.phase,
        record.operation,
        record.principal,
        record.surface,
        record.object,
    );
    format!("{}\n", crate::output::escape::visible(&line))
}

fn table(context: &Context, records: &[AuditEntry]) -> String {
    let headings = &["SEQ", "TIME", "PHASE", "OPERATION", "OBJECT", "PRINCIPAL", "BY", "OUTCOME"];
    let mut table = Table::new(context.output.color(), headings);
    for record in records {
        let outcome = record.outcome.as_deref().unwrap_or("");
        table.row([
            Cell::from(record.seq.to_string()),
            human::moment(record.at).into(),
            match record.phase.as_str() {
                "denied" | "security" => Cell::painted(&record.phase, Paint::Warn),
                phase => Cell::from(phase),
            },
            record.operation.as_str().into(),
            record.object.as_str().into(),
            record.principal.as_str().into(),
            record.surface.as_str().into(),
            match outcome {
                "" | "ok" => Cell::from(outcome),
                failed => Cell::painted(failed, Paint::Bad),
            },
        ]);
    }
    table.render()
}

/// A log that is not whole fails the command, so that a script notices.
async fn verify(context: &Context) -> Result<()> {
    let verdict: AuditVerdict = context.client.get(&format!("{ALL}/verify")).await?;
    context.output.show(&verdict, |verdict| match (verdict.whole, verdict.last) {
        (true, Some(last)) => format!("whole: {} records, up to {last}\n", verdict.records),
        (true, None) => "whole: no records\n".to_owned(),
        (false, _) => String::new(),
    })?;
    match verdict.problem {
        None => Ok(()),
        Some(problem) => Err(Error::new(ErrorCode::Unprocessable, problem)
            .hint("keep a copy of the audit directory, and find out who changed it")),
    }
}

async fn export(context: &Context, args: &AuditExport) -> Result<()> {
    let path = format!("{ALL}/export?from={}", args.from);
    let reply = context.client.request(Method::GET, &path, None, Body::Whole(None)).await?;
    let mut body = reply.into_body();
    let mut out = std::io::stdout().lock();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Error::new(ErrorCode::Upstream, "the export broke off").context(error)
        })?;
        let Ok(bytes) = frame.into_data() else { continue };
        if out.write_all(&bytes).is_err() {
            // Whoever reads has enough.
            return Ok(());
        }
    }
    Ok(())
}
