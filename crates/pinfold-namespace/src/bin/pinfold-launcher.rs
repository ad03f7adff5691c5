//! The helper that forks for every workspace start. Started by the server, never by hand.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    pinfold_namespace::helper::main()
}
