//! containerd's events, for the moment at which a task was started: `ctr run` does not tell it.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use parking_lot::{Condvar, Mutex};
use testkit::peers::containerd::Containerd;

/// The start of every task so far, by container.
type Starts = Arc<(Mutex<HashMap<String, Instant>>, Condvar)>;

/// A running `ctr events`.
#[derive(Debug)]
pub(super) struct Events {
    child: Child,
    starts: Starts,
}

impl Events {
    /// Begins to listen.
    pub(super) fn follow(containerd: &Containerd) -> Result<Self> {
        let mut child = containerd
            .ctr_command()
            .arg("events")
            .stdout(Stdio::piped())
            .spawn()
            .context("start ctr events")?;
        let lines = BufReader::new(child.stdout.take().context("the output of ctr events")?).lines();
        let starts = Starts::default();
        let noted = Arc::clone(&starts);
        thread::Builder::new().name("events".into()).spawn(move || {
            for line in lines.map_while(Result::ok) {
                let now = Instant::now();
                if let Some(container) = started_container(&line) {
                    noted.0.lock().insert(container, now);
                    noted.1.notify_all();
                }
            }
        })?;
        Ok(Self { child, starts })
    }

    /// When the task of `container` was started; waits a moment for the event that tells it.
    pub(super) fn start_of(&self, container: &str) -> Option<Instant> {
        let mut starts = self.starts.0.lock();
        let deadline = Instant::now() + Duration::from_secs(5);
        while !starts.contains_key(container) {
            if self.starts.1.wait_until(&mut starts, deadline).timed_out() {
                break;
            }
        }
        starts.get(container).copied()
    }

    /// Ends the listening.
    pub(super) fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The container of a line that tells a task's start: time, namespace, topic and the event in JSON.
fn started_container(line: &str) -> Option<String> {
    let (_, event) = line.split_once(" /tasks/start ")?;
    let event: serde_json::Value = serde_json::from_str(event.trim()).ok()?;
    Some(event.get("container_id")?.as_str()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tasks_start_is_told_from_other_events() {
        let line = r#"2026-11-21 09:30:00.1 +0000 UTC default /tasks/start {"container_id":"c1","pid":42}"#;
        assert_eq!(started_container(line).as_deref(), Some("c1"));
        assert_eq!(started_container(&line.replace("start", "create")), None);
    }
}
