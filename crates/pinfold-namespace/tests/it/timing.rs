//! How long a launch takes here, printed and not asserted.

use std::{collections::BTreeMap, time::Instant};

use pinfold_namespace::{Cgroups, Launcher};
use pinfold_types::limits::ResourceLimits;

use crate::harness::{Ground, launcher_options, wait_gone};

fn median(values: &mut [u64]) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[expect(clippy::print_stdout, reason = "figures for people")]
/// Launches one disk again and again, killing the guest in between.
async fn series(name: &str, limits: Option<ResourceLimits>) {
    const LAUNCHES: usize = 60;
    let launcher = Launcher::start(launcher_options()).await.expect("a launcher");
    let cgroups = Cgroups::detect("timing");
    let mut ground = Ground::new();
    let (mut totals, mut ends) = (Vec::new(), Vec::new());
    let mut steps: BTreeMap<String, (usize, Vec<u64>)> = BTreeMap::new();
    for _ in 0..LAUNCHES {
        let group = limits
            .as_ref()
            .map(|limits| cgroups.create(&ground.spec.workspace, limits).expect("a cgroup"));
        ground.spec.cgroup = group.as_ref().map(pinfold_namespace::WorkspaceCgroup::join);
        let before = Instant::now();
        let launched = launcher
            .launch_with(ground.spec.clone(), ground.extras.clone())
            .await
            .expect("a launch");
        totals.push(u64::try_from(before.elapsed().as_micros()).unwrap());
        for (place, (step, at)) in launched.trace.iter().enumerate() {
            steps.entry(step.clone()).or_insert_with(|| (place, Vec::new())).1.push(*at);
        }
        let before = Instant::now();
        rustix::process::pidfd_send_signal(&launched.pidfd, rustix::process::Signal::KILL).unwrap();
        wait_gone(&launched);
        if let Some(group) = group {
            group.remove().expect("removed");
        }
        ends.push(u64::try_from(before.elapsed().as_micros()).unwrap());
    }
    totals.sort_unstable();
    let slow = totals[totals.len() * 95 / 100];
    println!("{name}: launch median {} us, p95 {slow} us", median(&mut totals));
    println!("  kill to gone median {} us", median(&mut ends));
    let mut steps: Vec<_> = steps.into_iter().collect();
    steps.sort_by_key(|(_, (place, _))| *place);
    for (step, (_, mut at)) in steps {
        println!("  {:>6} us {step}", median(&mut at));
    }
}

#[tokio::test]
async fn launches_are_timed() {
    series("without cgroups", None).await;
    let limits = ResourceLimits {
        memory_bytes: Some(256 << 20),
        cpu_millis: Some(1000),
        cpu_weight: Some(100),
        pids: Some(256),
        ..ResourceLimits::default()
    };
    series("with limits", Some(limits)).await;
}
