//! A record as tables.

use crate::{
    figure::Figure,
    record::{Key, Record},
};

/// One table for each image, network and scenario: contenders in rows, figures in columns.
pub(crate) fn of(record: &Record) -> String {
    let keys = record.keys();
    let mut text = String::new();
    let circumstances = |key: &Key| (key.image, key.network, key.scenario);
    for of_one_table in keys.chunk_by(|a, b| circumstances(a) == circumstances(b)) {
        let Some(first) = of_one_table.first() else { continue };
        let (image, network, scenario) = (first.image.name(), first.network.title(), first.scenario.title());
        text += &format!("\n### {image}, {network}: {scenario}\n\n");
        text += &one_table(record, of_one_table);
    }
    for (contender, why) in &record.skipped {
        text += &format!("\n{}: skipped: {why}\n", contender.title());
    }
    for mark in &record.recorded_elsewhere {
        text += &format!(
            "\n{} ({}): {} in {:.2} x the time of overlayfs; {}\n",
            mark.contender, mark.network, mark.what, mark.ratio_to_overlayfs, mark.note
        );
    }
    if record.smoke {
        text += "\nThis is a smoke run: it shows that everything works, its figures prove nothing.\n";
    }
    text
}

fn one_table(record: &Record, keys: &[Key]) -> String {
    let measured = |figure: &&Figure| keys.iter().any(|key| record.estimate(*key, **figure).is_some());
    let figures: Vec<&Figure> = Figure::ALL.iter().filter(measured).collect();
    let titles: Vec<&str> = figures.iter().map(|figure| figure.title()).collect();
    let mut text =
        format!("| | samples | {} |\n|---|{}\n", titles.join(" | "), "---|".repeat(titles.len() + 1));
    for key in keys {
        let samples =
            record.samples.iter().filter(|sample| sample.key == *key && sample.failure.is_none()).count();
        let cells: Vec<String> = figures
            .iter()
            .map(|figure| match record.estimate(*key, **figure) {
                None => "-".to_owned(),
                Some(one) if one.samples == 1 => figure.show(one.median),
                Some(several) => format!(
                    "{} ({} to {})",
                    figure.show(several.median),
                    figure.show(several.low),
                    figure.show(several.high)
                ),
            })
            .collect();
        text += &format!("| {} | {samples} | {} |\n", key.contender.title(), cells.join(" | "));
    }
    text
}
