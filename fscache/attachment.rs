// SPDX-License-Identifier: GPL-2.0

//! What ties a volume to the backend: fscache's side of it, and the side of a withdrawal.
//!
//! A volume is detached once: by fscache when its last reference goes, or by the withdrawal of the cache before that.
//!
//! Locking: the state's lock is held while a reference to the volume is taken, and while fscache is told that there is
//! none any more. Nothing else is locked below it.

use crate::bindings;
use crate::fscache::backend::Backend;
use crate::fscache::cache::Withdrawn;
use crate::fscache::volume::VolumeCookie;
use crate::kcompat::types::ARef;
use core::marker::PhantomData;
use core::ptr::NonNull;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::sync::Mutex;

/// An attached volume, as both sides know it.
#[pin_data]
pub(super) struct Tie {
    #[pin]
    state: Mutex<State>,
}

/// # Invariants
///
/// The pointer is to a volume whose memory fscache has not freed.
struct State {
    /// `None` before fscache frees the volume, and once it is detached.
    volume: Option<NonNull<bindings::fscache_volume>>,
    /// The volume's count of accesses is kept above zero.
    pinned: bool,
}

// SAFETY: A volume may be used from any thread.
unsafe impl Send for State {}

impl Tie {
    /// Of a volume that is being attached.
    pub(super) fn new(volume: &VolumeCookie) -> Result<Arc<Self>> {
        // INVARIANT: `volume` is live, and `cut` is called before it goes.
        let state = State {
            volume: NonNull::new(volume.as_ptr()),
            pinned: false,
        };
        Arc::pin_init(
            pin_init!(Self { state <- new_mutex!(state, "cachefiles_volume_tie") }),
            GFP_KERNEL,
        )
    }

    /// Keeps the count of accesses above zero until the volume is withdrawn.
    pub(super) fn pin(&self, volume: &VolumeCookie) {
        let mut state = self.state.lock();
        // SAFETY: The volume is live.
        unsafe { bindings::fscache_pin_volume(volume.as_ptr()) }
        state.pinned = true;
    }

    /// From here on nobody gets at the volume by way of this.
    pub(super) fn cut(&self) {
        self.state.lock().volume = None;
    }

    /// A reference to a volume that is pinned still, which the caller withdraws; `None` if it was withdrawn, or if its
    /// last reference is gone.
    fn take_pinned(&self, cache: *mut bindings::fscache_cache) -> Option<ARef<VolumeCookie>> {
        let mut state = self.state.lock();
        let volume = state.volume.filter(|_| state.pinned)?;
        // SAFETY: The memory is live by the type invariant, which the lock preserves.
        let volume = unsafe { bindings::fscache_get_withdrawn_volume(volume.as_ptr()) };
        // SAFETY: Not null means that a reference was taken.
        let volume = unsafe { ARef::<VolumeCookie>::from_raw(NonNull::new(volume.cast())?) };
        if volume.cache() != cache {
            return None;
        }
        state.pinned = false;
        Some(volume)
    }
}

/// A volume that is attached to a cache of this backend, for the cache's withdrawal. It does not keep the volume.
pub(crate) struct Attachment<B> {
    tie: Arc<Tie>,
    _backend: PhantomData<fn() -> B>,
}

impl<B: Backend> Attachment<B> {
    pub(super) fn new(tie: Arc<Tie>) -> Self {
        Attachment {
            tie,
            _backend: PhantomData,
        }
    }

    /// Sleeps until no access to the volume is under way; there are no new ones, since its cache is withdrawn. `None` if
    /// that was done before, if fscache is freeing the volume, or if it is one of another cache.
    ///
    /// The result may have the last reference: it is not dropped with a lock held that [`Backend::Volume`] takes when it
    /// is dropped.
    pub(crate) fn withdraw(&self, cache: &Withdrawn<'_, B>) -> Option<WithdrawnVolume<B>> {
        let volume = self.tie.take_pinned(cache.as_ptr())?;
        // SAFETY: The volume is live, and was pinned.
        unsafe { bindings::fscache_withdraw_volume(volume.as_ptr()) };
        // INVARIANT: Nobody accesses the volume, and `take_pinned` gives it out once.
        Some(WithdrawnVolume {
            volume,
            tie: self.tie.clone(),
            _backend: PhantomData,
        })
    }
}

/// A volume that nobody accesses any more. It is detached when this is dropped, if not before.
///
/// # Invariants
///
/// The volume is attached to a cache of `B`, unless it was detached; no access to it is under way or can begin, and there is
/// no other value for the same volume.
pub(crate) struct WithdrawnVolume<B: Backend> {
    volume: ARef<VolumeCookie>,
    tie: Arc<Tie>,
    _backend: PhantomData<fn() -> B>,
}

impl<B: Backend> WithdrawnVolume<B> {
    /// The volume.
    pub(crate) fn cookie(&self) -> &VolumeCookie {
        &self.volume
    }

    /// Gives back what stands behind the volume; `None` if that was done before.
    pub(crate) fn detach(&mut self) -> Option<Arc<B::Volume>> {
        self.tie.cut();
        // SAFETY: fscache looks at it inside of an access, and when the last reference is gone: there is none by the
        // type invariant, and this is a reference.
        unsafe { self.volume.take_private::<B>() }
    }
}

impl<B: Backend> Drop for WithdrawnVolume<B> {
    fn drop(&mut self) {
        drop(self.detach());
    }
}
