//! Callers of the API: each is answered beside the others, and let go once it says nothing.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::task;

use super::listen::{Caller, Callers};

/// How long a caller may take for the head of a request, and so stay without one; Docker's daemon waits as long. An
/// answer may take any time, and so may a stream that took the connection over.
const SILENCE: Duration = Duration::from_secs(300);

/// Answers all callers.
pub(super) async fn serve(mut callers: Callers, app: Router) {
    while let Some(caller) = callers.next().await {
        task::spawn(answer(caller, app.clone(), SILENCE));
    }
}

async fn answer(caller: Caller, app: Router, silence: Duration) {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(silence);
    let connection = builder.serve_connection(TokioIo::new(caller), TowerToHyperService::new(app)).with_upgrades();
    if let Err(error) = connection.await {
        tracing::trace!(%error, "a caller of the API is gone");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::Instant,
    };

    use super::*;

    /// In virtual time: what a caller says at once, and the seconds until it is let go, with what it was told.
    fn talk(said: &[u8]) -> (u64, String) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let slow = || async {
                tokio::time::sleep(Duration::from_secs(1000)).await;
                "at last"
            };
            let (mut client, server) = tokio::io::duplex(4096);
            let began = Instant::now();
            let served = task::spawn(answer(Box::new(server), Router::new().route("/slow", get(slow)), Duration::from_secs(60)));
            client.write_all(said).await.unwrap();
            served.await.unwrap();
            let mut told = String::new();
            client.read_to_string(&mut told).await.unwrap();
            (began.elapsed().as_secs(), told)
        })
    }

    #[test]
    fn who_says_nothing_is_let_go_and_who_waits_for_an_answer_is_not() {
        for said in ["", "GET /slow HT", "GET /slow HTTP/1.1\r\nHost: x\r\n"] {
            let (seconds, told) = talk(said.as_bytes());
            assert_eq!((seconds, told.contains("200 OK")), (60, false), "{said:?}");
        }
        let (seconds, told) = talk(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(told.starts_with("HTTP/1.1 200 OK") && told.ends_with("at last"), "{told}");
        assert_eq!(seconds, 1060, "and then it says nothing");
    }
}
