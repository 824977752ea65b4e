//! The `filters` of a query.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::bad;
use crate::error::Result;

/// A query's `filters`: `{"name": ["a"]}`, or `{"name": {"a": true}}` as older clients have it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// # Errors
    /// When it is no such object, or has another key than `known`.
    pub fn parse(text: Option<&str>, known: &[&str]) -> Result<Self> {
        let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(Self::default()) };
        let Ok(Value::Object(fields)) = serde_json::from_str(text) else { return Err(bad(format!("invalid filters: {text}"))) };
        let mut filters = BTreeMap::new();
        for (key, wanted) in fields {
            if !known.contains(&key.as_str()) {
                return Err(bad(format!("invalid filter '{key}': there are {}", known.join(", "))));
            }
            let words = match wanted {
                Value::Object(words) => words.into_iter().filter(|(_, on)| *on == json!(true)).map(|(word, _)| word).collect(),
                Value::Array(words) => words.iter().map(|word| word.as_str().map(str::to_owned).ok_or_else(|| bad(format!("invalid filter '{key}': {word}")))).collect::<Result<_>>()?,
                other => return Err(bad(format!("invalid filter '{key}': {other}"))),
            };
            filters.insert(key, words);
        }
        Ok(Self(filters))
    }

    /// All that was said of `key`.
    #[must_use]
    pub fn words(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }

    /// True without such a filter, or when one of its words holds.
    pub fn any(&self, key: &str, holds: impl Fn(&str) -> bool) -> bool {
        let words = self.words(key);
        words.is_empty() || words.iter().any(|word| holds(word))
    }

    /// `label=KEY[=VALUE]`: all must hold.
    #[must_use]
    pub fn labels(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |word: &String| match word.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|seen| seen == value),
            None => labels.contains_key(word),
        };
        self.words("label").iter().all(has) && !self.words("label!").iter().any(has)
    }

    /// True or false, if it was said.
    ///
    /// # Errors
    /// When it is neither.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        match self.words(key) {
            [] => Ok(None),
            [word] if matches!(word.as_str(), "1" | "true") => Ok(Some(true)),
            [word] if matches!(word.as_str(), "0" | "false") => Ok(Some(false)),
            words => Err(bad(format!("invalid filter '{key}={}'", words.join(",")))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_in_both_forms() {
        let known = ["name", "label"];
        for text in [r#"{"name":["a","b"],"label":["x=1"]}"#, r#"{"name":{"a":true,"b":true},"label":{"x=1":true}}"#] {
            let filters = Filters::parse(Some(text), &known).unwrap();
            assert_eq!(filters.words("name"), ["a", "b"]);
            assert!(filters.labels(&BTreeMap::from([("x".into(), "1".into())])) && !filters.labels(&BTreeMap::new()));
        }
        for text in ["{", "[]", r#"{"what":["a"]}"#, r#"{"name":1}"#, r#"{"name":[1]}"#, r#"{"name":[["a"]]}"#] {
            assert!(Filters::parse(Some(text), &known).is_err(), "{text}");
        }
    }
}
