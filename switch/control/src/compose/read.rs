//! Values with their path in the file, so that each complaint can name it.

use serde_json::{Map, Value};

use super::Result;

/// A place in the file.
#[derive(Clone)]
pub(super) struct Node<'a> {
    pub(super) value: &'a Value,
    pub(super) path: String,
}

static NULL: Value = Value::Null;

impl<'a> Node<'a> {
    pub(super) fn root(value: &'a Value) -> Self {
        Self { value, path: String::new() }
    }

    pub(super) fn wrong(&self, what: &str) -> String {
        format!("{}: {what}", self.path)
    }

    /// What is under a key; null where there is nothing.
    pub(super) fn get(&self, key: &str) -> Self {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Self { value: self.value.get(key).unwrap_or(&NULL), path }
    }

    pub(super) fn is_null(&self) -> bool {
        self.value.is_null()
    }

    fn fields(&self) -> Result<Option<&'a Map<String, Value>>> {
        match self.value {
            Value::Null => Ok(None),
            Value::Object(fields) => Ok(Some(fields)),
            _ => Err(self.wrong("want a mapping")),
        }
    }

    /// Refuses what is not understood, by its path.
    pub(super) fn only(&self, known: &[&str]) -> Result<()> {
        let unknown = |key: &&String| !known.contains(&key.as_str()) && !key.starts_with("x-");
        match self.fields()?.and_then(|fields| fields.keys().find(unknown)) {
            Some(key) => Err(format!("{}: not supported; understood here: {}", self.get(key).path, known.join(", "))),
            None => Ok(()),
        }
    }

    /// Entries of a mapping, in the file's order.
    pub(super) fn map(&self, key: &str) -> Result<Vec<(String, Self)>> {
        let node = self.get(key);
        let keys = node.fields()?.into_iter().flat_map(Map::keys);
        Ok(keys.filter(|key| !key.starts_with("x-")).map(|key| (key.clone(), node.get(key))).collect())
    }

    /// A scalar as text.
    pub(super) fn scalar(&self) -> Result<Option<String>> {
        match self.value {
            Value::Null => Ok(None),
            Value::String(text) => Ok(Some(text.clone())),
            Value::Number(number) => Ok(Some(number.to_string())),
            Value::Bool(bool) => Ok(Some(bool.to_string())),
            _ => Err(self.wrong("want one value")),
        }
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<String>> {
        self.get(key).scalar()
    }

    /// A value in words that have a grammar.
    pub(super) fn parsed<T: std::str::FromStr>(&self, key: &str, what: &str) -> Result<Option<T>> {
        let node = self.get(key);
        let parse = |text: String| text.parse().map_err(|_| node.wrong(&format!("{text:?} is not {what}")));
        node.scalar()?.map(parse).transpose()
    }

    pub(super) fn flag(&self, key: &str) -> Result<bool> {
        Ok(self.parsed(key, "true or false")?.unwrap_or(false))
    }

    /// Items of a sequence.
    pub(super) fn items(&self, key: &str) -> Result<Vec<Self>> {
        let node = self.get(key);
        match node.value {
            Value::Null => Ok(Vec::new()),
            Value::Array(items) => Ok(items.iter().enumerate().map(|(at, value)| Self { value, path: format!("{}[{at}]", node.path) }).collect()),
            _ => Err(node.wrong("want a list")),
        }
    }

    /// One value, or a list of them.
    pub(super) fn texts(&self, key: &str) -> Result<Vec<String>> {
        let node = self.get(key);
        if let Value::String(text) = node.value {
            return Ok(vec![text.clone()]);
        }
        self.items(key)?.iter().map(|item| item.scalar()?.ok_or_else(|| item.wrong("want a value"))).collect()
    }

    /// A mapping, or a list of words with `separator` between key and value; a key alone has none.
    pub(super) fn pairs(&self, key: &str, separators: &[char]) -> Result<Vec<(String, Option<String>)>> {
        let node = self.get(key);
        if node.value.is_object() {
            return self.map(key)?.into_iter().map(|(key, node)| Ok((key, node.scalar()?))).collect();
        }
        let split = |word: String| word.split_once(separators).map_or((word.clone(), None), |(key, value)| (key.to_owned(), Some(value.to_owned())));
        Ok(self.texts(key)?.into_iter().map(split).collect())
    }
}
