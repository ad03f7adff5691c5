//! `pinfold-attack ID` runs one attempt and prints its outcome as one JSON line;
//! `pinfold-attack --catalogue` prints what it can try, one JSON object a line.

use std::{io::Write, process::ExitCode};

use pinfold_attack::catalogue::ALL;

fn main() -> ExitCode {
    let mut out = std::io::stdout().lock();
    let text: String = match std::env::args().nth(1).as_deref() {
        Some("--catalogue") => {
            ALL.iter().map(|attempt| json(&attempt.entry())).collect::<Vec<_>>().concat()
        }
        Some(id) => match ALL.iter().find(|attempt| attempt.id == id) {
            Some(attempt) => json(&attempt.run()),
            None => return ExitCode::from(2),
        },
        None => return ExitCode::from(2),
    };
    if out.write_all(text.as_bytes()).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("plain data") + "\n"
}
