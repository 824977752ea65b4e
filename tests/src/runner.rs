//! The test runner of `e2e`: a test that cannot run here is reported as ignored, with the reason in
//! its name, and never as passed.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::Command,
};

use libtest_mimic::{Arguments, Failed, Trial};

/// What a test needs of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Effective uid 0 with CAP_SYS_ADMIN.
    Root,
    /// A program on the path.
    Tool(&'static str),
    /// `/dev/net/tun`.
    Tun,
}

impl Need {
    /// Whether the machine has it.
    #[must_use]
    pub fn is_met(self) -> bool {
        self.missing().is_none()
    }

    /// Why the need is not met; `None` when it is.
    fn missing(self) -> Option<String> {
        match self {
            Self::Root if !nix::unistd::geteuid().is_root() => Some("needs root".into()),
            Self::Tun if !std::path::Path::new("/dev/net/tun").exists() => Some("no /dev/net/tun".into()),
            Self::Tool(tool) if !has_tool(tool) => Some(format!("{tool} is not installed")),
            Self::Root | Self::Tun | Self::Tool(_) => None,
        }
    }
}

fn has_tool(tool: &str) -> bool {
    Command::new("sh").args(["-c", &format!("command -v {tool} >/dev/null")]).status().is_ok_and(|status| status.success())
}

/// A named test with its needs.
#[must_use]
pub fn test(name: &str, needs: &[Need], body: impl FnOnce() + Send + 'static) -> Trial {
    let missing = needs.iter().find_map(|need| need.missing());
    let name = missing.as_ref().map_or_else(|| name.to_owned(), |why| format!("{name} (skipped: {why})"));
    Trial::test(name, move || {
        catch_unwind(AssertUnwindSafe(body)).map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
            Failed::from(text.unwrap_or("panicked"))
        })
    })
    .with_ignored_flag(missing.is_some())
}

/// Runs the tests and ends the process.
pub fn main(tests: Vec<Trial>) -> ! {
    let arguments = Arguments::from_args();
    libtest_mimic::run(&arguments, tests).exit()
}
