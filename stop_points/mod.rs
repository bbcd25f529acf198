// SPDX-License-Identifier: GPL-2.0

//! Stop points: named places at which a test makes a thread wait, to see what others do meanwhile.
//!
//! Compiled in only with `STOP_POINTS=1`, and for kernels with `CONFIG_RUST_DEBUG_ASSERTIONS`; otherwise
//! [`Stops::stop_at`] is empty. They are told through a device of their own, see [`control`].
//!
//! At each place the thread may sleep, and holds none of the module's locks: no place is in what runs
//! under the table's lock, in a wait's condition, or where the store is being worked on. What else it
//! holds (an access to a cookie, locked folios, the device's file) others may have to wait for.

#[cfg(ondemand_stop_points)]
pub(crate) mod control;

#[cfg(ondemand_stop_points)]
use self::control::Control;
use kernel::prelude::*;
#[cfg(ondemand_stop_points)]
use kernel::sync::Arc;

macro_rules! places {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Where a thread can be made to wait.
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Place {
            $($(#[$doc])* $variant,)*
        }

        #[cfg(ondemand_stop_points)]
        impl Place {
            /// The place of this name.
            fn named(name: &[u8]) -> Option<Self> {
                $(if name == $name.as_bytes() {
                    return Some(Place::$variant);
                })*
                None
            }

            /// Its name.
            fn name(self) -> &'static str {
                match self {
                    $(Place::$variant => $name,)*
                }
            }
        }
    };
}

places! {
    /// A lookup has dropped the pages of a file, and has not asked what is in it.
    PagesDropped = "pages-dropped",
    /// A lookup has its file, marked as in use; the object is in no table yet.
    LookupFound = "lookup-found",
    /// A lookup's object is in the table, its OPEN was not sent.
    LookupAdmitted = "lookup-admitted",
    /// A volume has its directory; the cache does not know it yet.
    VolumeOpened = "volume-opened",
    /// The work of a reopening has begun, the OPEN was not sent.
    ReopenWork = "reopen-work",
    /// The work of an early commit has begun.
    CommitWork = "commit-work",
    /// Something is due, and was not looked for yet.
    Expiry = "expiry",
    /// A `read` of the device has chosen its message.
    DeliverSelected = "deliver-selected",
    /// The message was copied out; the table was not told.
    DeliverCopied = "deliver-copied",
    /// The table was told that an OPEN was delivered; its fd is not installed.
    DeliverTold = "deliver-told",
    /// A size has answered an OPEN; the file was not looked at.
    CopenAnswered = "copen-answered",
    /// The file was checked against the answer; the table was not told.
    CopenValidated = "copen-validated",
    /// The last reference to an anonymous fd is gone; the table was not told.
    FdReleased = "fd-released",
    /// A write to an anonymous fd has its file, and has written nothing.
    FillBegun = "fill-begun",
    /// Data was put into the page cache, and nothing was queued that writes it to the disk.
    SettleWanted = "settle-wanted",
    /// The work that writes it to the disk has begun.
    SettleWork = "settle-work",
    /// A reader has found a hole, and has not asked for it.
    HoleFound = "hole-found",
    /// A reader's READ is queued, and it does not wait yet.
    ReadQueued = "read-queued",
    /// A reader's READ has ended, and it has not looked at the file again.
    ReadEnded = "read-ended",
    /// The device is closed and the table dead; the cache is in service.
    DeviceClosed = "device-closed",
    /// The last fd was closed; fscache's lookups are shut out, and nothing else was withdrawn.
    WithdrawBegun = "withdraw-begun",
    /// A withdrawn object has left the table's service; its file is not committed.
    FinishDropped = "finish-dropped",
    /// `cull` has checked where it is, and has looked nothing up.
    CullBegun = "cull-begun",
}

/// Where threads are to stop: all who pass places share one list, which the device changes.
#[derive(Clone)]
pub(crate) struct Stops {
    #[cfg(ondemand_stop_points)]
    control: Arc<Control>,
}

impl Stops {
    /// Nobody stops.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new() -> Result<Self> {
        Ok(Stops {
            #[cfg(ondemand_stop_points)]
            control: Control::new()?,
        })
    }

    /// What the device changes.
    #[cfg(ondemand_stop_points)]
    pub(crate) fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// Waits here if a test wants it. May sleep, uninterruptibly.
    #[inline]
    pub(crate) fn stop_at(&self, place: Place) {
        #[cfg(ondemand_stop_points)]
        self.control.reach(place);
        let _ = place;
    }
}
