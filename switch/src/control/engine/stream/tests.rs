use std::io::Write;

use super::*;

/// What was written just before the end, and of which the runtime has not heard yet.
#[tokio::test]
async fn the_last_words_are_logged() {
    let log = std::env::temp_dir().join(format!("weft-console-{}.out", std::process::id()));
    let consoles = Consoles::default();
    let console = consoles.of("id", &log);
    let [_, output, errors] = console.open(false, false, 1 << 20).unwrap();
    File::from(output).write_all(b"one\n").unwrap();
    File::from(errors).write_all(b"two\n").unwrap();
    console.drain().await;
    let mut logged: Vec<_> = LogReader::open(&Log::at(&log)).unwrap().read().unwrap().into_iter().map(|entry| (entry.stream, entry.text)).collect();
    logged.sort();
    assert_eq!(logged, [(1, b"one\n".to_vec()), (2, b"two\n".to_vec())]);
    consoles.remove("id");
    assert!(!log.exists());
}

#[test]
fn lines_are_counted_as_they_were_meant() {
    let mut lines = Lines::default();
    let places: Vec<_> = [(1, "a"), (2, "b\n"), (1, "a\n"), (1, "c\n"), (2, "d"), (2, "d"), (1, "e\n")].map(|(stream, text)| lines.place(&Entry { stream, time_ns: 0, text: text.into() })).into();
    assert_eq!(places, [(true, 1), (true, 2), (false, 1), (true, 3), (true, 4), (false, 4), (true, 5)]);
}
