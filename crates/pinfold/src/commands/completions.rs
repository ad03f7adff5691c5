//! `completions`, and the names that the scripts ask for.

use std::fmt::Write as _;

use clap::CommandFactory;
use clap_complete::{generate, shells};
use pinfold_types::Result;

use super::{Context, workspace};
use crate::args::{
    Cli,
    server::{Completions, Names, Shell},
};

/// Commands whose words are names of workspaces.
const NAMED: &str =
    "info start stop pause resume rm rename set stats logs exec shell ps attach kill ls fork";

/// Beginnings of zsh's words for arguments that are workspaces.
const ZSH_WORKSPACES: [&str; 3] =
    ["':workspace -- ", "'*::workspaces -- ", "':source -- Workspace"];
/// The same for images.
const ZSH_IMAGES: [&str; 3] = ["'--image=", "':image -- ", "'*::images -- "];

pub(super) fn completions(context: &Context, args: &Completions) -> Result<()> {
    let mut command = Cli::command();
    let mut script = Vec::new();
    match args.shell {
        Shell::Bash => {
            generate(shells::Bash, &mut command, "pinfold", &mut script);
            script.extend_from_slice(bash().as_bytes());
        }
        Shell::Zsh => {
            generate(shells::Zsh, &mut command, "pinfold", &mut script);
            script = zsh(&String::from_utf8_lossy(&script)).into_bytes();
        }
        Shell::Fish => {
            generate(shells::Fish, &mut command, "pinfold", &mut script);
            script.extend_from_slice(fish().as_bytes());
        }
    }
    context.output.bytes(&script)
}

/// Adds names of workspaces and images, asked of a server that runs; none is started for it.
/// bash takes `:` for the end of a word; where its own helper is loaded, tags are completed too.
fn bash() -> String {
    let cases = NAMED.replace(' ', "|");
    format!(
        r#"
_pinfold_and_names() {{
    _pinfold "$@"
    local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD-1]}}" kind=
    if declare -F _get_comp_words_by_ref >/dev/null; then
        _get_comp_words_by_ref -n : cur prev
    fi
    [[ ${{COMP_CWORD}} -ge 2 && "${{cur}}" != -* ]] || return
    if [[ "${{prev}}" == --image ]]; then
        COMPREPLY=()
        kind=images
    elif [[ "${{COMP_WORDS[1]}}" == image ]]; then
        case "${{COMP_WORDS[2]}}" in rm|export) [[ ${{COMP_CWORD}} -ge 3 ]] && kind=images ;; esac
    else
        case "${{COMP_WORDS[1]}}" in {cases}) kind=workspaces ;; esac
    fi
    [[ -n "${{kind}}" ]] || return
    COMPREPLY+=( $(compgen -W "$(pinfold __names "${{kind}}" 2>/dev/null)" -- "${{cur}}") )
    if declare -F __ltrim_colon_completions >/dev/null; then
        __ltrim_colon_completions "${{cur}}"
    fi
}}
complete -F _pinfold_and_names -o bashdefault -o default pinfold
"#
    )
}

/// The same for zsh, whose generated script has a completer for each argument.
fn zsh(generated: &str) -> String {
    let mut out = String::new();
    for line in generated.lines() {
        if line.starts_with("if [ \"$funcstack[1]\"") {
            for kind in ["workspaces", "images"] {
                let _infallible = write!(
                    out,
                    "_pinfold_{kind}() {{\n    local -a names\n    names=(${{(f)\"$(_call_program \
                     {kind} pinfold __names {kind} 2>/dev/null)\"}})\n    compadd -a names\n}}\n"
                );
            }
        }
        let begins = |words: &[&str]| words.iter().any(|word| line.starts_with(word));
        let kind = if begins(&ZSH_WORKSPACES) {
            Some("_pinfold_workspaces'")
        } else if begins(&ZSH_IMAGES) {
            Some("_pinfold_images'")
        } else {
            None
        };
        match kind {
            Some(completer) => out.push_str(&line.replace("_default'", completer)),
            None => out.push_str(line),
        }
        out.push('\n');
    }
    out
}

/// The same for fish.
fn fish() -> String {
    format!(
        "complete -c pinfold -n '__fish_seen_subcommand_from {NAMED}' -a '(pinfold __names workspaces 2>/dev/null)'\n\
         complete -c pinfold -n '__fish_seen_subcommand_from image; and __fish_seen_subcommand_from rm export' -a '(pinfold __names images 2>/dev/null)'\n\
         complete -c pinfold -n '__fish_seen_subcommand_from run create' -l image -x -a '(pinfold __names images 2>/dev/null)'\n"
    )
}

pub(super) async fn names(context: &Context, args: &Names) -> Result<()> {
    let context = Context {
        home: context.home.clone(),
        client: context.client.existing(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zsh_completes_workspaces_and_images_where_they_are_asked_for() {
        let mut command = Cli::command();
        let mut script = Vec::new();
        generate(shells::Zsh, &mut command, "pinfold", &mut script);
        let script = zsh(std::str::from_utf8(&script).expect("text"));
        let uses = |name: &str| script.matches(&format!(":{name}'")).count();
        assert!(uses("_pinfold_images") >= 4, "run, create, image rm, image export");
        assert!(uses("_pinfold_workspaces") >= 10);
        for kind in ["workspaces", "images"] {
            let defined = script.find(&format!("_pinfold_{kind}() {{")).expect("defined");
            assert!(defined < script.find("if [ \"$funcstack").expect("the call"));
        }
    }
}
