// SPDX-License-Identifier: MIT OR Apache-2.0

//! The terminal: as long as there is a [`Screen`] it is ours, and then it is what it was before.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use ratatui::crossterm::event;
use ratatui::crossterm::event::Event;
use ratatui::crossterm::event::KeyCode;
use ratatui::crossterm::event::KeyEvent;
use ratatui::crossterm::event::KeyEventKind;
use ratatui::crossterm::event::KeyModifiers;
use ratatui::DefaultTerminal;
use signal_hook::consts::SIGHUP;
use signal_hook::consts::SIGTERM;

use super::view;
use super::Look;

/// A signal that asks us to end is noticed within this time.
const NOTICED_WITHIN: Duration = Duration::from_millis(200);

/// What comes next.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Wish {
    /// The same once more, for the terminal has another size.
    Redraw,
    /// It is time for another look.
    Look,
    End,
}

/// The terminal, in the mode in which it shows one page and tells every key.
pub(super) struct Screen {
    terminal: DefaultTerminal,
    /// A signal has come.
    ended: Arc<AtomicBool>,
}

impl Screen {
    /// Takes the terminal. From now on a panic gives it back, too, before it says anything.
    pub(super) fn open() -> anyhow::Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&ended))
                .with_context(|| format!("cannot handle signal {signal}"))?;
        }
        match ratatui::try_init() {
            Ok(terminal) => Ok(Screen { terminal, ended }),
            Err(error) => {
                // It may have come half of the way.
                let _ = ratatui::try_restore();
                Err(error).context("cannot use the terminal; --batch does without one")
            }
        }
    }

    /// Shows a look.
    pub(super) fn draw(&mut self, look: &Look, interval: Duration) -> anyhow::Result<()> {
        self.terminal
            .draw(|frame| view::draw(frame, look, interval))
            .map(drop)
            .context("cannot draw")
    }

    /// Waits for a key or a new size, until it is time for another look.
    pub(super) fn wait(&self, until: Instant) -> anyhow::Result<Wish> {
        loop {
            if self.ended.load(Relaxed) {
                return Ok(Wish::End);
            }
            let left = until.saturating_duration_since(Instant::now());
            let has_event =
                event::poll(left.min(NOTICED_WITHIN)).context("the terminal is gone")?;
            if !has_event && left.is_zero() {
                return Ok(Wish::Look);
            }
            if has_event {
                let event = event::read().context("the terminal is gone")?;
                if let Some(wish) = wish(&event) {
                    return Ok(wish);
                }
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is nobody left to be told.
        let _ = ratatui::try_restore();
    }
}

fn wish(event: &Event) -> Option<Wish> {
    match event {
        Event::Resize(..) => Some(Wish::Redraw),
        Event::Key(key) if key.kind == KeyEventKind::Press && ends(key) => Some(Wish::End),
        _ => None,
    }
}

fn ends(key: &KeyEvent) -> bool {
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => true,
        // In this mode it is a key and no signal.
        KeyCode::Char('c') => key.modifiers.contains(KeyModifiers::CONTROL),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_keys_end_it() {
        let key = |code, modifiers| wish(&Event::Key(KeyEvent::new(code, modifiers)));
        let none = KeyModifiers::NONE;
        assert_eq!(key(KeyCode::Char('q'), none), Some(Wish::End));
        assert_eq!(key(KeyCode::Esc, none), Some(Wish::End));
        assert_eq!(
            key(KeyCode::Char('c'), KeyModifiers::CONTROL),
            Some(Wish::End)
        );
        assert_eq!(key(KeyCode::Char('c'), none), None);
        assert_eq!(key(KeyCode::Enter, none), None);
        assert_eq!(wish(&Event::Resize(80, 24)), Some(Wish::Redraw));
    }
}
