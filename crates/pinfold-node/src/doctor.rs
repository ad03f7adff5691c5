//! What this machine can do, tried out.

use std::sync::Arc;

use pinfold_types::{
    Result,
    api::{DoctorReport, Finding, Verdict},
    limits::{LimitKind, LimitStatus, ResourceLimits},
};

use crate::{LocalNode, limits, node::blocking};

impl LocalNode {
    /// Tries everything that workspaces need here, and says what is missing and the mend.
    pub async fn doctor(&self) -> Result<DoctorReport> {
        let inner = Arc::clone(self.inner());
        let mut findings =
            pinfold_namespace::probe(&inner.launcher_binary, inner.home.root()).await;
        blocking(move || {
            findings.extend(inner.pool.measure());
            findings.push(debian_finding());
            let enforceable = |kind: LimitKind| inner.enforceable(kind);
            // The other rooms have looked closer at theirs.
            for limit in limits::table(&enforceable) {
                if findings.iter().all(|finding| finding.check != limit.kind.field()) {
                    findings.push(limit_finding(limit));
                }
            }
            findings.push(launcher_finding(inner.launcher.pid()));
            let workspaces = &inner.config.workspaces;
            // What a workspace gets that asks for nothing; where it would be refused, the
            // machine's table.
            let usual = ResourceLimits::default();
            let profile = limits::for_create(&usual, workspaces, inner.mode, false, &enforceable);
            Ok(DoctorReport {
                mode: inner.mode.as_str().into(),
                findings,
                limits: profile.map_or_else(
                    |_| limits::table(&enforceable),
                    |limits| limits::statuses(&limits, &enforceable),
                ),
            })
        })
        .await
    }
}

fn limit_finding(limit: LimitStatus) -> Finding {
    let (detail, mend) = match limit.by.split_once("; ") {
        Some((why, mend)) if !limit.enforced => (why.to_owned(), Some(mend.to_owned())),
        _ => (limit.by, None),
    };
    let verdict = if limit.enforced { Verdict::Ok } else { Verdict::Missing };
    Finding { area: "limits".into(), check: limit.kind.field().into(), verdict, detail, mend }
}

fn launcher_finding(pid: Option<i32>) -> Finding {
    let (verdict, detail) = match pid {
        Some(pid) => (Verdict::Ok, format!("runs as process {pid}")),
        None => (Verdict::Degraded, "does not run; the next launch starts it again".to_owned()),
    };
    Finding { area: "server".into(), check: "launcher process".into(), verdict, detail, mend: None }
}

/// Debian images need a program of Debian's.
fn debian_finding() -> Finding {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = ["mmdebstrap", "debootstrap"]
        .into_iter()
        .find(|name| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()));
    let (verdict, detail, mend) = match found {
        Some(name) => (Verdict::Ok, format!("{name} makes them"), None),
        None => (
            Verdict::Degraded,
            "neither mmdebstrap nor debootstrap is there; other images work".to_owned(),
            Some("apt install mmdebstrap".to_owned()),
        ),
    };
    Finding { area: "images".into(), check: "Debian images".into(), verdict, detail, mend }
}
