//! The one thread that writes.
//!
//! It takes what waits, writes it with one call, waits for the disk once, and then answers all.
//! After a failure it refuses everything, and tries every 200 ms to bring the file back to its
//! last durable record and to write behind it how many records were refused; when that is on the
//! disk, it goes on.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::broadcast;

use super::{
    chain::{self, ChainHash, Point},
    error::{AuditError, mend_of},
    event::{AuditEvent, AuditRecord},
    file::LogFile,
    key::AuditKey,
    queue::{Broken, Job, Queue, Reply, Wake},
};

/// Most bytes of one batch.
const MAX_BATCH_BYTES: usize = 1 << 20;

pub(crate) struct Writer {
    pub(crate) queue: Arc<Queue>,
    pub(crate) key: AuditKey,
    pub(crate) dir: std::path::PathBuf,
    pub(crate) log: LogFile,
    pub(crate) readers: broadcast::Sender<Arc<AuditRecord>>,
}

/// A record that is being written.
struct Written {
    seq: u64,
    prev: ChainHash,
    hash: ChainHash,
    event: Box<AuditEvent>,
    json: String,
    reply: Option<Reply>,
}

/// Tells everybody when the thread ends, even if it panics.
struct End(Arc<Queue>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Writer {
    pub(crate) fn run(mut self) {
        let end = End(Arc::clone(&self.queue));
        let mut broken = false;
        loop {
            match self.queue.wait(self.log.lags()) {
                Wake::Work(jobs) => broken = !self.work(jobs),
                Wake::Account { refused } if broken => {
                    broken = !self.recover(refused);
                    if broken && self.queue.health().is_err_and(|err| err.is_closed()) {
                        break;
                    }
                }
                Wake::Account { refused } => broken = !self.account(refused),
                Wake::Idle => {
                    if let Err(err) = self.log.catch_up() {
                        broken = true;
                        self.fail(&self.at_file(err), VecDeque::new());
                    }
                }
                Wake::Close => {
                    if let Err(err) = self.log.close() {
                        // Everything acknowledged is on the disk; the next start catches up.
                        tracing::warn!(error = %err, "the audit log was not closed in order");
                    }
                    break;
                }
            }
        }
        // The lock on the head goes before whoever waits for the end may open again.
        drop(self.log);
        drop(end);
    }

    fn at_file(&self, source: std::io::Error) -> AuditError {
        AuditError::File { step: "write", path: self.dir.clone(), source }
    }

    fn fail(&self, err: &AuditError, jobs: VecDeque<Job>) {
        let (reason, mend) = match err {
            AuditError::File { source, .. } => (source.to_string(), mend_of(source, &self.dir)),
            other => (other.to_string(), format!("look at {}", self.dir.display())),
        };
        tracing::error!(%reason, "the audit log cannot be written");
        self.queue.fail(Broken { reason, mend }, jobs);
    }

    /// Does what waits, in order. `false` when writing failed.
    fn work(&mut self, mut jobs: VecDeque<Job>) -> bool {
        while let Some(job) = jobs.pop_front() {
            let result = match job {
                Job::Prune { keep, reply } => {
                    let result = self.prune(keep);
                    let failed = result.as_ref().err().map(ToString::to_string);
                    // Whoever went away does not want to know.
                    let _ = reply.send(result.map_err(Into::into));
                    // Pruning writes a record like any other, and fails like any other.
                    match failed {
                        Some(problem) => Err((AuditError::BadValue(problem), Vec::new())),
                        None => Ok(()),
                    }
                }
                record @ Job::Record { .. } => {
                    jobs.push_front(record);
                    self.batch(&mut jobs)
                }
            };
            if let Err((err, batch)) = result {
                let again = batch.into_iter().map(|written| Job::Record {
                    event: written.event,
                    json: written.json,
                    reply: written.reply,
                });
                self.fail(&err, again.chain(jobs).collect());
                return false;
            }
        }
        true
    }

    /// Writes one batch from the front of `jobs`, and answers it.
    fn batch(&mut self, jobs: &mut VecDeque<Job>) -> Result<(), (AuditError, Vec<Written>)> {
        if self.log.wants_rotation() {
            self.log.rotate().map_err(|err| (err, Vec::new()))?;
        }
        let mut buffer = Vec::new();
        let mut batch = Vec::new();
        let mut point = self.log.point();
        while let Some(Job::Record { .. }) = jobs.front()
            && buffer.len() < MAX_BATCH_BYTES
        {
            let Some(Job::Record { event, json, reply }) = jobs.pop_front() else { break };
            let next = chain::push_record(&self.key, point, &json, &mut buffer);
            let Point { seq, hash } = next;
            batch.push(Written { seq, prev: point.hash, hash, event, json, reply });
            point = next;
        }
        if let Err(err) = self.log.append(&buffer, point) {
            return Err((self.at_file(err), batch));
        }
        let head = self.log.write_head();
        self.queue.set_durable(point.seq);
        self.answer(batch);
        // The batch is on the disk all the same; only what comes next has to wait.
        head.map_err(|err| (self.at_file(err), Vec::new()))
    }

    fn answer(&self, batch: Vec<Written>) {
        let listened = self.readers.receiver_count() > 0;
        for Written { seq, prev, hash, event, reply, .. } in batch {
            if let Some(reply) = reply {
                // Whoever went away does not undo what was recorded.
                let _ = reply.send(Ok(seq));
            }
            if listened {
                let record = AuditRecord { seq, prev, event: *event, hash };
                let _ = self.readers.send(Arc::new(record));
            }
        }
    }

    /// Writes the log's own word.
    fn say(&mut self, event: AuditEvent) -> Result<(), AuditError> {
        let mut jobs = VecDeque::from([Job::record(event, None)]);
        self.batch(&mut jobs).map_err(|(err, _)| err)
    }

    fn account(&mut self, refused: u64) -> bool {
        let event = AuditEvent::of_the_log("audit.refused", "records were refused")
            .with("records", refused.to_string())
            .with("reason", "too many waited to be written, or writing failed");
        match self.say(event) {
            Ok(()) => {
                self.queue.works(refused);
                true
            }
            Err(err) => {
                self.fail(&err, VecDeque::new());
                false
            }
        }
    }

    fn recover(&mut self, refused: u64) -> bool {
        let mut done = self.log.restore().is_ok();
        if refused > 0 {
            done = done && self.account(refused);
        } else if done {
            done = self.log.catch_up().is_ok();
            if done {
                self.queue.works(0);
            }
        }
        if done {
            tracing::info!(refused, "the audit log can be written again");
        }
        done
    }

    fn prune(&mut self, keep: usize) -> Result<usize, AuditError> {
        // Before counting: the record below could begin a segment.
        if self.log.wants_rotation() {
            self.log.rotate()?;
        }
        let Some((first, gone)) = self.log.oldest_of(keep)? else { return Ok(0) };
        let event = AuditEvent::of_the_log("audit.prune", "old segments are removed")
            .with("segments", gone.to_string())
            .with("first_kept", first.to_string());
        self.say(event)?;
        self.log.prune_before(first)?;
        Ok(gone)
    }
}
