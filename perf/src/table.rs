//! Medians, ratios, targets.

use crate::workload::Figures;

/// All figures of one run: peer, workload, round's figures.
pub type Results = Vec<(&'static str, &'static str, Figures)>;

/// Median of the values; zero of none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}

/// Median over the rounds of one figure.
#[must_use]
pub fn figure(results: &Results, peer: &str, workload: &str, name: &str) -> f64 {
    median(results.iter().filter(|(p, w, _)| *p == peer && *w == workload).filter_map(|(_, _, figures)| figures.get(name).copied()).collect())
}

/// Columns: workload, figure, and whether more is better.
pub const COLUMNS: &[(&str, &str, &str)] = &[
    ("tcp1", "gbps", "TCP 1 Gbit/s"),
    ("tcp4", "gbps", "TCP 4 Gbit/s"),
    ("udp", "kpps", "UDP 64 B kpps"),
    ("latency", "p50_us", "p50 us"),
    ("latency", "p999_us", "p99.9 us"),
    ("rest", "p50_us", "p50 us, CPUs halt"),
    ("load4g", "p999_us", "p99.9 us beside 4 Gbit/s"),
    ("load", "p999_us", "p99.9 us beside all TCP can"),
    ("crr", "per_s", "connect/s"),
    ("tcp1", "cpu_s_per_gbit", "CPU s/Gbit"),
    ("idle", "rss_mib", "RSS MiB"),
    ("idle", "idle_cpu_percent", "idle CPU %"),
];

/// Workload, figure, must, aim: ratios to the kernel bridge. Above one, more is better.
const TARGETS: &[(&str, &str, f64, f64, bool)] = &[
    ("tcp1", "gbps", 0.75, 0.95, true),
    ("tcp4", "gbps", 0.65, 0.85, true),
    ("udp", "kpps", 1.2, 1.5, true),
    ("latency", "p50_us", 0.8, 0.6, false),
    ("rest", "p50_us", 0.8, 0.6, false),
    ("load4g", "p999_us", 2.0, 1.0, false),
    ("load", "p999_us", 2.0, 1.0, false),
    ("crr", "per_s", 0.85, 1.0, true),
];

/// The report as Markdown.
#[must_use]
pub fn report(results: &Results, peers: &[&'static str]) -> String {
    let mut text = format!("| peer | {} |\n|---|{}\n", COLUMNS.iter().map(|column| column.2).collect::<Vec<_>>().join(" | "), "---|".repeat(COLUMNS.len()));
    for peer in peers {
        let cells: Vec<_> = COLUMNS.iter().map(|(workload, name, _)| cell(figure(results, peer, workload, name))).collect();
        text += &format!("| {peer} | {} |\n", cells.join(" | "));
    }
    text += "\nRatios to the kernel bridge in the same run:\n\n| what | must | aim |";
    let ours: Vec<_> = peers.iter().filter(|peer| **peer != "kbridge").collect();
    for peer in &ours {
        text += &format!(" {peer} |");
    }
    text += &format!("\n|---|---|---|{}\n", "---|".repeat(ours.len()));
    for (workload, name, must, aim, more) in TARGETS {
        let base = figure(results, "kbridge", workload, name);
        text += &format!("| {workload} {name} | {must} | {aim} |");
        for peer in &ours {
            let value = figure(results, peer, workload, name);
            text += &if base > 0.0 && value > 0.0 { verdict(value / base, *must, *aim, *more) } else { " - |".into() };
        }
        text.push('\n');
    }
    text
}

fn cell(value: f64) -> String {
    match value {
        0.0 => "-".into(),
        value if value >= 1000.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.3}"),
    }
}

fn verdict(ratio: f64, must: f64, aim: f64, more: bool) -> String {
    let reaches = |target: f64| if more { ratio >= target } else { ratio <= target };
    let word = if reaches(aim) { "aim" } else if reaches(must) { "must" } else { "below" };
    format!(" {ratio:.2} ({word}) |")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_ratios() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        let results = vec![("kbridge", "tcp1", Figures::from([("gbps", 10.0)])), ("weft-tap", "tcp1", Figures::from([("gbps", 8.0)]))];
        let text = report(&results, &["kbridge", "weft-tap"]);
        assert!(text.contains("| tcp1 gbps | 0.75 | 0.95 | 0.80 (must) |"), "{text}");
    }
}
