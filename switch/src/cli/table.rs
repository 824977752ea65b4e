//! Tables in Docker's shape: columns padded to their widest cell, three blanks apart.

use serde_json::Value;

use super::print;

/// Prints a header and rows.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) {
    lines(header, rows).iter().for_each(|line| print(line));
}

fn lines(header: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| one_line(cell)).collect()).collect();
    let widths: Vec<usize> = (0..header.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).chain([header[column].len()]).max().unwrap_or(0))
        .collect();
    let header = line(header.iter().copied(), &widths);
    std::iter::once(header).chain(rows.iter().map(|row| line(row.iter().map(String::as_str), &widths))).collect()
}

fn line<'a>(cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
    let padded: Vec<String> = cells.zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
    padded.join("   ").trim_end().to_owned()
}

/// A cell with line breaks could pass for rows.
fn one_line(cell: &str) -> String {
    cell.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// As Docker's `ps` shows long commands: quoted, cut.
pub(crate) fn cut(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    text.chars().take(length.saturating_sub(1)).chain(['…']).collect()
}

/// A JSON value as a cell.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["1".into(), "web".into(), String::new()], vec!["12345".into(), "a\nb".into(), "x".into()]];
        assert_eq!(lines(&["ID", "NAME", "Z"], &rows), ["ID      NAME   Z", "1       web", "12345   a\u{fffd}b    x"]);
    }

    #[test]
    fn long_cells_are_cut() {
        assert_eq!((cut("abc", 3).as_str(), cut("abcd", 3).as_str()), ("abc", "ab…"));
    }
}
