//! A picture of a record: bars of medians with their intervals, as SVG. Nothing is drawn that is not in the record.

use std::fmt::Write as _;

use crate::{
    contender::Contender,
    figure::Figure,
    record::{Key, Record},
    startup::scenario::Scenario,
    statistics::Estimate,
};

const WIDTH: f64 = 860.0;
/// Where bars begin: names are left of it.
const LEFT: f64 = 220.0;
/// Where the longest bar ends: its value is right of it.
const RIGHT: f64 = 730.0;
const BAR: f64 = 18.0;
const STEP: f64 = 26.0;
const HEADING: f64 = 40.0;

/// One bar.
struct Bar {
    contender: Contender,
    estimate: Estimate,
}

/// Bars on a common scale.
struct Panel {
    heading: String,
    bars: Vec<Bar>,
}

/// Draws `figure` of `scenario`: a panel for each image and network, a bar for each contender. `None` when the
/// record has no such samples.
pub(crate) fn of(record: &Record, scenario: Scenario, figure: Figure) -> Option<String> {
    let panels = panels(record, scenario, figure);
    if panels.is_empty() {
        return None;
    }
    let height: f64 = 96.0 + panels.iter().map(Panel::height).sum::<f64>();
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" font-size="13" fill="#1f2328">
<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>
"##
    );
    let title = format!("{}: {} (less is better)", scenario.title(), figure.title());
    text(&mut svg, 24.0, 34.0, "start", r#" font-size="17" font-weight="600""#, &title);
    let mut top = 52.0;
    for panel in &panels {
        panel.draw(&mut svg, top, figure);
        top += panel.height();
    }
    text(&mut svg, 24.0, height - 16.0, "start", r##" font-size="11" fill="#59636e""##, &caption(record));
    svg += "</svg>\n";
    Some(svg)
}

fn panels(record: &Record, scenario: Scenario, figure: Figure) -> Vec<Panel> {
    let keys: Vec<Key> = record.keys().into_iter().filter(|key| key.scenario == scenario).collect();
    let same_place = |a: &Key, b: &Key| (a.image, a.network) == (b.image, b.network);
    let panels = keys.chunk_by(same_place).map(|keys| Panel {
        heading: keys
            .first()
            .map_or_else(String::new, |key| format!("{}, {}", key.image.name(), key.network.title())),
        bars: keys
            .iter()
            .filter_map(|key| {
                Some(Bar { contender: key.contender, estimate: record.estimate(*key, figure)? })
            })
            .collect(),
    });
    panels.filter(|panel| !panel.bars.is_empty()).collect()
}

/// What a reader must know to judge the picture.
fn caption(record: &Record) -> String {
    let Record { smoke, runs, machine, versions, began, .. } = record;
    let day = began.split('T').next().unwrap_or_default();
    let kind = if *smoke { "Smoke run, proves nothing. " } else { "" };
    format!(
        "{kind}Medians of {runs} with 95 % intervals; {} processors, Linux {}; containerd {}, stargz-snapshotter {}; {day}",
        machine.processors, machine.kernel, versions.containerd, versions.stargz_snapshotter
    )
}

impl Panel {
    fn height(&self) -> f64 {
        HEADING + STEP * self.bars.len() as f64
    }

    fn draw(&self, svg: &mut String, top: f64, figure: Figure) {
        text(svg, 24.0, top + 24.0, "start", r#" font-weight="600""#, &self.heading);
        let longest = self.bars.iter().map(|bar| bar.estimate.high).fold(f64::MIN_POSITIVE, f64::max);
        let x = |value: f64| LEFT + (RIGHT - LEFT) * value / longest;
        for (row, Bar { contender, estimate }) in self.bars.iter().enumerate() {
            let y = top + HEADING + STEP * row as f64;
            let middle = y + BAR / 2.0;
            text(svg, LEFT - 10.0, middle + 4.5, "end", "", contender.title());
            let end = x(estimate.median);
            let _ = writeln!(
                svg,
                r#"<rect x="{LEFT}" y="{y:.1}" width="{:.1}" height="{BAR}" rx="2" fill="{}"/>"#,
                (end - LEFT).max(1.0),
                colour(*contender)
            );
            whisker(svg, x(estimate.low), x(estimate.high), middle);
            let right = x(estimate.high) + 10.0;
            text(svg, right, middle + 4.5, "start", "", &figure.show(estimate.median));
        }
    }
}

/// The interval, as a line with ends.
fn whisker(svg: &mut String, low: f64, high: f64, y: f64) {
    if high - low < 0.5 {
        return;
    }
    let (above, below) = (y - 4.0, y + 4.0);
    let _ = writeln!(
        svg,
        r##"<path d="M{low:.1} {above:.1}V{below:.1}M{low:.1} {y:.1}H{high:.1}M{high:.1} {above:.1}V{below:.1}" stroke="#1f2328" stroke-width="1.2" fill="none"/>"##
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, attributes: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}"{attributes}>{text}</text>"#);
}

/// Starling stands out; relatives have related colours.
fn colour(contender: Contender) -> &'static str {
    match contender {
        Contender::Overlayfs => "#8c959f",
        Contender::OverlayfsParallel => "#6e7781",
        Contender::Erofs => "#57606a",
        Contender::Stargz => "#d4a72c",
        Contender::StargzTuned => "#bf8700",
        Contender::Starling => "#54aeff",
        Contender::StarlingProfile => "#0969da",
        Contender::StarlingOnDemand => "#80ccff",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        image::Image,
        machine::{Machine, Versions},
        network::Network,
        record::Sample,
    };

    fn record(samples: &[(Contender, f64)]) -> Record {
        let sample = |&(contender, ready): &(Contender, f64)| Sample {
            key: Key { image: Image::Python, network: Network::Far, scenario: Scenario::Start, contender },
            position: 0,
            figures: BTreeMap::from([(Figure::Ready, ready)]),
            failure: None,
        };
        Record {
            smoke: true,
            began: "2026-01-02T03:04:05Z".to_owned(),
            seed: 1,
            runs: 2,
            machine: Machine::this(),
            versions: Versions::this(),
            skipped: BTreeMap::new(),
            recorded_elsewhere: Vec::new(),
            samples: samples.iter().map(sample).collect(),
        }
    }

    #[test]
    fn each_contender_has_a_bar_with_its_median() {
        let record = record(&[
            (Contender::Overlayfs, 10.0),
            (Contender::Overlayfs, 12.0),
            (Contender::Starling, 5.5),
            (Contender::Starling, 5.5),
        ]);
        let svg = of(&record, Scenario::Start, Figure::Ready).unwrap();
        assert_eq!(svg.matches("<rect x=").count(), 2);
        for text in
            ["python, 20 ms, 200 Mbit/s", ">Starling<", ">overlayfs<", ">11.00 s<", ">5.50 s<", "Smoke run"]
        {
            assert!(svg.contains(text), "{text} is not in\n{svg}");
        }
        // Only overlayfs' samples differ.
        assert_eq!(svg.matches("<path").count(), 1);
    }

    #[test]
    fn nothing_is_drawn_of_what_was_not_measured() {
        let record = record(&[(Contender::Starling, 5.0)]);
        assert_eq!(of(&record, Scenario::Whole, Figure::Ready), None);
        assert_eq!(of(&record, Scenario::Start, Figure::WholeRead), None);
    }
}
