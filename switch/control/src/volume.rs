//! Directories and files of the host that a container sees in other places: `-v` and `--mount type=bind`.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Code, ControlError, Result};

/// `/HOST:/CONTAINER[:ro]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// On the host.
    pub source: String,
    /// In the container.
    pub target: String,
    /// It can be read only.
    pub read_only: bool,
}

impl FromStr for Bind {
    type Err = ControlError;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |what: String| ControlError::new(Code::Invalid, text, format!("invalid volume specification: '{text}': {what}"));
        let mut words = text.split(':');
        let (Some(source), Some(target), options, None) = (words.next(), words.next(), words.next(), words.next()) else {
            return Err(bad("want /HOST:/CONTAINER[:ro]".into()));
        };
        if !source.starts_with('/') {
            return Err(bad(format!("weft has no volumes: {source:?} is no absolute path of the host")));
        }
        let mut read_only = false;
        for option in options.into_iter().flat_map(|options| options.split(',')) {
            match option {
                "ro" | "readonly" => read_only = true,
                "rw" => read_only = false,
                other => return Err(bad(format!("weft does not know the option {other:?}: there are ro and rw"))),
            }
        }
        let legal = |path: &str| path.starts_with('/') && !path.contains('\0') && !path.split('/').any(|part| part == "..");
        if !legal(source) || !legal(target) || target.trim_matches('/').is_empty() {
            return Err(bad("want two absolute paths, not / inside, without ..".into()));
        }
        Ok(Self { source: source.into(), target: target.into(), read_only })
    }
}

/// `--mount`, as the client says it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub struct Mount {
    /// `bind`; there is no other here.
    #[serde(rename = "Type")]
    pub kind: String,
    /// On the host.
    pub source: String,
    /// In the container.
    pub target: String,
    /// It can be read only.
    pub read_only: bool,
}

impl Mount {
    /// The same in the words of `-v`.
    ///
    /// # Errors
    /// When it is of another kind.
    pub fn bind(&self) -> Result<String> {
        if self.kind != "bind" {
            return Err(ControlError::new(Code::Invalid, &self.kind, format!("weft does not support mounts of type {:?}: there is bind", self.kind)));
        }
        if self.source.contains(':') || self.target.contains(':') {
            return Err(ControlError::new(Code::Invalid, &self.source, format!("invalid mount {}: weft takes no path with a colon", self.source)));
        }
        Ok(format!("{}:{}{}", self.source, self.target, if self.read_only { ":ro" } else { "" }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_are_two_paths() {
        let bind: Bind = "/data/webdata:/usr/share/nginx/html".parse().unwrap();
        assert_eq!((bind.source.as_str(), bind.target.as_str(), bind.read_only), ("/data/webdata", "/usr/share/nginx/html", false));
        assert!("/a:/b:ro".parse::<Bind>().unwrap().read_only);
        for (text, culprit) in [("data:/x", "no volumes"), ("/a", "want"), ("/a:/b:z", "\"z\""), ("/a:/", "absolute"), ("/a:b", "absolute"), ("/a:/b/../c", ".."), ("/a:/b:ro:x", "want"), ("", "want")] {
            let error = text.parse::<Bind>().unwrap_err();
            assert!(error.message.contains(culprit), "{text}: {error}");
        }
        let mount = Mount { kind: "bind".into(), source: "/a".into(), target: "/b".into(), read_only: true };
        assert_eq!(mount.bind().unwrap(), "/a:/b:ro");
        assert!(Mount { kind: "volume".into(), ..mount }.bind().is_err());
    }
}
