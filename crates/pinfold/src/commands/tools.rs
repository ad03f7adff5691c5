//! `doctor`, `config`, `version`, `completions`, `man`.

use std::{fs, io};

use clap::CommandFactory;
use clap_complete::{generate, shells};
use pinfold_types::{
    Error, ErrorCode, Result,
    api::{DoctorReport, ServerInfo, Verdict},
};

use super::{Context, workspace};
use crate::{
    args::{
        Cli,
        server::{Completions, Config, Doctor, Man, Names, Shell},
    },
    client::{Client, answers},
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
    let server: Option<ServerInfo> = if answers(&context.home).await {
        Client::existing(context.home.clone()).get("/api/v1/server").await.ok()
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

/// Commands whose words are names of workspaces.
const NAMED: &str =
    "info start stop pause resume rm rename set stats logs exec shell ps attach kill ls fork";

pub(super) fn completions(context: &Context, args: &Completions) -> Result<()> {
    let mut command = Cli::command();
    let mut script = Vec::new();
    match args.shell {
        Shell::Bash => {
            generate(shells::Bash, &mut command, "pinfold", &mut script);
            script.extend_from_slice(bash().as_bytes());
        }
        Shell::Zsh => generate(shells::Zsh, &mut command, "pinfold", &mut script),
        Shell::Fish => {
            generate(shells::Fish, &mut command, "pinfold", &mut script);
            let line = format!(
                "complete -c pinfold -n '__fish_seen_subcommand_from {NAMED}' -a '(pinfold __names workspaces 2>/dev/null)'\n"
            );
            script.extend_from_slice(line.as_bytes());
        }
    }
    context.output.bytes(&script)
}

/// Adds names of workspaces, asked of a server that runs; none is started for it.
fn bash() -> String {
    let cases = NAMED.replace(' ', "|");
    format!(
        r#"
_pinfold_and_names() {{
    _pinfold "$@"
    local cur="${{COMP_WORDS[COMP_CWORD]}}"
    if [[ ${{COMP_CWORD}} -ge 2 && "${{cur}}" != -* ]]; then
        case "${{COMP_WORDS[1]}}" in
            {cases})
                COMPREPLY+=( $(compgen -W "$(pinfold __names workspaces 2>/dev/null)" -- "${{cur}}") ) ;;
        esac
    fi
}}
complete -F _pinfold_and_names -o bashdefault -o default pinfold
"#
    )
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

pub(super) async fn names(context: &Context, args: &Names) -> Result<()> {
    let context = Context {
        home: context.home.clone(),
        client: Client::existing(context.home.clone()),
        output: crate::output::Output::new(false, true),
    };
    let names: Vec<String> = match args.kind.as_str() {
        "workspaces" => {
            let found = workspace::all(&context).await?;
            found.iter().map(|info| info.name.to_string()).collect()
        }
        "images" => {
            let found = super::image::all(&context).await?;
            found.iter().flat_map(|info| &info.names).map(ToString::to_string).collect()
        }
        _ => Vec::new(),
    };
    for name in names {
        context.output.line(name)?;
    }
    Ok(())
}
