//! PID 1 of every workspace; see the library for what it does.
use std::process::ExitCode;

fn main() -> ExitCode {
    pinfold_guest::run()
}
