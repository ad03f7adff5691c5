//! From a command's ring to a host, and back into its input.

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use pinfold_proto::{ExecControl, ExecStarted, flow};
use pinfold_types::{Error, ErrorCode};

use super::{Exec, feed};
use crate::channel::{Gone, Incoming, Stream};

/// What was sent and is not acknowledged: cost so far, offset behind it.
type Sent = RefCell<VecDeque<(u64, u64)>>;

/// Serves one reader from offset `from` until the command's result is sent or the reader goes.
/// The command runs on when the reader goes.
pub async fn attach(exec: Rc<Exec>, stream: Stream, from: Option<u64>) {
    let (held_from, end) = {
        let ring = exec.ring.borrow();
        (ring.start(), ring.end())
    };
    let wanted = from.unwrap_or(0);
    if wanted > end {
        return stream.fail(&Error::new(
            ErrorCode::Conflict,
            format!("offset {wanted} is beyond the {end} bytes written so far"),
        ));
    }
    let offset = wanted.max(held_from);
    if exec.pid.get().is_some() {
        let pid = exec.pid.get().unwrap_or(0);
        stream.message(&ExecStarted { pid, offset, lost_bytes: offset - wanted });
    }
    let serial = exec.reader.get() + 1;
    exec.reader.set(serial);
    // The newest reader sets the pace, also backwards: what it has not seen is kept again.
    exec.taken.set(offset);
    let sent = Sent::default();
    let done = tokio::select! {
        done = send_output(&exec, &stream, &sent, offset) => done,
        () = acknowledge(&exec, &stream, &sent, serial) => Err(Gone),
        gone = take_input(&exec, &stream) => Err(gone),
        gone = take_control(&exec, &stream) => Err(gone),
    };
    if done.is_ok() {
        let result = exec.result.borrow().clone();
        match result {
            Some(result) => stream.close(&result),
            None => stream.fail(&Error::internal("a finished command has no result")),
        }
    }
}

async fn send_output(
    exec: &Exec,
    stream: &Stream,
    sent: &Sent,
    mut cursor: u64,
) -> Result<(), Gone> {
    let mut cost = 0;
    loop {
        let start = exec.ring.borrow().start();
        if cursor < start {
            stream.message(&ExecControl::Lost { bytes: start - cursor });
            cursor = start;
        }
        let next = exec.ring.borrow_mut().from(cursor);
        let Some((kind, mut bytes)) = next else {
            if exec.is_finished() {
                return Ok(());
            }
            exec.grown.notified().await;
            continue;
        };
        while !bytes.is_empty() {
            let now = stream.send_some(kind, &mut bytes).await?;
            cursor += now as u64;
            cost += u64::from(flow::cost(now));
            sent.borrow_mut().push_back((cost, cursor));
        }
    }
}

/// Moves the command's mark of what its reader has taken.
async fn acknowledge(exec: &Exec, stream: &Stream, sent: &Sent, serial: u64) {
    loop {
        stream.acknowledgement().await;
        let given = stream.acknowledged();
        let mut taken = None;
        let mut sent = sent.borrow_mut();
        while let Some((_, offset)) = sent.pop_front_if(|(cost, _)| *cost <= given) {
            taken = Some(offset);
        }
        drop(sent);
        if let Some(offset) = taken
            && exec.reader.get() == serial
        {
            exec.taken.set(offset.max(exec.taken.get()));
            exec.freed.notify_waiters();
        }
    }
}

async fn take_input(exec: &Exec, stream: &Stream) -> Gone {
    loop {
        match stream.receive().await {
            Ok(Incoming::Data(data)) => {
                feed(exec, &data).await;
                stream.consumed(data.len());
            }
            Ok(Incoming::End) => {
                if exec.tty {
                    // End of file, as typed: the terminal's line discipline knows it as ^D.
                    feed(exec, &bytes::Bytes::from_static(b"\x04")).await;
                } else {
                    exec.input.borrow_mut().take();
                }
                stream.gone().await;
                return Gone;
            }
            Err(gone) => return gone,
        }
    }
}

async fn take_control(exec: &Exec, stream: &Stream) -> Gone {
    loop {
        let message = match stream.told().await {
            Ok(message) => message,
            Err(gone) => return gone,
        };
        // A message we do not know, or one that came too late, changes nothing.
        match serde_json::from_slice(&message) {
            Ok(ExecControl::Resize { size }) => drop(exec.resize(size)),
            Ok(ExecControl::Signal { signal }) => drop(exec.signal(signal)),
            Ok(ExecControl::Lost { .. }) | Err(_) => {}
        }
    }
}
