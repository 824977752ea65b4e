//! Tables in Docker's shape: columns padded to their widest cell, three blanks apart.

use super::print;

/// Prints a header and rows.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) {
    let widths: Vec<usize> = (0..header.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).chain([header[column].len()]).max().unwrap_or(0))
        .collect();
    print(&line(header.iter().copied(), &widths));
    for row in rows {
        print(&line(row.iter().map(String::as_str), &widths));
    }
}

fn line<'a>(cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
    let padded: Vec<String> = cells.zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
    padded.join("   ").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        assert_eq!(line(["a", "bc"].into_iter(), &[3, 2]), "a     bc");
    }
}
