//! `doctor`, `config`, `version`, `man`, `openapi`.

use std::{fs, io};

use clap::CommandFactory;
use pinfold_types::{
    Error, ErrorCode, Result,
    api::{DoctorReport, ServerInfo, Verdict},
};

use super::{Context, workspace};
use crate::{
    args::{
        Cli,
        server::{Config, Doctor, Man, Openapi},
    },
    client::answers,
    output::table::{Cell, Paint, Table},
};

pub(super) async fn doctor(context: &Context, args: &Doctor) -> Result<u8> {
    if args.attack {
        return super::attack::attack(context).await;
    }
    let report: DoctorReport = context.client.get("/api/v1/doctor").await?;
    context.output.show(&report, |report| {
        let color = context.output.color();
        let mut table = Table::new(color, &["AREA", "CHECK", "VERDICT", "DETAIL"]);
        for finding in &report.findings {
            let verdict = match finding.verdict {
                Verdict::Ok => Cell::painted("ok", Paint::Good),
                Verdict::Degraded => Cell::painted("degraded", Paint::Warn),
                Verdict::Missing => Cell::painted("missing", Paint::Bad),
            };
            table.row([
                finding.area.as_str().into(),
                finding.check.as_str().into(),
                verdict,
                finding.detail.as_str().into(),
            ]);
            if let Some(mend) = &finding.mend {
                table.row(["".into(), "".into(), Cell::painted("mend", Paint::Dim), mend.into()]);
            }
        }
        let mut out = format!("mode: {}\n\n{}\nlimits\n", report.mode, table.render());
        for status in &report.limits {
            out.push_str(&workspace::limit_line(status));
        }
        out
    })?;
    let missing = report.findings.iter().any(|finding| finding.verdict == Verdict::Missing);
    Ok(if missing { ErrorCode::Unavailable.exit_code() } else { 0 })
}

pub(super) fn config(context: &Context, args: &Config) -> Result<()> {
    let Config::Show = args;
    let config = crate::server::config(&context.home)?;
    let text = toml::to_string(&config).map_err(Error::internal)?;
    context.output.show(&config, |_| text)
}

pub(super) async fn version(context: &Context) -> Result<()> {
    let own = env!("CARGO_PKG_VERSION");
    let server: Option<ServerInfo> = if context.client.is_remote() {
        Some(context.client.get("/api/v1/server").await?)
    } else if answers(&context.home).await {
        context.client.existing().get("/api/v1/server").await.ok()
    } else {
        None
    };
    let value = serde_json::json!({"version": own, "server": server});
    context.output.show(&value, |_| match &server {
        Some(server) => {
            format!("pinfold {own}\nserver  {} (pid {})\n", server.version, server.pid)
        }
        None => format!("pinfold {own}\nserver  not running\n"),
    })
}

pub(super) fn man(context: &Context, args: &Man) -> Result<()> {
    let failed = |error: io::Error| {
        Error::new(
            ErrorCode::InvalidPath,
            format!("{} cannot be written: {error}", args.directory.display()),
        )
    };
    fs::create_dir_all(&args.directory).map_err(failed)?;
    clap_mangen::generate_to(Cli::command().disable_help_subcommand(true), &args.directory)
        .map_err(failed)?;
    context.output.note(format!("written to {}", args.directory.display()));
    Ok(())
}

/// What this program's server would serve; none is asked.
pub(super) fn openapi(context: &Context, args: &Openapi) -> Result<()> {
    if args.operations {
        return context.output.text(&pinfold_api::openapi::operations_page());
    }
    let document = pinfold_api::openapi::document();
    let text = serde_json::to_string_pretty(&document).map_err(Error::internal)?;
    context.output.line(text)
}
