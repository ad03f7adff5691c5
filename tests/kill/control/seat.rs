//! Where the server is at the moment, and calls to it that may be cut off.

use std::{
    fmt::Write as _,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;

/// Longest that a server may be away, and that an answer may take.
const LONG: Duration = Duration::from_mins(2);

/// What callers know of the server.
#[derive(Debug)]
pub(crate) struct Seat {
    socket: PathBuf,
    now: Mutex<Now>,
    change: Condvar,
    /// Changes that callers were told of.
    changes: AtomicU64,
}

#[derive(Debug, Default)]
struct Now {
    /// One more with every server that answered.
    generation: u64,
    address: Option<SocketAddr>,
    /// How long servers have run that are gone.
    ran: Duration,
    /// Since when the present one runs, from before it was started.
    since: Option<Instant>,
}

impl Seat {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self { socket, now: Mutex::default(), change: Condvar::new(), changes: AtomicU64::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes that were acknowledged so far.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// One more.
    pub(crate) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// A server is about to be started.
    pub(crate) fn starts(&self) {
        self.lock().since = Some(Instant::now());
    }

    /// It answers here.
    pub(crate) fn answers(&self, address: SocketAddr) {
        let mut now = self.lock();
        now.generation += 1;
        now.address = Some(address);
        drop(now);
        self.change.notify_all();
    }

    /// It is gone.
    pub(crate) fn gone(&self) {
        let mut now = self.lock();
        now.address = None;
        let ran = now.since.take().map(|since| since.elapsed()).unwrap_or_default();
        now.ran += ran;
    }

    /// How long servers have run, all together: never less than what they saw of it themselves.
    pub(crate) fn ran(&self) -> Duration {
        let now = self.lock();
        now.ran + now.since.map(|since| since.elapsed()).unwrap_or_default()
    }

    /// The server that answers, or will soon: which, and where.
    pub(crate) fn here(&self) -> (u64, SocketAddr) {
        self.wait_for(|now| now.address.map(|address| (now.generation, address)))
    }

    /// Waits for a later server than `generation`: whatever was cut off was so by a kill.
    pub(crate) fn after(&self, generation: u64) {
        self.wait_for(|now| (now.generation > generation).then_some(()));
    }

    fn wait_for<T>(&self, mut ask: impl FnMut(&Now) -> Option<T>) -> T {
        let began = Instant::now();
        let mut now = self.lock();
        loop {
            if let Some(found) = ask(&now) {
                return found;
            }
            assert!(began.elapsed() < LONG, "a call was cut off, and nobody had killed the server");
            now = self.change.wait_timeout(now, LONG).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// A request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ask {
    method: &'static str,
    path: String,
    headers: String,
    body: Vec<u8>,
}

impl Ask {
    pub(crate) fn new(method: &'static str, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), ..Self::default() }
    }

    pub(crate) fn json(mut self, body: &Value) -> Self {
        self.body = body.to_string().into_bytes();
        self.header("Content-Type", "application/json")
    }

    pub(crate) fn bytes(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self.header("Content-Type", "application/octet-stream")
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        let _ = write!(self.headers, "{name}: {value}\r\n");
        self
    }

    /// Over TCP with this token, or over the unix socket as the owner. `None`: it was cut off.
    pub(crate) fn send(&self, seat: &Seat, token: Option<&str>) -> Option<Answer> {
        let (generation, address) = seat.here();
        let answer = self.exchange(seat, address, token).ok().and_then(|raw| parse(&raw));
        if answer.is_none() {
            seat.after(generation);
        }
        answer.map(|answer| Answer { generation, ..answer })
    }

    /// Goes away as soon as the request is on its way.
    pub(crate) fn leave(&self, seat: &Seat, token: &str) {
        let (_, address) = seat.here();
        if let Ok(mut stream) = TcpStream::connect(address) {
            let _ = stream.write_all(&self.text(address, Some(token)));
        }
    }

    fn text(&self, address: SocketAddr, token: Option<&str>) -> Vec<u8> {
        let credential =
            token.map_or(String::new(), |token| format!("Authorization: Bearer {token}\r\n"));
        let head = format!(
            "{} {} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{credential}{}\
             Content-Length: {}\r\n\r\n",
            self.method,
            self.path,
            self.headers,
            self.body.len()
        );
        [head.as_bytes(), &self.body].concat()
    }

    fn exchange(
        &self,
        seat: &Seat,
        address: SocketAddr,
        token: Option<&str>,
    ) -> std::io::Result<Vec<u8>> {
        let mut reply = Vec::new();
        let text = self.text(address, token);
        if token.is_some() {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(LONG))?;
            stream.write_all(&text)?;
            stream.read_to_end(&mut reply)?;
        } else {
            let mut stream = UnixStream::connect(&seat.socket)?;
            stream.set_read_timeout(Some(LONG))?;
            stream.write_all(&text)?;
            stream.read_to_end(&mut reply)?;
        }
        Ok(reply)
    }
}

/// A whole answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Which server it came from.
    pub(crate) generation: u64,
    /// Id of the request.
    pub(crate) request: String,
    /// It was given before.
    pub(crate) replayed: bool,
    body: Vec<u8>,
}

impl Answer {
    pub(crate) fn is_ok(&self) -> bool {
        (200..300).contains(&self.status)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|err| panic!("{err}: {}", self.text()))
    }

    /// The code of a problem document.
    pub(crate) fn code(&self) -> String {
        let problem: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        problem["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// `None` for an answer that is not whole.
fn parse(reply: &[u8]) -> Option<Answer> {
    let end = reply.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&reply[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let header = |wanted: &str| {
        head.lines().skip(1).find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim().to_owned())
        })
    };
    let rest = &reply[end + 4..];
    let body = match header("content-length") {
        Some(length) => (length.parse() == Ok(rest.len())).then(|| rest.to_vec())?,
        None if header("transfer-encoding").is_some() => unchunk(rest)?,
        None => Vec::new(),
    };
    Some(Answer {
        status,
        generation: 0,
        request: header("x-request-id").unwrap_or_default(),
        replayed: header("idempotency-replayed").is_some(),
        body,
    })
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(end + 2..end + 2 + size)?);
        rest = rest.get(end + 4 + size..)?;
    }
}
