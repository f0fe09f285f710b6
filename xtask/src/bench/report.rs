//! The report of a run: medians, ratios, a table for people, and JSON for comparisons over time.

use super::EXEC;
use super::ISOLATED;
use super::OURS;
use super::chart;
use anyhow::Context as _;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// All figures of one run. Compare only figures of one run, because machines drift by a factor of two.
#[derive(Serialize)]
pub(super) struct Report {
    /// The baseline, with which our server is compared: `qemu` or `before`.
    baseline: &'static str,
    /// The figures of each measure, in the order of measuring.
    measures: Vec<Measure>,
    /// The measures that were not taken, with the reasons.
    missing: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Measure {
    name: String,
    unit: &'static str,
    /// One value for each round, by server.
    rounds: BTreeMap<&'static str, Vec<f64>>,
    /// The median over the rounds, by server.
    medians: BTreeMap<&'static str, f64>,
}

impl Measure {
    /// How many times better than the baseline a server of ours is. A higher rate is better. A lower value of any other measure is better.
    fn ratio(&self, baseline: &str, ours: &str) -> Option<f64> {
        let (other, ours) = (self.medians.get(baseline)?, self.medians.get(ours)?);
        match self.unit.ends_with("/s") {
            true => Some(ours / other),
            false => (*ours > 0.0).then(|| other / ours),
        }
    }
}

impl Report {
    /// An empty report with this baseline.
    pub(super) fn new(baseline: &'static str) -> Self {
        Self {
            baseline,
            measures: Vec::new(),
            missing: BTreeMap::new(),
        }
    }

    /// Adds the value of a round.
    pub(super) fn add(&mut self, name: &str, unit: &'static str, server: &'static str, value: f64) {
        let index = match self
            .measures
            .iter()
            .position(|measure| measure.name == name)
        {
            Some(index) => index,
            None => {
                self.measures.push(Measure {
                    name: name.to_owned(),
                    unit,
                    rounds: BTreeMap::new(),
                    medians: BTreeMap::new(),
                });
                self.measures.len() - 1
            }
        };
        let measure = &mut self.measures[index];
        let values = measure.rounds.entry(server).or_default();
        values.push(value);
        measure.medians.insert(server, quantile(values, 0.5));
    }

    /// Records that a measure was not taken.
    pub(super) fn missing(&mut self, what: &str, why: &str) {
        self.missing.insert(what.to_owned(), why.to_owned());
    }

    /// The median of a measure.
    pub(super) fn median(&self, name: &str, server: &str) -> Option<f64> {
        self.measures
            .iter()
            .find(|measure| measure.name == name)?
            .medians
            .get(server)
            .copied()
    }

    /// Prints the table and the measures that were not taken. A server of ours has columns if it was measured.
    pub(super) fn print(&self) {
        let measured = |server: &&str| {
            let mut medians = self.measures.iter().map(|measure| &measure.medians);
            medians.any(|of| of.contains_key(*server))
        };
        let ours: Vec<&str> = [EXEC, ISOLATED, OURS]
            .into_iter()
            .filter(measured)
            .collect();
        print!(
            "{:<34} {:>6} {:>10} {:>10}",
            "median", "unit", "floor", self.baseline
        );
        ours.iter().for_each(|server| print!(" {server:>10}"));
        for server in &ours {
            let title = match *server {
                OURS => "times better".to_owned(),
                other => format!("{other} better"),
            };
            print!(" {title:>15}");
        }
        println!();
        for measure in &self.measures {
            let cell = |server| {
                measure
                    .medians
                    .get(server)
                    .map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
            };
            // The bare ioctls are a baseline as well.
            let floor = match measure.medians.contains_key("bare") {
                true => cell("bare"),
                false => cell("echo"),
            };
            print!(
                "{:<34} {:>6} {:>10} {:>10}",
                measure.name,
                measure.unit,
                floor,
                cell(self.baseline)
            );
            ours.iter()
                .for_each(|server| print!(" {:>10}", cell(server)));
            for server in &ours {
                let ratio = measure.ratio(self.baseline, server);
                let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
                print!(" {ratio:>15}");
            }
            println!();
        }
        for (what, why) in &self.missing {
            println!("not measured: {what}: {why}");
        }
    }

    /// Writes the report to a file as JSON, and its ratios to a chart beside the file.
    pub(super) fn save(&self, path: &Path) -> anyhow::Result<()> {
        let write = |path: &Path, text: String| {
            std::fs::write(path, text)
                .with_context(|| format!("cannot write {}", path.display()))?;
            println!("written to {}", path.display());
            anyhow::Ok(())
        };
        write(path, serde_json::to_string_pretty(self)?)?;
        let ratios = self.measures.iter().filter_map(|measure| {
            Some((measure.name.clone(), measure.ratio(self.baseline, OURS)?))
        });
        match chart::draw(self.baseline, &ratios.collect::<Vec<_>>())? {
            Some(svg) => write(&path.with_extension("svg"), svg),
            None => Ok(()),
        }
    }
}

/// The value below which the given share of the values lies. Of an even number of values, the median is the upper one of the two in the middle.
pub(super) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index into a list of measured values"
    )]
    let index = (sorted.len() as f64 * share) as usize;
    sorted
        .get(index.min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_taken_from_the_sorted_values() {
        assert!((quantile(&[3.0, 1.0, 2.0], 0.5) - 2.0).abs() < f64::EPSILON);
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert!((quantile(&hundred, 0.99) - 100.0).abs() < f64::EPSILON);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn medians_are_kept_by_measure_and_server() {
        let mut report = Report::new("qemu");
        for value in [5.0, 1.0, 3.0] {
            report.add("g", "us", "qemu", value);
        }
        report.add("g", "us", "trapgate", 1.5);
        assert_eq!(report.median("g", "qemu"), Some(3.0));
        assert_eq!(report.median("g", "echo"), None);
        report.add("x", "MB/s", "qemu", 10.0);
        report.add("x", "MB/s", "trapgate", 30.0);
        let ratios: Vec<_> = report
            .measures
            .iter()
            .map(|measure| measure.ratio("qemu", "trapgate"))
            .collect();
        assert_eq!(ratios, [Some(2.0), Some(3.0)]);
        let folder = std::env::temp_dir().join(format!("trapgate-report-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        report.save(&folder.join("latest.json")).unwrap();
        let chart = std::fs::read_to_string(folder.join("latest.svg")).unwrap();
        assert!(chart.contains("3.00"), "{chart}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
