//! The guard against real sockets on the loopback, and a table of tricks with their sources.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::{config::Exception, resolve::Answer};

/// Answers from a list: the first call gets the first entry, later calls the next, the last stays.
#[derive(Debug)]
struct Scripted {
    answers: Vec<Vec<IpAddr>>,
    calls: AtomicUsize,
}

impl Resolve for Scripted {
    fn resolve<'a>(&'a self, _name: &'a str) -> Answer<'a> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        let answer = self.answers[call.min(self.answers.len() - 1)].clone();
        Box::pin(async move { Ok(answer) })
    }
}

fn scripted(answers: &[&[&str]]) -> Arc<Scripted> {
    let parse = |text: &&str| text.parse().expect("an address");
    let answers = answers.iter().map(|list| list.iter().map(parse).collect()).collect();
    Arc::new(Scripted { answers, calls: AtomicUsize::new(0) })
}

fn open(authority: &str) -> (String, Exception) {
    let exception = Exception { allow_private: true, plain_http: true, ca_file: None };
    (authority.to_owned(), exception)
}

fn client(exceptions: Vec<(String, Exception)>, resolver: Arc<Scripted>) -> Client {
    Client::with_resolver(EgressConfig { exceptions: BTreeMap::from_iter(exceptions) }, resolver)
}

/// A server that gives one canned answer per connection and keeps the requests.
struct Server {
    port: u16,
    seen: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(answer: impl Fn(u16) -> String + Send + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    let task = tokio::spawn(async move {
        loop {
            let (mut peer, _) = listener.accept().await.expect("accepts");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if peer.read(&mut byte).await.unwrap_or(0) == 0 {
                    break;
                }
                request.push(byte[0]);
            }
            kept.lock().expect("lock").push(String::from_utf8_lossy(&request).into_owned());
            // The client may hang up early; that is its right.
            let _ = peer.write_all(answer(port).as_bytes()).await;
            let _ = peer.shutdown().await;
        }
    });
    Server { port, seen, task }
}

fn with_secret() -> HeaderMap {
    HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("Bearer hidden"))])
}

#[tokio::test]
async fn tricks_do_not_pass() {
    // Trick, where it was described.
    let table = [
        ("https://127.0.0.1/", "OWASP SSRF cheat sheet"),
        ("https://127.1/", "PayloadsAllTheThings, short form"),
        ("https://2130706433/", "PayloadsAllTheThings, decimal"),
        ("https://0x7f000001/", "PayloadsAllTheThings, hexadecimal"),
        ("https://0x7f.1/", "house style page, measured"),
        ("https://0177.0.0.1/", "CVE-2021-28918 (netmask), octal"),
        ("https://127.0.0.1./", "WHATWG URL, trailing dot"),
        ("https://0/", "CVE-2024-29415 (node ip)"),
        ("https://0.0.0.0/", "0.0.0.0 day, 2024"),
        ("https://[::]/", "PayloadsAllTheThings"),
        ("https://[::1]/", "PayloadsAllTheThings"),
        ("https://[::ffff:127.0.0.1]/", "CVE-2020-28360 (private-ip)"),
        ("https://[::ffff:7f00:1]/", "PayloadsAllTheThings"),
        ("https://[::127.0.0.1]/", "RFC 4291 compatible form"),
        ("https://[64:ff9b::7f00:1]/", "RFC 6052 NAT64"),
        ("https://[2002:7f00:1::]/", "RFC 3056 6to4"),
        ("https://[2001:0:1::80ff:fffe]/", "RFC 4380 Teredo"),
        ("https://[fe80::1]/", "link-local"),
        ("https://169.254.169.254/latest/meta-data/", "Capital One 2019"),
        ("https://[fd00:ec2::254]/", "EC2 IMDS over IPv6"),
        ("https://168.63.129.16/", "Azure WireServer"),
        ("https://100.100.100.200/", "Alibaba metadata"),
        ("https://metadata.google.internal/", "GCP metadata"),
        ("https://localhost/", "OWASP"),
        ("https://localhost./", "axon audit: trailing dot"),
        ("https://LOCALHOST/", "case"),
        ("https://a.localhost/", "RFC 6761"),
        ("https://printer/", "single label"),
        ("https://example.com@127.0.0.1/", "Orange Tsai, A New Era of SSRF"),
        ("https://127.0.0.1#@example.com/", "Orange Tsai"),
        ("https://127.0.0.1\\@example.com/", "Orange Tsai, back-slash"),
        ("https://example.com\\@127.0.0.1/", "WHATWG back-slash"),
        ("https://①②⑦.⓪.⓪.①/", "enclosed alphanumerics"),
        ("https://127。0。0。1/", "ideographic full stop"),
        ("https://loc\u{ad}alhost/", "soft hyphen"),
        ("https:127.0.0.1/", "WHATWG without slashes"),
        ("https:///127.0.0.1/", "WHATWG, three slashes"),
        ("https://%31%32%37.0.0.1/", "percent-encoded host"),
        ("https://exa\tmple.com/", "WHATWG strips tabs"),
        ("https://example.com\r\nHost: x/", "CRLF injection"),
        ("https://example.com\0.evil.org/", "NUL"),
        ("http://example.com/", "plain HTTP"),
        ("ftp://example.com/", "other scheme"),
        ("file:///etc/passwd", "other scheme"),
        ("gopher://127.0.0.1:6379/_x", "SSRF to Redis"),
        ("https://user:pass@example.com/", "credentials in the URL"),
        ("https://example.com:0/", "port 0"),
        ("https://[fe80::1%25eth0]/", "zone id"),
        ("https://255.255.255.255/", "broadcast"),
        ("https://224.0.0.1/", "multicast"),
        ("https://1.2.3.4.5/", "not an address"),
        ("https://registry.lan/", "private name"),
    ];
    // A resolver that would give a public address to anything: only the checks before it count.
    let client = client(Vec::new(), scripted(&[&["127.0.0.1"]]));
    for (url, source) in table {
        let result = client.get(url, HeaderMap::new(), &Limits::default()).await;
        let refused = result.expect_err(&format!("{url} ({source})"));
        assert!(
            matches!(refused, EgressError::BadUrl { .. } | EgressError::Denied { .. }),
            "{url} ({source}): {refused}"
        );
    }
}

#[tokio::test]
async fn one_bad_answer_refuses_the_name() {
    for answers in [&["1.1.1.1", "10.0.0.1"][..], &["2606:4700::1", "::ffff:10.0.0.1"], &["::1"]] {
        let client = client(Vec::new(), scripted(&[answers]));
        let limits = Limits::default();
        let result = client.get("https://mixed.example.org/", HeaderMap::new(), &limits).await;
        assert!(matches!(result, Err(EgressError::Denied { .. })), "{answers:?}");
    }
}

#[tokio::test]
async fn a_name_that_flips_is_asked_once_a_hop_and_what_was_checked_is_dialled() {
    let server = serve(|_| "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into()).await;
    let resolver = scripted(&[&["127.0.0.1"], &["10.9.9.9"]]);
    let name = format!("flip.example.org:{}", server.port);
    let client = client(vec![open(&name)], Arc::clone(&resolver));
    let mut answer = client
        .get(&format!("http://{name}/"), HeaderMap::new(), &Limits::default())
        .await
        .expect("the first answer is dialled");
    assert_eq!(answer.body.bytes().await.expect("body"), b"ok");
    assert_eq!(resolver.calls.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn an_exception_is_one_exact_host_and_port() {
    let server = serve(|_| "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into()).await;
    let client = client(vec![open(&format!("127.0.0.1:{}", server.port))], scripted(&[&["::1"]]));
    let get = |url: String| {
        let client = client.clone();
        async move { client.get(&url, HeaderMap::new(), &Limits::default()).await }
    };
    assert!(get(format!("http://127.0.0.1:{}/", server.port)).await.is_ok());
    for url in [
        format!("http://127.0.0.1:{}/", server.port ^ 1),
        format!("http://127.0.0.2:{}/", server.port),
        format!("http://localhost:{}/", server.port),
        format!("http://[::ffff:127.0.0.1]:{}/", server.port),
    ] {
        assert!(matches!(get(url.clone()).await, Err(EgressError::Denied { .. })), "{url}");
    }
}

#[tokio::test]
async fn redirects_are_checked_again_and_drop_credentials() {
    let other = serve(|_| "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into()).await;
    let to = format!("http://127.0.0.1:{}/there", other.port);
    let first =
        serve(move |_| format!("HTTP/1.1 307 X\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n"))
            .await;
    let both = vec![
        open(&format!("127.0.0.1:{}", first.port)),
        open(&format!("127.0.0.1:{}", other.port)),
    ];
    let url = format!("http://127.0.0.1:{}/here", first.port);
    let allowed = client(both.clone(), scripted(&[&["::1"]]));
    let answer = allowed.get(&url, with_secret(), &Limits::default()).await.expect("both are open");
    assert_eq!(answer.target.url().path(), "/there");
    assert!(first.seen.lock().expect("lock")[0].contains("Bearer hidden"));
    assert!(!other.seen.lock().expect("lock")[0].contains("hidden"), "dropped across origins");

    let narrow = client(both[..1].to_vec(), scripted(&[&["::1"]]));
    let refused = narrow.get(&url, with_secret(), &Limits::default()).await;
    assert!(matches!(refused, Err(EgressError::Denied { .. })), "{refused:?}");
    assert_eq!(other.seen.lock().expect("lock").len(), 1, "not even connected");
}

#[tokio::test]
async fn loops_sizes_and_silence_are_bounded() {
    let around = serve(|port| {
        format!("HTTP/1.1 302 X\r\nLocation: http://127.0.0.1:{port}/\r\nContent-Length: 0\r\n\r\n")
    })
    .await;
    let long = serve(|_| format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(100_000))).await;
    // Announces more than it sends and closes.
    let short = serve(|_| "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc".into()).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let silent_port = silent.local_addr().expect("bound").port();
    let ports = [around.port, long.port, short.port, silent_port];
    let client = client(
        ports.iter().map(|port| open(&format!("127.0.0.1:{port}"))).collect(),
        scripted(&[&["::1"]]),
    );
    let limits =
        Limits { max_bytes: 50_000, idle: Duration::from_millis(200), ..Limits::default() };
    let get = |port: u16| {
        let client = client.clone();
        async move {
            let url = format!("http://127.0.0.1:{port}/");
            client.get(&url, HeaderMap::new(), &limits).await
        }
    };
    assert!(matches!(get(around.port).await, Err(EgressError::Redirect { .. })));
    assert_eq!(around.seen.lock().expect("lock").len(), 6);
    let mut answer = get(long.port).await.expect("head");
    assert!(matches!(answer.body.bytes().await, Err(EgressError::TooLarge { .. })));
    let mut answer = get(short.port).await.expect("head");
    assert!(matches!(answer.body.bytes().await, Err(EgressError::Protocol { .. })));
    assert!(matches!(get(silent_port).await, Err(EgressError::Timeout { .. })));
}

#[test]
fn requests_say_what_they_must_and_no_more() {
    let target = Target::parse("https://example.com:8443/a%20b?c=d").expect("fine");
    let request = build(&Method::GET, &target, HeaderMap::new(), Bytes::new()).expect("built");
    assert_eq!(request.uri().to_string(), "/a%20b?c=d");
    assert_eq!(request.headers()[HOST], "example.com:8443");
    assert_eq!(request.headers().len(), 3);
}
