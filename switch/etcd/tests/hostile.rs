//! Members that hang, hang up, or answer rubbish: made here, on loopback.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use control::store::{Change, LeaseId, Outcome, Seen, Store, StoreConfig, StoreError, StoreOptions, Transaction};
use etcd::Client;

/// A server that gives each request to `serve`; its address, and how many requests there were.
fn server(serve: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address").to_string();
    let (asked, serve) = (Arc::new(AtomicUsize::new(0)), Arc::new(serve));
    let counted = asked.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (serve, asked) = (serve.clone(), counted.clone());
            thread::spawn(move || {
                let mut out = stream.try_clone().expect("a stream");
                let mut reader = BufReader::new(stream);
                while let Some(path) = request(&mut reader) {
                    asked.fetch_add(1, Ordering::SeqCst);
                    serve(&path, &mut out);
                }
            });
        }
    });
    (address, asked)
}

/// Reads a request whole; its path.
fn request(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let (mut path, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim().to_lowercase();
        if let Some(rest) = line.strip_prefix("post ") {
            path = rest.split(' ').next()?.to_owned();
        } else if let Some(rest) = line.strip_prefix("content-length: ") {
            length = rest.parse().ok()?;
        } else if line.is_empty() {
            std::io::copy(&mut reader.take(length), &mut std::io::sink()).ok()?;
            return Some(path);
        }
    }
}

fn answer(out: &mut TcpStream, status: &str, body: &str) {
    drop(write!(out, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
}

fn client(members: &[&str], waker: etcd::Waker) -> Client {
    let url = format!("etcd://{}", members.join(","));
    let mut config = StoreConfig::new(url.parse().expect("a URL"), StoreOptions::default()).expect("options");
    config.timeout = Duration::from_millis(600);
    Client::connect(&config, waker).expect("a client")
}

fn quiet() -> etcd::Waker {
    Arc::new(|| {})
}

fn put() -> Transaction {
    Transaction { when: Vec::new(), then: vec![Change::Put { key: "k".into(), value: Vec::new(), lease: None }] }
}

fn is_away<T: std::fmt::Debug>(answer: Result<T, StoreError>) -> String {
    match answer {
        Err(StoreError::Away(why)) => why,
        other => panic!("{other:?}"),
    }
}

const GOOD: &str = r#"{"header":{"cluster_id":"7","revision":"5"},"succeeded":true}"#;

/// Every call of the contract, against a server of one answer.
fn every_call_is_away(address: &str) {
    let mut store = client(&[address], quiet());
    is_away(store.range("k"));
    is_away(store.transact(&put()));
    is_away(store.grant(Duration::from_secs(5)));
    is_away(store.keep_alive(LeaseId(5)));
    is_away(store.revoke(LeaseId(5)));
    store.watch("k", 1).expect("done");
    let (start, mut seen) = (Instant::now(), Vec::new());
    while seen.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(60));
        seen = store.poll();
        thread::sleep(Duration::from_millis(10));
    }
    assert!(matches!(seen.as_slice(), [Seen::Away(_)]), "{seen:?}");
}

#[test]
fn rubbish_is_no_answer() {
    for body in [
        "",
        "{",
        "null",
        "[]",
        "\"text\"",
        "{}",
        "{\"result\":{}}",
        r#"{"header":{"revision":"5""#,
        r#"{"header":{"revision":"-5"},"ID":"-1","result":{"header":{"revision":[]}}}"#,
        r#"{"header":{"revision":5.5},"ID":{},"result":[]}"#,
        r#"{"header":"5","kvs":"none","ID":"99999999999999999999999"}"#,
        "\u{0}\u{1}\u{ff}",
        "<html>It works!</html>",
    ] {
        let (address, _) = server(move |_, out| answer(out, "200 OK", body));
        every_call_is_away(&address);
    }
    // Nested deeper than any parser should follow.
    let (address, _) = server(|_, out| answer(out, "200 OK", &"[".repeat(1 << 20)));
    every_call_is_away(&address);
}

#[test]
fn other_servers_are_no_store() {
    for (status, body) in [("404 Not Found", "Not Found"), ("302 Found", ""), ("500 Internal Server Error", "{}"), ("204 No Content", "")] {
        let (address, _) = server(move |_, out| answer(out, status, body));
        every_call_is_away(&address);
    }
    let (address, _) = server(|_, out| drop(out.write_all(b"SSH-2.0-OpenSSH_9.2\r\n")));
    every_call_is_away(&address);
}

#[test]
fn who_hangs_up_or_hangs_costs_no_more_than_the_timeout() {
    let (address, _) = server(|_, out| drop(out.shutdown(std::net::Shutdown::Both)));
    every_call_is_away(&address);
    let (address, _) = server(|_, out| drop(out.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"header\":")));
    every_call_is_away(&address);
    let (address, _) = server(|_, _| ());
    every_call_is_away(&address);
}

/// An answer without end is not kept, whole or in a watch.
#[test]
fn endless_answers_are_cut_off() {
    let (address, _) = server(|_, out| {
        drop(out.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"kvs\":\""));
        let piece = [b'A'; 1 << 16];
        while out.write_all(&piece).is_ok() {}
    });
    every_call_is_away(&address);
}

/// A member that hangs leaves time to ask the next, if asking twice does no harm; and then the next is asked first.
#[test]
fn a_hanging_member_is_passed_over() {
    let (hangs, asked) = server(|_, _| ());
    let (works, done) = server(|_, out| answer(out, "200 OK", GOOD));
    let mut store = client(&[&hangs, &works], quiet());
    assert_eq!(store.range("k").expect("done").revision, 5);
    assert_eq!(store.transact(&put()), Ok(Outcome::Done(5)));
    assert_eq!((asked.load(Ordering::SeqCst), done.load(Ordering::SeqCst)), (1, 2));
}

/// A transaction that may have been carried out is not asked for twice; one that never left is.
#[test]
fn no_transaction_is_carried_out_twice() {
    let (hangs, asked) = server(|_, _| ());
    let (unavailable, refused) = server(|_, out| answer(out, "503 Service Unavailable", r#"{"error":"x","message":"etcdserver: request timed out","code":14}"#));
    let (works, done) = server(|_, out| answer(out, "200 OK", GOOD));
    let mut store = client(&[&hangs, &unavailable, "127.0.0.1:1", &works], quiet());
    is_away(store.transact(&put()));
    assert!(is_away(store.transact(&put())).contains("timed out"));
    assert_eq!(store.transact(&put()), Ok(Outcome::Done(5)), "from nobody straight to who works");
    assert_eq!([asked, refused, done].map(|count| count.load(Ordering::SeqCst)), [1, 1, 1]);
}

/// Refusals are told in etcd's words, and nobody else is asked.
#[test]
fn refusals_are_final() {
    let (first, _) = server(|_, out| answer(out, "429 Too Many Requests", r#"{"error":"x","message":"etcdserver: mvcc: database space exceeded","code":8}"#));
    let (second, asked) = server(|_, out| answer(out, "200 OK", GOOD));
    let mut store = client(&[&first, &second], quiet());
    assert!(matches!(store.range("k"), Err(StoreError::Refused(why)) if why.contains("space exceeded")));
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

/// Whoever waits is woken when there is something, and a watch that talks rubbish is taken up again from where it was.
#[test]
fn a_watch_survives_rubbish_and_wakes() {
    let round = AtomicUsize::new(0);
    let (address, _) = server(move |path, out| {
        if path != "/v3/watch" {
            return answer(out, "200 OK", GOOD);
        }
        let n = 6 + round.fetch_add(1, Ordering::SeqCst);
        let created = r#"{"result":{"header":{"cluster_id":"7","revision":"5"},"created":true}}"#;
        let event = format!(r#"{{"result":{{"header":{{"revision":"{n}"}},"events":[{{"kv":{{"key":"aw==","mod_revision":"{n}"}}}}]}}}}"#);
        drop(write!(out, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{created}\n{event}\n{{\"result\":{{\"events\":7\n"));
    });
    let (wake, woken) = mpsc::channel();
    let mut store = client(&[&address], Arc::new(move || wake.send(()).unwrap_or(())));
    store.watch("k", 5).expect("done");
    let mut revisions = Vec::new();
    while revisions.len() < 3 {
        woken.recv_timeout(Duration::from_secs(60)).expect("woken");
        revisions.extend(store.poll().into_iter().map(|seen| match seen {
            Seen::Put(entry) => entry.revision,
            other => panic!("{other:?}"),
        }));
    }
    assert_eq!(revisions[..3], [6, 7, 8]);
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let directory = std::env::temp_dir().join(format!("weft-etcd-files-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("done");
    let empty = directory.join("empty.pem");
    std::fs::write(&empty, "nothing").expect("done");
    let missing = directory.join("missing.pem");
    let tls = |ca: &std::path::Path| ("etcds://127.0.0.1", StoreOptions { ca: Some(ca.into()), ..StoreOptions::default() });
    let user = StoreOptions { user: Some("u".into()), password_file: Some(missing.clone()), ..StoreOptions::default() };
    for ((url, options), name) in [(tls(&empty), "empty.pem"), (tls(&missing), "missing.pem"), (("etcd://127.0.0.1", user), "missing.pem")] {
        let config = StoreConfig::new(url.parse().expect("a URL"), options).expect("options");
        let error = Client::connect(&config, quiet()).map(drop).unwrap_err();
        assert!(matches!(&error, StoreError::Refused(why) if why.contains(name)), "{error}");
    }
    std::fs::remove_dir_all(&directory).expect("done");
}
