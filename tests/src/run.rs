//! Commands with their output, and waiting for things to become true.

use std::{
    fmt,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

/// What a command said, for assertions that show everything when they fail.
pub struct Ran {
    /// The command line.
    pub line: String,
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl fmt::Debug for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "$ {}\nexit {:?}\n--- stdout\n{}--- stderr\n{}", self.line, self.code, self.stdout, self.stderr)
    }
}

impl Ran {
    /// Asserts success; gives the output.
    ///
    /// # Panics
    /// When the command failed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.code == Some(0), "command failed:\n{self:?}");
        self.stdout
    }

    /// Asserts failure (not by a signal) and that nothing panicked; gives standard error.
    ///
    /// # Panics
    /// When the command succeeded, died or panicked.
    #[track_caller]
    pub fn fails(self) -> String {
        assert!(self.code.is_some_and(|code| code != 0), "command should have failed:\n{self:?}");
        assert!(!self.stderr.contains("panicked"), "command panicked:\n{self:?}");
        self.stderr
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// When the command failed or did not print JSON.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("not JSON: {error}\n{text}"))
    }
}

/// Runs `command` to its end, with a limit of `timeout` seconds.
///
/// # Panics
/// When it cannot be started.
#[track_caller]
pub fn run(command: &mut Command) -> Ran {
    let line = describe(command);
    let output: Output = command
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot run `{line}`: {error}"));
    Ran {
        line,
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Splits words at blanks; there is no quoting.
#[must_use]
pub fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

fn describe(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for word in command.get_args() {
        line.push(' ');
        line.push_str(&word.to_string_lossy());
    }
    line
}

/// Waits until `check` holds. The limit only bounds a broken run: no test depends on speed.
///
/// # Panics
/// When it does not hold after 90 seconds.
#[track_caller]
pub fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let start = Instant::now();
    while !check() {
        assert!(start.elapsed() < Duration::from_secs(90), "never became true: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
