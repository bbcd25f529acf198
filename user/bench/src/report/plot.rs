// SPDX-License-Identifier: MIT OR Apache-2.0

//! The plots, as SVG: how many times better than the C module each figure is, and latencies.

use anyhow::anyhow;
use anyhow::Result;
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::scenario::Scenario;
use crate::stats::Range;

use super::rows::Row;

const FONT: &str = "sans-serif";
const GREY: RGBColor = RGBColor(160, 160, 160);
const C: RGBColor = RGBColor(110, 110, 110);
/// One for each mode, in the order in which they are met.
const COLOURS: [RGBColor; 5] = [
    RGBColor(0, 90, 181),
    RGBColor(220, 50, 32),
    RGBColor(0, 128, 80),
    RGBColor(150, 80, 170),
    RGBColor(200, 130, 0),
];
const WIDTH: u32 = 1000;
const LINE: u32 = 24;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// Something that is drawn in a line of its own.
struct Entry {
    name: String,
    colour: RGBColor,
    /// Where the dots are, and the line that joins the least and the greatest one.
    dots: Vec<f64>,
}

fn draw(height: u32, work: impl Fn(&Area<'_>) -> Drawn) -> Result<String> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, (WIDTH, height)).into_drawing_area();
        root.fill(&WHITE).map_err(|e| anyhow!("plot: {e}"))?;
        work(&root).map_err(|e| anyhow!("plot: {e}"))?;
        root.present().map_err(|e| anyhow!("plot: {e}"))?;
    }
    Ok(text)
}

/// The colour of each mode.
fn colour(rows: &[Row], row: &Row) -> RGBColor {
    let mut modes: Vec<_> = rows.iter().map(|row| &row.mode).collect();
    modes.sort();
    modes.dedup();
    let at = modes.iter().position(|mode| **mode == row.mode);
    COLOURS[at.unwrap_or(0) % COLOURS.len()]
}

/// For each figure how many times better this module is than the C module, with all that the pairs
/// said. What is noisy is grey.
///
/// # Errors
///
/// It cannot be drawn.
pub(super) fn ratios(rows: &[Row]) -> Result<String> {
    let entries: Vec<_> = rows
        .iter()
        .filter_map(|row| {
            let Range { median, min, max } = row.gain()?;
            let mode = if row.mode.is_classic() {
                String::new()
            } else {
                format!(" ({})", row.mode)
            };
            Some(Entry {
                name: format!("{}{mode}", row.name()),
                colour: match row.says_nothing() {
                    true => GREY,
                    false => colour(rows, row),
                },
                dots: vec![median, min, max],
            })
        })
        .collect();
    let title = "How many times better than the C module: median, and all pairs; grey: noise";
    lines(title, "better than the C module, times", &entries)
}

/// p50 and p99 of the cold random reads, over the C module's p50.
///
/// # Errors
///
/// It cannot be drawn.
pub(super) fn latency(rows: &[Row]) -> Result<String> {
    let mut entries = Vec::new();
    for scenario in [Scenario::S2, Scenario::S3, Scenario::S4] {
        let of = |name: &'static str| {
            let figure = move |row: &&Row| row.scenario == scenario && row.figure.name == name;
            rows.iter().filter(figure)
        };
        let Some(unit) = of("p50_us").find_map(|row| row.c) else {
            continue;
        };
        let entry = |name, colour, p50: Option<Range>, p99: Option<Range>| {
            let dots = vec![p50?.median / unit.median, p99?.median / unit.median];
            Some(Entry { name, colour, dots })
        };
        for (p50, p99) in of("p50_us").zip(of("p99_us")) {
            if p50.mode.is_classic() {
                entries.extend(entry(format!("{scenario} C"), C, p50.c, p99.c));
            }
            let name = format!("{scenario} ours, {}", p50.mode);
            entries.extend(entry(name, colour(rows, p50), p50.ours, p99.ours));
        }
    }
    let title = "Cold random reads: p50 and p99, over the C module's p50 of the same scenario";
    lines(title, "latency, times the C module's p50", &entries)
}

/// A line for each entry, on a logarithmic scale, with a mark at 1.
fn lines(title: &str, axis: &str, entries: &[Entry]) -> Result<String> {
    let count = u32::try_from(entries.len())?;
    let all = || entries.iter().flat_map(|entry| entry.dots.iter().copied());
    let (low, high) = (all().fold(0.8, f64::min), all().fold(1.25, f64::max));
    draw(LINE * count + 110, |area| {
        let rows = f64::from(count);
        let mut chart = ChartBuilder::on(area)
            .caption(title, (FONT, 18))
            .margin(12)
            .margin_right(30)
            .x_label_area_size(44)
            .y_label_area_size(330)
            .build_cartesian_2d((low / 1.1..high * 1.1).log_scale(), 0.0..rows.max(1.0))?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .max_light_lines(1)
            .y_labels(0)
            .x_desc(axis)
            .x_label_formatter(&|times| format!("{times}"))
            .label_style((FONT, 14))
            .draw()?;
        chart.draw_series([PathElement::new(
            [(1.0, 0.0), (1.0, rows.max(1.0))],
            BLACK.stroke_width(1),
        )])?;
        for (place, entry) in (1_u32..).zip(entries) {
            let at = |times: f64| (times, rows - f64::from(place) + 0.5);
            let (left, y) = chart.backend_coord(&at(low / 1.1));
            let style =
                (FONT, 14)
                    .into_font()
                    .color(&BLACK)
                    .pos(plotters::style::text_anchor::Pos::new(
                        plotters::style::text_anchor::HPos::Right,
                        plotters::style::text_anchor::VPos::Center,
                    ));
            area.draw(&Text::new(entry.name.clone(), (left - 10, y), style))?;
            let least = entry.dots.iter().copied().fold(f64::INFINITY, f64::min);
            let most = entry.dots.iter().copied().fold(0.0, f64::max);
            chart.draw_series([PathElement::new(
                [at(least), at(most)],
                entry.colour.stroke_width(2),
            )])?;
            let dots = (0..).zip(&entry.dots).map(|(i, dot)| {
                let size = if i == 0 { 4 } else { 2 };
                Circle::new(at(*dot), size, entry.colour.filled())
            });
            chart.draw_series(dots)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::super::rows::rows;
    use super::*;
    use crate::results::tests::fixture;

    #[test]
    fn every_figure_with_a_ratio_is_in_the_plot() {
        let rows = rows(&fixture());
        let svg = ratios(&rows).unwrap();
        for name in ["s1 MB/s", "s2 p50", "s2 p99", "s8 poll, with many parked"] {
            assert!(svg.contains(name), "no {name} in {svg}");
        }
        // Without the C module there is no ratio.
        assert!(!svg.contains("s10"));
        // Noise is grey, others are not.
        assert!(svg.contains("#A0A0A0") && svg.contains("#005AB5"));
    }

    #[test]
    fn latencies_are_of_both() {
        let svg = latency(&rows(&fixture())).unwrap();
        assert!(svg.contains("s2 C") && svg.contains("s2 ours, classic"));
        assert!(!svg.contains("s3"));
    }

    #[test]
    fn nothing_can_be_drawn() {
        ratios(&[]).unwrap();
        latency(&[]).unwrap();
    }
}
