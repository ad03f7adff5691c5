//! Ordinary tools and tasks work inside a workspace; the table is printed.

mod table;

use testkit::Server;

use crate::table::{TASKS, Task};

fn run(server: &Server, workspace: &str, number: usize, task: &Task) -> Result<(), String> {
    let dir = format!("/var/tmp/task-{number}");
    let line = format!("mkdir -p {dir}; {}", task.line.replace("{dir}", &dir));
    let words = ["exec", "--no-stdin", "--timeout", "120s", workspace, "--", "bash", "-c", &line];
    let output = server.pinfold(&words);
    let printed = format!("{}{}", output.stdout, output.stderr);
    if output.code != i32::from(task.code) {
        return Err(format!("exit code {}, not {}: {}", output.code, task.code, printed.trim()));
    }
    if !printed.contains(task.prints) {
        return Err(format!("no {:?} in: {}", task.prints, printed.trim()));
    }
    Ok(())
}

#[test]
fn forty_ordinary_tools_work_inside() {
    assert!(TASKS.len() >= 40, "only {} tasks", TASKS.len());
    let server = Server::start();
    server.pinfold(&["create", "plain", "--memory", "3G", "--image", "host"]).ok();
    server.pinfold(&["create", "nested", "--nested", "--memory", "3G", "--image", "host"]).ok();
    let mut failed = Vec::new();
    for (number, task) in TASKS.iter().enumerate() {
        let workspace = if task.nested { "nested" } else { "plain" };
        let outcome = run(&server, workspace, number, task);
        println!("{:<45} {}", task.name, if outcome.is_ok() { "works" } else { "FAILS" });
        if let Err(why) = outcome {
            failed.push(format!("{}: {why}", task.name));
        }
    }
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), TASKS.len(), failed.join("\n"));
    server.stop();
}
