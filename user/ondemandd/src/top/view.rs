// SPDX-License-Identifier: MIT OR Apache-2.0

//! A look that fills a terminal.

use std::time::Duration;

use ratatui::layout::Constraint;
use ratatui::layout::Layout;
use ratatui::style::Color;
use ratatui::style::Modifier;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::Paragraph;
use ratatui::widgets::Row;
use ratatui::widgets::Table;
use ratatui::Frame;

use super::Daemon;
use super::Look;
use crate::images::bar;
use crate::images::size;
use crate::images::Image;

/// Draws all of it; what has no room is left out.
pub(super) fn draw(frame: &mut Frame<'_>, look: &Look, interval: Duration) {
    let rows = [1, 1, 2, 1, 1].map(Constraint::Length);
    let rows = Layout::vertical(rows.into_iter().chain([Constraint::Min(0)]));
    let [title, summary, numbers, latency, _, images] = rows.areas(frame.area());
    let bold = Style::new().add_modifier(Modifier::BOLD);

    let every = format!("ondemandd top: every {} s, q ends", interval.as_secs_f64());
    let reversed = Style::new().add_modifier(Modifier::REVERSED);
    frame.render_widget(Paragraph::new(every).style(reversed), title);
    match &look.daemon {
        Ok(daemon) => {
            let text = format!("{}; rates {}", daemon.summary(), daemon.period());
            frame.render_widget(Paragraph::new(text), summary);
            frame.render_widget(table_of(daemon).style(bold), numbers);
            frame.render_widget(Paragraph::new(latency_of(daemon)), latency);
        }
        Err(error) => {
            let text = format!("no daemon: {error}");
            let red = Style::new().fg(Color::Red);
            frame.render_widget(Paragraph::new(text).style(red), summary);
        }
    }
    frame.render_widget(images_of(&look.images, usize::from(images.height)), images);
}

fn table_of(daemon: &Daemon) -> Table<'static> {
    let (names, values): (Vec<_>, Vec<_>) = daemon.numbers().into_iter().unzip();
    let right = |text: String| Line::from(text).right_aligned();
    let names = names.into_iter().map(|name| right(name.to_owned()));
    let row = Row::new(values.into_iter().map(right));
    let widths = [10, 10, 11, 11, 9, 9, 8].map(Constraint::Length);
    Table::new([row], widths).header(Row::new(names))
}

fn latency_of(daemon: &Daemon) -> String {
    let within = daemon
        .latency()
        .map(|(share, time)| format!("{share} within {time}"));
    format!("latency: {}", within.join(", "))
}

/// A line for each image; where they do not fit, the last one says how many are missing.
fn images_of(images: &[Image], height: usize) -> Table<'static> {
    if images.is_empty() {
        return Table::new([Row::new(["no image is mounted"])], [Constraint::Fill(1)]);
    }
    // The header takes one.
    let room = height.saturating_sub(1);
    let shown = if images.len() <= room {
        images.len()
    } else {
        room.saturating_sub(1)
    };
    let (shown, rest) = images.split_at(shown);
    let mut rows: Vec<Row<'_>> = shown.iter().map(row_of).collect();
    if !rest.is_empty() {
        rows.push(Row::new([format!("and {} more", rest.len())]));
    }
    let widths = [
        Constraint::Fill(2),
        Constraint::Fill(1),
        Constraint::Length(22),
        Constraint::Length(5),
        Constraint::Length(11),
        Constraint::Length(11),
    ];
    let dim = Style::new().add_modifier(Modifier::DIM);
    let header = ["image", "directory", "", "", "cached", "total"];
    Table::new(rows, widths).header(Row::new(header).style(dim))
}

fn row_of(image: &Image) -> Row<'static> {
    let (cached, total) = image.sum();
    let (bar, percent) = bar(cached, total);
    let known = |text: String| if total == 0 { String::new() } else { text };
    Row::new([
        image.image.clone(),
        image.dir.display().to_string(),
        known(bar),
        known(format!("{percent:>3} %")),
        known(size(cached)),
        known(size(total)),
    ])
}

#[cfg(test)]
mod tests {
    use ratatui::backend::TestBackend;
    use ratatui::Terminal;

    use super::*;

    fn drawn(look: &Look, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let interval = Duration::from_secs(2);
        terminal.draw(|frame| draw(frame, look, interval)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn all_is_on_a_page() {
        let page = drawn(&super::super::tests::look(), 100, 12);
        for text in [
            "every 2 s, q ends",
            "keeper 1, no worker, worker restarts 0, up 2 s; rates since the keeper's start",
            "READs/s    OPENs/s    filled/s     ahead/s in flight retries/s errors/s",
            "10        1.5    2.00 MiB  512.00 KiB         5       0.0      0.0",
            "latency: 50 % within 4µs, 90 % within 4µs, 99 % within 8µs",
            "[##########..........]  50 %",
            "web/second",
        ] {
            assert!(page.contains(text), "{text}: {page}");
        }
    }

    #[test]
    fn a_daemon_that_is_away_leaves_the_images() {
        let mut look = super::super::tests::look();
        look.daemon = Err("gone".to_owned());
        let page = drawn(&look, 80, 12);
        assert!(page.contains("no daemon: gone"), "{page}");
        assert!(page.contains("web/first"), "{page}");
        assert!(!page.contains("READs"), "{page}");
        look.images.clear();
        let page = drawn(&look, 80, 12);
        assert!(page.contains("no image is mounted"), "{page}");
    }

    #[test]
    fn a_small_terminal_says_what_is_missing() {
        let mut look = super::super::tests::look();
        look.images = (0..50)
            .map(|n| crate::images::tests::cached(&format!("i{n}"), 1, Some(2)))
            .collect();
        let page = drawn(&look, 80, 11);
        assert!(
            page.contains("i2 ") && page.contains("and 47 more"),
            "{page}"
        );
        assert!(!page.contains("i3 "), "{page}");
        for (width, height) in [(1, 1), (3, 2), (10, 7)] {
            drawn(&look, width, height);
        }
    }
}
