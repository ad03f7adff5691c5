//! Workspaces as people read them.

use std::fmt::Write;

use pinfold_types::{
    ByteSize, WorkspaceState,
    limits::{LimitKind, LimitStatus},
    workspace::{WorkspaceInfo, WorkspaceStats},
};

use crate::output::{
    escape::visible,
    human,
    table::{Cell, Paint, Table},
};

fn state(state: WorkspaceState) -> Cell {
    let paint = match state {
        WorkspaceState::Running => Paint::Good,
        WorkspaceState::Failed => Paint::Bad,
        WorkspaceState::Stopped | WorkspaceState::Destroyed => Paint::Dim,
        _ => Paint::Warn,
    };
    Cell::painted(state.as_str(), paint)
}

fn limit(info: &WorkspaceInfo, kind: LimitKind) -> String {
    info.limits
        .iter()
        .find(|status| status.kind == kind)
        .and_then(|status| status.value)
        .map_or_else(|| "-".to_owned(), |value| human::limit(kind, value))
}

/// The table of `pinfold ls`.
pub(super) fn list(color: bool, found: &[WorkspaceInfo]) -> String {
    let mut table = Table::new(color, &["NAME", "STATE", "IMAGE", "AGE", "MEM", "DISK"]);
    for info in found {
        table.row([
            info.name.as_str().into(),
            state(info.state),
            info.image.as_str().into(),
            human::age(info.created_at).into(),
            limit(info, LimitKind::Memory).into(),
            limit(info, LimitKind::Disk).into(),
        ]);
    }
    table.render()
}

/// The table of `pinfold stats`.
pub(super) fn usage(color: bool, rows: &[(WorkspaceInfo, WorkspaceStats)]) -> String {
    let mut table =
        Table::new(color, &["NAME", "MEM", "CPU", "PIDS", "DISK", "EXECS", "OOM", "UP"]);
    let size = |bytes: Option<u64>| bytes.map_or("-".to_owned(), |b| ByteSize(b).to_string());
    let count = |number: Option<u64>| number.map_or("-".to_owned(), |n| n.to_string());
    for (info, stats) in rows {
        let live = info.state.is_live();
        let up = if live { human::coarse(stats.uptime_ms) } else { "-".to_owned() };
        table.row([
            info.name.as_str().into(),
            size(stats.memory_bytes).into(),
            stats.cpu_usec.map_or("-".to_owned(), |usec| human::coarse(usec / 1000)).into(),
            count(stats.pids).into(),
            size(stats.disk_bytes).into(),
            stats.execs.to_string().into(),
            count(stats.oom_kills).into(),
            up.into(),
        ]);
    }
    table.render()
}

/// One limit of `pinfold info`.
pub(crate) fn limit_line(status: &LimitStatus) -> String {
    let name = status.kind.field().trim_end_matches("_bytes").trim_end_matches("_millis");
    let name = name.replace("_bytes_per_", " per ").replace('_', " ");
    let value = match status.value {
        Some(value) if status.enforced => human::limit(status.kind, value),
        _ => "none".to_owned(),
    };
    format!("  {name:<17} {value:<12} {}\n", visible(&status.by))
}

/// The text of `pinfold info`.
pub(super) fn details(info: &WorkspaceInfo) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &dyn std::fmt::Display| {
        let _infallible = writeln!(out, "{name:<11} {}", visible(&value.to_string()));
    };
    line("name", &info.name);
    line("id", &info.id);
    line("state", &info.state);
    if let Some(reason) = &info.reason {
        line("reason", reason);
    }
    for warning in &info.warnings {
        line("warning", warning);
    }
    line("image", &info.image);
    line("boot", &info.boot);
    line("created", &human::moment(info.created_at));
    if let Some(at) = info.started_at {
        line("started", &human::moment(at));
    }
    if let Some(at) = info.expires_at {
        line("expires", &human::moment(at));
    }
    if let Some(ms) = info.idle_ms {
        line("idle", &format!("removed after {} without use", human::coarse(ms)));
    }
    if let Some(pid) = info.pid {
        line("pid", &pid);
    }
    if let Some(parent) = info.lineage.parent {
        line("forked from", &parent);
    }
    if let Some(snapshot) = info.lineage.snapshot {
        line("snapshot", &snapshot);
    }
    line("egress", &"deny-all");
    for (name, value) in &info.labels {
        line("label", &format!("{name}={value}"));
    }
    if let Some(walls) = &info.walls {
        line(
            "walls",
            &format!(
                "{} as {}, namespaces {}, seccomp {}, landlock {}, cgroups {}, uids {}+{}{}{}",
                walls.backend,
                walls.mode,
                walls.namespaces.join(" "),
                if walls.seccomp { "on" } else { "off" },
                walls.landlock_abi,
                walls.cgroups,
                walls.uid_base,
                walls.uid_count,
                if walls.nested { ", nested" } else { "" },
                if walls.unlimited { ", unlimited allowed" } else { "" },
            ),
        );
    }
    out.push_str("limits\n");
    for status in &info.limits {
        out.push_str(&limit_line(status));
    }
    out
}
