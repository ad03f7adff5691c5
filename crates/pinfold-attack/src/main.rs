//! `pinfold-attack ID` runs one attempt and prints its outcome as one JSON line;
//! `pinfold-attack --list` prints the catalogue.

use std::{io::Write, process::ExitCode};

use pinfold_attack::catalogue::ALL;

fn main() -> ExitCode {
    let mut out = std::io::stdout().lock();
    let line = match std::env::args().nth(1).as_deref() {
        Some("--list") => {
            ALL.iter().map(|attempt| attempt.id).collect::<Vec<_>>().join("\n") + "\n"
        }
        Some(id) => match ALL.iter().find(|attempt| attempt.id == id) {
            Some(attempt) => format!(
                "{}\n",
                serde_json::to_string(&attempt.run()).expect("an outcome is plain data")
            ),
            None => return ExitCode::from(2),
        },
        None => return ExitCode::from(2),
    };
    if out.write_all(line.as_bytes()).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
