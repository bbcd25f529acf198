// SPDX-License-Identifier: MIT OR Apache-2.0

//! The plot of the gaps, as SVG: how many were longer than a time, and each
//! reader's figures.

use std::path::Path;

use anyhow::{anyhow, Context, Result};
use plotters::coord::ranged1d::IntoSegmentedCoord as _;
use plotters::coord::ranged1d::SegmentValue;
use plotters::prelude::*;

use crate::gaps::Curve;

const PLAIN: RGBColor = RGBColor(0, 90, 181);
const COMPRESSED: RGBColor = RGBColor(220, 50, 32);
const SIZE: (u32, u32) = (1000, 900);
const FONT: &str = "sans-serif";

fn colour(compressed: bool) -> RGBColor {
    if compressed {
        COMPRESSED
    } else {
        PLAIN
    }
}

/// 1 ms is 1 ms, 2500 ms is 2.5 s.
fn time(ms: f64) -> String {
    if ms >= 1000.0 {
        format!("{} s", ms / 1000.0)
    } else {
        format!("{ms} ms")
    }
}

/// Draws `curves` into the file `path`.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn draw(path: &Path, curves: &[Curve], kills: u64) -> Result<()> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(|e| anyhow!("plot: {e}"))?;
        let (upper, lower) = root.split_vertically(SIZE.1 * 3 / 5);
        let longest = curves
            .iter()
            .map(|curve| curve.gaps.summary().max)
            .fold(1.0, f64::max);
        distribution(&upper, curves, kills, longest).map_err(|e| anyhow!("plot: {e}"))?;
        figures(&lower, curves, longest).map_err(|e| anyhow!("plot: {e}"))?;
        root.present().map_err(|e| anyhow!("plot: {e}"))?;
    }
    std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// For each time, the part of all gaps that were longer.
fn distribution(area: &Area<'_>, curves: &[Curve], kills: u64, longest: f64) -> Drawn {
    let lines: Vec<_> = curves.iter().map(|c| c.gaps.longer_than()).collect();
    let lowest = lines
        .iter()
        .filter_map(|line| line.last())
        .map(|(_, part)| *part)
        .fold(0.1, f64::min);
    let mut chart = ChartBuilder::on(area)
        .caption(
            format!("Readers while the daemon was killed {kills} times: time between bytes"),
            (FONT, 20),
        )
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(76)
        .build_cartesian_2d(
            (0.1..longest * 1.3).log_scale(),
            (lowest / 1.5..1.0).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc("gap")
        .y_desc("part of the gaps that were longer")
        .x_label_formatter(&|ms| time(*ms))
        .y_label_formatter(&|part| format!("{part}"))
        .label_style((FONT, 14))
        .draw()?;
    for kind in [false, true] {
        let mut named = false;
        for (curve, line) in curves.iter().zip(&lines) {
            if curve.compressed != kind || line.is_empty() {
                continue;
            }
            let colour = colour(kind);
            let shown = line.iter().copied().filter(|(ms, _)| *ms >= 0.1);
            let series = chart.draw_series(LineSeries::new(shown, colour.stroke_width(1)))?;
            if !named {
                named = true;
                series
                    .label(if kind { "lz4 image" } else { "plain image" })
                    .legend(move |(x, y)| {
                        PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2))
                    });
            }
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE)
        .border_style(BLACK)
        .label_font((FONT, 14))
        .draw()?;
    Ok(())
}

/// p50, p99 and maximum of each reader.
fn figures(area: &Area<'_>, curves: &[Curve], longest: f64) -> Drawn {
    let readers = 0..curves.len().saturating_sub(1);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(76)
        .build_cartesian_2d(readers.into_segmented(), (0.1..longest * 3.0).log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(curves.len())
        .x_label_formatter(&|at| match at {
            SegmentValue::CenterOf(i) => curves.get(*i).map_or(String::new(), |c| c.name.clone()),
            _ => String::new(),
        })
        .y_label_formatter(&|ms| time(*ms))
        .y_desc("gap: p50, p99, max")
        .label_style((FONT, 14))
        .draw()?;
    for (i, curve) in curves.iter().enumerate() {
        let colour = colour(curve.compressed);
        let gaps = curve.gaps.summary();
        let at = |ms: f64| (SegmentValue::CenterOf(i), ms.max(0.1));
        chart.draw_series([PathElement::new(
            [at(gaps.p50), at(gaps.max)],
            colour.stroke_width(2),
        )])?;
        chart.draw_series(
            [gaps.p50, gaps.p99, gaps.max].map(|ms| Circle::new(at(ms), 4, colour.filled())),
        )?;
        chart.draw_series([gaps.p50, gaps.p99, gaps.max].map(|ms| {
            let text = if ms >= 1000.0 {
                format!("{:.1} s", ms / 1000.0)
            } else {
                format!("{ms:.1} ms")
            };
            EmptyElement::at(at(ms)) + Text::new(text, (8, -6), (FONT, 12))
        }))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::gaps::Gaps;

    #[test]
    fn every_reader_is_in_the_plot() {
        let curve = |name: &str, compressed| {
            let mut gaps = Gaps::new().unwrap();
            for ms in 1..500 {
                gaps.record(Duration::from_millis(ms));
            }
            Curve {
                name: name.to_owned(),
                compressed,
                bytes: 1,
                gaps,
            }
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        let curves = [curve("first", false), curve("second", true)];
        draw(file.path(), &curves, 77).unwrap();
        let svg = std::fs::read_to_string(file.path()).unwrap();
        for word in ["first", "second", "plain image", "lz4 image", "77 times"] {
            assert!(svg.contains(word), "no {word} in {svg}");
        }
    }

    #[test]
    fn a_storm_without_a_byte_can_be_drawn() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let empty = Curve {
            name: "none".to_owned(),
            compressed: false,
            bytes: 0,
            gaps: Gaps::new().unwrap(),
        };
        draw(file.path(), &[empty], 0).unwrap();
        draw(file.path(), &[], 0).unwrap();
    }
}
