// SPDX-License-Identifier: MIT OR Apache-2.0

//! The daemon: its threads, and how it answers, rightly and wrongly.

use std::sync::mpsc;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use anyhow::Result;
use cachefiles_proto::Buffer;
use cachefiles_proto::Close;
use cachefiles_proto::Device;
use cachefiles_proto::Error;
use cachefiles_proto::Message;
use cachefiles_proto::Open;
use cachefiles_proto::Read;
use cachefiles_proto::Readiness;
use cachefiles_proto::BLOCK_SIZE;
use rustix::io::Errno;
use rustix::process::Signal;

use crate::files::Files;
use crate::files::Opened;
use crate::image::Directory;
use crate::rules::Rules;
use crate::say;
use crate::script::Action;
use crate::script::On;
use crate::script::Point;
use crate::script::Side;
use crate::Script;

/// The pause after a failed `read` of the device, which leaves its message queued.
const PAUSE: Duration = Duration::from_millis(5);
/// How much larger a number is that nothing was sent under.
const FAR: u32 = 1000;

/// A daemon with its device.
#[derive(Debug)]
pub struct Mock {
    pub(crate) device: Device,
    pub(crate) files: Files,
    images: Directory,
    script: Script,
    rules: Rules,
    random: Mutex<fastrand::Rng>,
    verbose: bool,
}

/// An OPEN whose file is kept.
struct Kept {
    msg_id: u32,
    object_id: u32,
    answer: String,
}

impl Mock {
    /// A daemon for a device that is bound; it has done nothing yet.
    #[must_use]
    pub fn new(
        device: Device,
        images: Directory,
        script: Script,
        seed: u64,
        verbose: bool,
    ) -> Arc<Self> {
        Arc::new(Mock {
            device,
            files: Files::default(),
            images,
            rules: Rules::new(script.rules.clone(), seed),
            script,
            random: Mutex::new(fastrand::Rng::with_seed(!seed)),
            verbose,
        })
    }

    /// Serves until `end` has passed; for ever if it is `None`.
    ///
    /// The threads are not ended then: the process should be.
    ///
    /// # Errors
    ///
    /// `restore` or a `read` of the device failed, a message was none, the cache is dead.
    pub fn serve(self: &Arc<Self>, end: Option<Duration>) -> Result<()> {
        if self.script.restore {
            self.device.write_bytes(b"restore").context("restore")?;
        }
        let (failed, failure) = mpsc::channel::<anyhow::Error>();
        for _ in 0..self.script.threads {
            let (mock, failed) = (Arc::clone(self), failed.clone());
            thread::Builder::new().spawn(move || {
                let Err(error) = mock.read_on();
                // Nobody listens if another one came first.
                let _ = failed.send(error);
            })?;
        }
        for _ in 0..self.script.pollers {
            let mock = Arc::clone(self);
            thread::Builder::new().spawn(move || mock.poll_on())?;
        }
        for tick in self.script.ticks.clone() {
            let mock = Arc::clone(self);
            thread::Builder::new().spawn(move || {
                say!("tick: {:?} every {} ms", tick.action, tick.ms);
                loop {
                    thread::park_timeout(Duration::from_millis(tick.ms));
                    mock.beside(&tick.action, "tick");
                }
            })?;
        }
        say!("ready");
        match end {
            None => Err(failure.recv()?),
            Some(end) => match failure.recv_timeout(end) {
                Ok(error) => Err(error),
                Err(_) => Ok(()),
            },
        }
    }

    pub(crate) fn random(&self) -> MutexGuard<'_, fastrand::Rng> {
        self.random.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_on(&self) -> Result<std::convert::Infallible> {
        let mut buffer = Buffer::new();
        loop {
            if buffer.is_empty() {
                let ready = self.device.wait(Readiness::MESSAGE, None)?;
                anyhow::ensure!(!ready.dead, "the cache is dead");
            }
            match self.device.read_message(&mut buffer) {
                Ok(Some(message)) => self.answer(message)?,
                Ok(None) => {}
                Err(Error::ReadDevice(errno @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM))) => {
                    say!("read: {errno}");
                    thread::park_timeout(PAUSE);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn poll_on(&self) {
        loop {
            // What it says does not matter here.
            let _ = self.device.wait(Readiness::MESSAGE, Some(Duration::ZERO));
            thread::yield_now();
        }
    }

    fn answer(&self, message: Message) -> Result<()> {
        let (kind, on) = match message {
            Message::Open(_) => ("OPEN", On::Open),
            Message::Read(_) => ("READ", On::Read),
            Message::Close(_) => ("CLOSE", On::Close),
        };
        let object_id = message.object_id();
        let opened = match &message {
            Message::Open(_) => None,
            _ => self.files.get(object_id),
        };
        let name = match &message {
            Message::Open(open) => String::from_utf8_lossy(&open.cookie_key).into_owned(),
            _ => opened.as_deref().map_or("?", Opened::name).to_owned(),
        };
        let action = self.rules.choose(on, Some(&name));
        let what = format!("{kind} {} of {name}, object {object_id}", message.msg_id());
        match action {
            Some(action) if action.beside() => {
                say!("{what}: {action:?}");
                self.beside(action, &what);
            }
            // They say so themselves, at their points.
            Some(Action::Die(_) | Action::Delay(_)) => {}
            Some(action) => say!("{what}: {action:?}"),
            None if self.verbose => say!("{what}"),
            None => {}
        }
        let begin = || {
            if let Some(Action::Delay(ms)) = action {
                say!("{what}: delay {ms}");
                thread::park_timeout(Duration::from_millis(*ms));
            }
            die_at(Point::AfterRead, action, &what);
        };
        match message {
            Message::Open(open) => {
                let kept = self.keep(open, action)?;
                begin();
                self.open(&kept, action, &what);
            }
            Message::Read(read) => {
                begin();
                match opened {
                    Some(opened) => self.read(read, &opened, action, &what),
                    // Another thread has closed it: the READ comes again.
                    None => say!("{what}: not open"),
                }
            }
            Message::Close(close) => {
                begin();
                self.close(close, action);
            }
        }
        Ok(())
    }

    /// Keeps the file of an OPEN, and prepares the answer.
    ///
    /// Before anything else, for somebody may guess the answer: then READs follow before the right one.
    fn keep(&self, open: Open, action: Option<&Action>) -> Result<Kept> {
        // What the C module leaves out would keep the file open in children.
        open.file.set_close_on_exec()?;
        let (msg_id, object_id) = (open.msg_id, open.object_id);
        let image = self.images.get(&open.cookie_key);
        let answer = match (&image, action) {
            (_, Some(Action::Errno(errno))) => format!("-{errno}"),
            (None, _) => format!("-{}", Errno::NOENT.raw_os_error()),
            (Some(image), Some(Action::WrongSize(more))) => {
                image.size.saturating_add_signed(*more).to_string()
            }
            (Some(image), _) => image.size.to_string(),
        };
        let opened = Opened {
            file: open.file,
            image,
        };
        if action == Some(&Action::CloseEarly(Side::Before)) {
            drop(opened);
        } else {
            self.files.insert(object_id, Arc::new(opened));
        }
        Ok(Kept {
            msg_id,
            object_id,
            answer,
        })
    }

    fn open(&self, kept: &Kept, action: Option<&Action>, what: &str) {
        let answer = kept.answer.as_str();
        die_at(Point::BeforeCopen, action, what);
        match action {
            Some(Action::Drop) => {}
            Some(Action::WrongId) => {
                for wrong in other_ids(kept.msg_id) {
                    self.copen(wrong, answer, what);
                }
            }
            Some(Action::Duplicate) => {
                self.copen(kept.msg_id, answer, what);
                self.copen(kept.msg_id, answer, what);
            }
            _ => self.copen(kept.msg_id, answer, what),
        }
        die_at(Point::AfterCopen, action, what);
        if action == Some(&Action::CloseEarly(Side::After)) {
            self.files.remove(kept.object_id);
        }
    }

    fn copen(&self, msg_id: u32, answer: &str, what: &str) {
        let command = format!("copen {msg_id},{answer}");
        if let Err(errno) = self.device.write_bytes(command.as_bytes()) {
            say!("{what}: {command}: {errno}");
        }
    }

    fn read(&self, read: Read, opened: &Opened, action: Option<&Action>, what: &str) {
        die_at(Point::BeforeFill, action, what);
        let image = opened.image.as_deref();
        let len = match action {
            Some(Action::Drop) => return,
            Some(Action::WrongSize(more)) => read.len.saturating_add_signed(*more),
            Some(Action::Errno(_)) => 0,
            _ => read.len,
        };
        let data = image.map_or(&[][..], |image| image.range(read.off, len));
        let half = data.len() / BLOCK_SIZE / 2 * BLOCK_SIZE;
        let (first, second) = data.split_at(half);
        fill(opened, first, read.off, what);
        die_at(Point::MidFill, action, what);
        let at = read.off.saturating_add(u64::try_from(half).unwrap_or(0));
        fill(opened, second, at, what);
        die_at(Point::BeforeComplete, action, what);
        let complete = |msg_id| {
            if let Err(error) = opened.file.read_complete(msg_id) {
                say!("{what}: {error}");
            }
        };
        match action {
            Some(Action::CloseEarly(Side::Before)) => {}
            Some(Action::WrongId) => other_ids(read.msg_id).into_iter().for_each(complete),
            Some(Action::Duplicate) => {
                complete(read.msg_id);
                complete(read.msg_id);
            }
            _ => complete(read.msg_id),
        }
        die_at(Point::AfterComplete, action, what);
        if matches!(action, Some(Action::CloseEarly(_))) {
            self.files.remove(read.object_id);
            if let Err(errno) = opened.close_now() {
                say!("{what}: close: {errno}");
            }
        }
    }

    fn close(&self, close: Close, action: Option<&Action>) {
        if action != Some(&Action::Drop) {
            self.files.remove(close.object_id);
        }
    }
}

fn fill(opened: &Opened, data: &[u8], at: u64, what: &str) {
    if let Err(error) = opened.file.write_all_at(data, at) {
        say!("{what}: {error}");
    }
}

/// Numbers near this one, and far from it.
fn other_ids(msg_id: u32) -> [u32; 4] {
    [
        msg_id.wrapping_add(1),
        msg_id.wrapping_sub(1),
        msg_id.wrapping_add(FAR),
        u32::MAX,
    ]
}

fn die_at(point: Point, action: Option<&Action>, what: &str) {
    if action == Some(&Action::Die(point)) {
        say!("{what}: dies {point:?}");
        // It cannot fail for this process itself, and nothing comes after it.
        let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
    }
}
