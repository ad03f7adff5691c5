//! What waits to be written, and whether writing works: shared by the callers and the writer.

use std::{
    collections::VecDeque,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{error::AuditError, event::AuditEvent};

/// Most records that wait to be written. More are refused.
pub const MAX_WAITING_RECORDS: usize = 16_384;
/// Most bytes of records that wait to be written. More are refused.
pub const MAX_WAITING_BYTES: usize = 16 << 20;

/// How often a writer that cannot write tries again.
const RETRY: Duration = Duration::from_millis(200);
/// After how long without work the header catches up.
const IDLE: Duration = Duration::from_millis(50);

pub(crate) type Reply = oneshot::Sender<pinfold_types::Result<u64>>;

/// Something for the writer to do.
#[derive(Debug)]
pub(crate) enum Job {
    Record { event: Box<AuditEvent>, json: String, reply: Option<Reply> },
    Prune { keep: usize, reply: oneshot::Sender<pinfold_types::Result<usize>> },
}

impl Job {
    pub(crate) fn record(event: AuditEvent, reply: Option<Reply>) -> Self {
        let event = Box::new(event.fit());
        Self::Record { json: event.to_json(), event, reply }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Record { json, .. } => json.len(),
            Self::Prune { .. } => 0,
        }
    }

    /// Tells whoever waits that it was not done.
    pub(crate) fn refuse(self, error: &pinfold_types::Error) {
        match self {
            // Whoever went away does not want to know.
            Self::Record { reply, .. } => {
                drop(reply.map(|reply| reply.send(Err(error.clone()))));
            }
            Self::Prune { reply, .. } => drop(reply.send(Err(error.clone()))),
        }
    }
}

/// Why nothing can be written.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) reason: String,
    pub(crate) mend: String,
}

impl Broken {
    fn error(&self) -> AuditError {
        AuditError::Failing { reason: self.reason.clone(), mend: self.mend.clone() }
    }
}

#[derive(Debug, Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    bytes: usize,
    broken: Option<Broken>,
    /// Records that were refused and are not yet accounted for in the log.
    refused: u64,
    closing: bool,
    /// The writer has ended.
    ended: bool,
    closers: Vec<oneshot::Sender<()>>,
}

impl Waiting {
    fn is_full(&self) -> bool {
        self.jobs.len() >= MAX_WAITING_RECORDS || self.bytes >= MAX_WAITING_BYTES
    }

    fn health(&self) -> Result<(), AuditError> {
        if self.closing || self.ended {
            return Err(AuditError::Closed);
        }
        if let Some(broken) = &self.broken {
            return Err(broken.error());
        }
        if self.is_full() {
            return Err(AuditError::Full { records: self.jobs.len() });
        }
        Ok(())
    }
}

/// What the writer is woken for.
#[derive(Debug)]
pub(crate) enum Wake {
    /// These wait, in this order.
    Work(VecDeque<Job>),
    /// Records were refused since the last time, and it is time to say so, or to try again.
    Account { refused: u64 },
    /// Nothing came for a while.
    Idle,
    /// Nothing waits, and nothing will.
    Close,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    /// The last record that is on the disk.
    durable: AtomicU64,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing below leaves the state half changed, so a panic elsewhere does not matter.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job, or says why not.
    pub(crate) fn push(&self, job: Job) -> Result<(), AuditError> {
        let mut waiting = self.lock();
        if let Err(err) = waiting.health() {
            let counts = matches!(job, Job::Record { .. });
            waiting.refused += u64::from(counts && !matches!(err, AuditError::Closed));
            return Err(err);
        }
        let sleeping = waiting.jobs.is_empty();
        waiting.bytes += job.bytes();
        waiting.jobs.push_back(job);
        drop(waiting);
        if sleeping {
            self.wake.notify_one();
        }
        Ok(())
    }

    pub(crate) fn health(&self) -> Result<(), AuditError> {
        self.lock().health()
    }

    pub(crate) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    pub(crate) fn set_durable(&self, seq: u64) {
        self.durable.store(seq, Ordering::Release);
    }

    /// Asks the writer to end, and is answered when it has.
    pub(crate) fn close(&self) -> Option<oneshot::Receiver<()>> {
        let mut waiting = self.lock();
        waiting.closing = true;
        let done = (!waiting.ended).then(|| {
            let (reply, done) = oneshot::channel();
            waiting.closers.push(reply);
            done
        });
        drop(waiting);
        self.wake.notify_one();
        done
    }

    /// Waits for something to do. `lagging`: the header has to catch up when nothing comes.
    pub(crate) fn wait(&self, lagging: bool) -> Wake {
        let began = Instant::now();
        let mut waiting = self.lock();
        loop {
            if waiting.broken.is_some() {
                let left = RETRY.saturating_sub(began.elapsed());
                if waiting.closing || left.is_zero() {
                    return Wake::Account { refused: waiting.refused };
                }
                waiting = self.sleep(waiting, left);
                continue;
            }
            if !waiting.jobs.is_empty() {
                waiting.bytes = 0;
                return Wake::Work(std::mem::take(&mut waiting.jobs));
            }
            if waiting.refused > 0 {
                return Wake::Account { refused: waiting.refused };
            }
            if waiting.closing {
                return Wake::Close;
            }
            if lagging {
                let left = IDLE.saturating_sub(began.elapsed());
                if left.is_zero() {
                    return Wake::Idle;
                }
                waiting = self.sleep(waiting, left);
            } else {
                waiting = self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn sleep<'a>(
        &self,
        waiting: MutexGuard<'a, Waiting>,
        time: Duration,
    ) -> MutexGuard<'a, Waiting> {
        self.wake.wait_timeout(waiting, time).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Nothing can be written: refuses these and everything that waits, and from now on
    /// everything that comes.
    pub(crate) fn fail(&self, broken: Broken, jobs: impl IntoIterator<Item = Job>) {
        let error = broken.error().into();
        let mut waiting = self.lock();
        let left = std::mem::take(&mut waiting.jobs);
        waiting.bytes = 0;
        waiting.broken = Some(broken);
        let jobs: Vec<_> = jobs.into_iter().chain(left).collect();
        // What the log says of itself has no caller who would do without.
        let records = jobs.iter().filter(|job| matches!(job, Job::Record { reply: Some(_), .. }));
        waiting.refused += records.count() as u64;
        drop(waiting);
        for job in jobs {
            job.refuse(&error);
        }
    }

    /// Writing works (again), and so many refused records are accounted for.
    pub(crate) fn works(&self, accounted: u64) {
        let mut waiting = self.lock();
        waiting.broken = None;
        waiting.refused = waiting.refused.saturating_sub(accounted);
    }

    /// The writer ends: nobody waits for it any longer.
    pub(crate) fn end(&self) {
        let mut waiting = self.lock();
        waiting.ended = true;
        let jobs = std::mem::take(&mut waiting.jobs);
        let closers = std::mem::take(&mut waiting.closers);
        drop(waiting);
        let error = AuditError::Closed.into();
        for job in jobs {
            job.refuse(&error);
        }
        for closer in closers {
            let _ = closer.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use pinfold_types::ErrorCode;

    use super::{super::event::Phase, *};

    fn job(reply: Option<Reply>) -> Job {
        let at = jiff::Timestamp::UNIX_EPOCH;
        Job::record(AuditEvent::new(at, Phase::Begin, "x"), reply)
    }

    #[test]
    fn a_full_queue_refuses_and_counts_what_it_refused() {
        let queue = Queue::default();
        for _ in 0..MAX_WAITING_RECORDS {
            queue.push(job(None)).expect("room");
        }
        assert!(queue.health().is_err());
        for _ in 0..3 {
            let refused = pinfold_types::Error::from(queue.push(job(None)).expect_err("full"));
            assert_eq!(refused.code, ErrorCode::Unavailable);
            assert!(refused.message.contains("16384"), "{refused}");
            assert!(refused.retry_after_ms.is_some());
        }
        assert!(matches!(queue.wait(true), Wake::Work(jobs) if jobs.len() == MAX_WAITING_RECORDS));
        queue.health().expect("room again");
        assert!(matches!(queue.wait(true), Wake::Account { refused: 3 }));
        queue.works(3);
        assert!(matches!(queue.wait(true), Wake::Idle));
    }

    #[test]
    fn big_records_fill_the_queue_sooner() {
        let queue = Queue::default();
        let at = jiff::Timestamp::UNIX_EPOCH;
        let mut event = AuditEvent::new(at, Phase::Begin, "x");
        event.made = vec!["ws_0123456789abcdef0123456789".into(); 200];
        let full = (0..MAX_WAITING_RECORDS)
            .find(|_| queue.push(Job::record(event.clone(), None)).is_err());
        assert!((2000..5000).contains(&full.expect("bounded")), "{full:?}");
    }

    #[test]
    fn whoever_waits_is_told_when_the_writer_ends() {
        let queue = Queue::default();
        let (reply, mut told) = oneshot::channel();
        queue.push(job(Some(reply))).expect("room");
        let mut closed = queue.close().expect("a writer that has not ended");
        queue.end();
        assert!(told.try_recv().expect("an answer").is_err());
        closed.try_recv().expect("closed");
        assert!(queue.close().is_none() && queue.push(job(None)).is_err());
    }
}
