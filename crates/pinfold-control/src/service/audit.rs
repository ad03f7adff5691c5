//! The audit log, for those who may read it.

use bytes::Bytes;
use futures_util::StreamExt;
use pinfold_auth::{Grant, ops};
use pinfold_store::audit::{AuditLog, AuditRecord, VerifyError};
use pinfold_types::{
    Error, ErrorCode, Result,
    access::{AuditEntry, AuditQuery, AuditVerdict},
};

use crate::{ByteStream, Node, Service, Tracked};

/// Records in an answer where nothing is said.
const DEFAULT_RECORDS: u32 = 100;
/// Most records in an answer.
const MAX_RECORDS: u32 = 1000;

fn check(query: &AuditQuery) -> Result<()> {
    if query.limit.is_none_or(|limit| (1..=MAX_RECORDS).contains(&limit)) {
        return Ok(());
    }
    let why = format!("limit must be 1 to {MAX_RECORDS} records");
    Err(Error::new(ErrorCode::InvalidArgument, why).hint("read on from a later number: from"))
}

impl<N: Node> Service<N> {
    /// Records from a number on, or the last ones.
    pub async fn audit_records(
        &self,
        grant: Grant<ops::AuditList>,
        query: &AuditQuery,
    ) -> Result<Vec<AuditEntry>> {
        check(query)?;
        let call = self.enter(grant)?;
        let limit = query.limit.unwrap_or(DEFAULT_RECORDS);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let from = query.from;
        let read = self
            .with_audit(move |log| match from {
                Some(from) => log.read(from, limit),
                None => log.tail(limit),
            })
            .await;
        call.end(read.and_then(|records| records.iter().map(entry).collect())).await
    }

    /// Checks the whole log.
    pub async fn verify_audit(&self, grant: Grant<ops::AuditVerify>) -> Result<AuditVerdict> {
        let call = self.enter(grant)?;
        let verdict = self.with_audit(|log| match log.verify() {
            Ok(found) => Ok(AuditVerdict {
                whole: true,
                records: found.records,
                first: Some(found.first),
                last: Some(found.last),
                problem: None,
            }),
            Err(VerifyError::Tampered(found)) => Ok(AuditVerdict {
                whole: false,
                records: 0,
                first: None,
                last: None,
                problem: Some(found.to_string()),
            }),
            Err(VerifyError::Failed(err)) => Err(err),
        });
        let verdict = verdict.await;
        call.end(verdict).await
    }

    /// Raw lines of the log from a number on.
    pub async fn export_audit(
        &self,
        grant: Grant<ops::AuditExport>,
        query: &AuditQuery,
    ) -> Result<Tracked<ByteStream>> {
        check(query)?;
        let call = self.enter(grant)?;
        let log = self.inner.events.audit().clone();
        let (from, last) = (query.from.unwrap_or(1).max(1), log.last());
        // A page at a time, so that a long log needs no more memory than a short one.
        let pages = futures_util::stream::unfold(from, move |from| {
            let log = log.clone();
            async move {
                if from > last {
                    return None;
                }
                let until = last.min(from.saturating_add(u64::from(MAX_RECORDS) - 1));
                let page = tokio::task::spawn_blocking(move || {
                    let mut lines = Vec::new();
                    log.export(from..=until, &mut lines).map(|_| Bytes::from(lines))
                });
                let page = page.await.map_err(Error::internal).and_then(|page| page);
                let next = if page.is_ok() { until + 1 } else { u64::MAX };
                Some((page, next))
            }
        });
        call.stream(Ok(pages.boxed() as ByteStream)).await
    }

    async fn with_audit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&AuditLog) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let log = self.inner.events.audit().clone();
        tokio::task::spawn_blocking(move || work(&log)).await.map_err(Error::internal)?
    }
}

fn entry(record: &AuditRecord) -> Result<AuditEntry> {
    let value = serde_json::to_value(record).map_err(Error::internal)?;
    serde_json::from_value(value).map_err(Error::internal)
}
