// SPDX-License-Identifier: GPL-2.0

//! The device that tells threads where to stop: `/dev/cachefiles_stop_points`.
//!
//! One command a `write`, with or without a newline:
//!
//! - `stop PLACE`: the next thread that comes to that place waits there. Each `stop` stops one.
//! - `go PLACE`: all that wait there go on, and nobody else is stopped there.
//!
//! A `read` gives all of the list, a line an entry: the place, and `armed` or `parked TID`. `poll` says
//! EPOLLIN while a thread is parked. There is no end to read to. When *any* file of the device is
//! closed, everybody goes on: so a test that dies leaves nobody behind, unless a parked thread shares
//! its table of descriptors; then somebody else opens the device and closes it.
//!
//! Locking: `list` is taken with whatever the place's thread holds, and takes nothing but the wait
//! queue's own lock.

use super::Place;
use crate::kcompat::miscdevice::MiscDevice;
use crate::kcompat::poll::mask;
use crate::kcompat::poll::PollTable;
use crate::kcompat::poll::WaitQueue;
use crate::kcompat::str::to_bytes;
use crate::vfs::cred::is_admin;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering;
use kernel::new_condvar;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::Arc;
use kernel::sync::CondVar;
use kernel::sync::Mutex;
use kernel::uaccess::UserPtr;
use kernel::uaccess::UserSlice;
use kernel::uaccess::UserSliceReader;

/// One thread that is to stop, or has.
struct Stop {
    number: u64,
    place: Place,
    parked: Option<i32>,
}

#[derive(Default)]
struct List {
    stops: KVec<Stop>,
    last: u64,
}

impl List {
    fn keep(&mut self, wanted: impl Fn(&Stop) -> bool) {
        let mut kept = KVec::new();
        for stop in core::mem::take(&mut self.stops) {
            if wanted(&stop) {
                // What does not fit goes on.
                let _ = kept.push(stop, GFP_KERNEL);
            }
        }
        self.stops = kept;
    }
}

/// Who is to stop where.
#[pin_data]
pub(crate) struct Control {
    #[pin]
    list: Mutex<List>,
    /// Entries of the list; read without its lock on the way past a place.
    count: AtomicUsize,
    #[pin]
    gone_on: CondVar,
    #[pin]
    watchers: WaitQueue,
}

impl Control {
    /// Nobody stops.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Arc<Self>> {
        Arc::pin_init(
            pin_init!(Self {
                list <- new_mutex!(List::default(), "cachefiles_stop_points"),
                count: AtomicUsize::new(0),
                gone_on <- new_condvar!("cachefiles_stop_points_gone_on"),
                watchers <- WaitQueue::new(),
            }),
            GFP_KERNEL,
        )
    }

    /// A thread comes to `place`.
    pub(super) fn reach(&self, place: Place) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut list = self.list.lock();
        let found = list
            .stops
            .iter_mut()
            .find(|stop| stop.place == place && stop.parked.is_none());
        let Some(stop) = found else {
            return;
        };
        stop.parked = Some(kernel::current!().pid());
        let number = stop.number;
        self.watchers.wake_all(mask::IN);
        while list.stops.iter().any(|stop| stop.number == number) {
            self.gone_on.wait(&mut list);
        }
    }

    fn stop(&self, place: Place) -> Result {
        let mut list = self.list.lock();
        list.last += 1;
        let stop = Stop {
            number: list.last,
            place,
            parked: None,
        };
        list.stops.push(stop, GFP_KERNEL)?;
        self.count.store(list.stops.len(), Ordering::Release);
        Ok(())
    }

    fn go(&self, wanted: impl Fn(&Stop) -> bool) {
        let mut list = self.list.lock();
        list.keep(|stop| !wanted(stop));
        self.count.store(list.stops.len(), Ordering::Release);
        self.gone_on.notify_all();
    }

    fn execute(&self, command: &[u8]) -> Result {
        let command = command.strip_suffix(b"\n").unwrap_or(command);
        let place = |name| Place::named(name).ok_or(EINVAL);
        if let Some(name) = command.strip_prefix(b"stop ") {
            self.stop(place(name)?)
        } else if let Some(name) = command.strip_prefix(b"go ") {
            let place = place(name)?;
            self.go(|stop| stop.place == place);
            Ok(())
        } else {
            Err(EINVAL)
        }
    }
}

/// The device's operations.
pub(crate) struct StopDevice;

impl MiscDevice for StopDevice {
    type Data = Arc<Control>;
    type Ptr = KBox<Arc<Control>>;

    fn open(stops: &'static Arc<Control>) -> Result<KBox<Arc<Control>>> {
        if !is_admin() {
            return Err(EPERM);
        }
        Ok(KBox::new(stops.clone(), GFP_KERNEL)?)
    }

    fn release(stops: KBox<Arc<Control>>) {
        stops.go(|_| true);
    }

    fn read(stops: &Arc<Control>, to: UserPtr, len: usize) -> Result<usize> {
        let mut out = UserSlice::new(to, len).writer();
        // Copied out without the lock, under which a page fault would have no business.
        let mut lines = KVec::new();
        for stop in &stops.list.lock().stops {
            let name = stop.place.name();
            let line = match stop.parked {
                Some(tid) => CString::try_from_fmt(format_args!("{name} parked {tid}\n")),
                None => CString::try_from_fmt(format_args!("{name} armed\n")),
            };
            lines.extend_from_slice(to_bytes(&*line?), GFP_KERNEL)?;
        }
        out.write_slice(&lines)?;
        Ok(lines.len())
    }

    fn write(stops: &Arc<Control>, buffer: UserSliceReader) -> Result<usize> {
        let len = buffer.len();
        if len > 64 {
            return Err(EINVAL);
        }
        let mut text = KVec::new();
        buffer.read_all(&mut text, GFP_KERNEL)?;
        stops.execute(&text)?;
        Ok(len)
    }

    fn poll<'a>(stops: &'a Arc<Control>, table: &PollTable<'a>) -> u32 {
        table.register_wait(&stops.watchers);
        let list = stops.list.lock();
        if list.stops.iter().any(|stop| stop.parked.is_some()) {
            mask::IN
        } else {
            0
        }
    }
}
