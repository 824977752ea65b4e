//! `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`, `${NAME:?why}`, `${NAME?why}`, and `$$` for a dollar.

use serde_json::Value;

use super::Result;

/// Puts variables into all texts of a value.
pub(super) fn all(value: &mut Value, path: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<()> {
    match value {
        Value::String(written) if written.contains('$') => *written = text(written, variable).map_err(|why| format!("{path}: {why}"))?,
        Value::Array(items) => items.iter_mut().enumerate().try_for_each(|(at, item)| all(item, &format!("{path}[{at}]"), variable))?,
        Value::Object(fields) => fields.iter_mut().try_for_each(|(key, field)| all(field, &if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, variable))?,
        _ => {}
    }
    Ok(())
}

fn text(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let (inside, after) = after.split_once('}').ok_or_else(|| format!("{text:?}: `${{` without `}}`"))?;
            out.push_str(&braced(inside, variable)?);
            rest = after;
        } else {
            let length = after.bytes().take_while(|&byte| is_name(byte)).count();
            if length == 0 || after.as_bytes()[0].is_ascii_digit() {
                return Err(format!("{text:?}: no variable after `$`; write `$$` for a dollar"));
            }
            out.push_str(&variable(&after[..length]).unwrap_or_default());
            rest = &after[length..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

fn braced(inside: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String> {
    let length = inside.bytes().take_while(|&byte| byte.is_ascii_alphanumeric() || byte == b'_').count();
    let (name, rest) = inside.split_at(length);
    let value = variable(name);
    let (value, rest) = match rest.strip_prefix(':') {
        Some(rest) => (value.filter(|value| !value.is_empty()), rest),
        None => (value, rest),
    };
    if name.is_empty() {
        return Err(format!("${{{inside}}}: no variable in it"));
    }
    match (rest.chars().next(), value) {
        (None, value) if !inside.ends_with(':') => Ok(value.unwrap_or_default()),
        (Some('-'), value) => Ok(value.unwrap_or_else(|| rest[1..].to_owned())),
        (Some('?'), Some(value)) => Ok(value),
        (Some('?'), None) => Err(format!("{name} is not set: {}", &rest[1..])),
        _ => Err(format!("${{{inside}}}: want ${{NAME}}, ${{NAME:-default}} or ${{NAME:?why}}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables() {
        let variable = |name: &str| match name {
            "A" => Some("x".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let of = |written: &str| text(written, &variable);
        for (written, wanted) in [("a$A.b", "ax.b"), ("${A}b", "xb"), ("$$A", "$A"), ("${NO:-d}", "d"), ("${EMPTY:-d}", "d"), ("${EMPTY-d}", ""), ("${A:?why}", "x"), ("$NO", ""), ("é$A", "éx")] {
            assert_eq!(of(written).unwrap(), wanted, "{written}");
        }
        for (written, part) in [("${NO:?set it}", "set it"), ("${A", "without"), ("$", "$$"), ("$1", "$$"), ("${A:+b}", "want"), ("${}", "no variable"), ("${A:}", "want")] {
            assert!(of(written).unwrap_err().contains(part), "{written}: {:?}", of(written));
        }
    }
}
