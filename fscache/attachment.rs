// SPDX-License-Identifier: GPL-2.0

//! What ties a volume to the backend: fscache's side of it, and the side of a withdrawal.
//!
//! A volume is detached once: by fscache when its last reference goes, or by the withdrawal of the cache before that.
//!
//! Locking: the state's lock is held while a reference to the volume is taken, and while fscache is told that there is
//! none any more. Nothing else is locked below it.

use crate::bindings;
use crate::fscache::volume::VolumeCookie;
use crate::kcompat::types::into_foreign;
use crate::kcompat::types::ARef;
use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering;
use kernel::new_mutex;
use kernel::prelude::*;
use kernel::sync::Arc;
use kernel::sync::ArcBorrow;
use kernel::sync::Mutex;
use kernel::types::ForeignOwnable;

/// An attached volume, as both sides know it.
#[pin_data]
struct Tie {
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
    fn new(volume: &VolumeCookie) -> Result<Arc<Self>> {
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
    fn pin(&self, volume: &VolumeCookie) {
        let mut state = self.state.lock();
        // SAFETY: The volume is live.
        unsafe { bindings::fscache_pin_volume(volume.as_ptr()) }
        state.pinned = true;
    }

    /// From here on nobody gets at the volume by way of this.
    fn cut(&self) {
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

/// What stands behind a volume.
pub(super) struct Private<V> {
    tie: Arc<Tie>,
    volume: Arc<V>,
    /// How many volumes are attached to the cache, this one included.
    attached: Arc<AtomicUsize>,
}

/// Attaches `volume`: `make` is called with its attachment. `attached` counts it until it is detached.
///
/// # Safety
///
/// fscache attaches it now, to a cache of a backend whose volumes are `V`, and has an access to that cache.
///
/// # Errors
///
/// `ENOMEM`, and those of `make`. Nothing stands behind the volume then.
pub(super) unsafe fn attach<V: Send + Sync + 'static>(
    volume: &VolumeCookie,
    attached: &Arc<AtomicUsize>,
    make: impl FnOnce(Attachment<V>) -> Result<Arc<V>>,
) -> Result {
    let tie = Tie::new(volume)?;
    let memory = KBox::<Private<V>>::new_uninit(GFP_KERNEL)?;
    let attachment = Attachment {
        tie: tie.clone(),
        _volume: PhantomData,
    };
    let made = make(attachment).inspect_err(|_| tie.cut())?;
    // No withdrawal looks at the volume before fscache has ended its access to the cache.
    tie.pin(volume);
    attached.fetch_add(1, Ordering::Relaxed);
    let private = Private {
        tie,
        volume: made,
        attached: attached.clone(),
    };
    let private = into_foreign(KBox::write(memory, private));
    // SAFETY: The volume is not attached yet, and `detach` and `behind` expect such a pointer.
    unsafe { volume.replace_cache_priv(private) };
    Ok(())
}

/// What stands behind a volume, if anything does.
///
/// # Safety
///
/// It is one of a backend whose volumes are `V`, and is not detached during `'a`.
pub(super) unsafe fn behind<'a, V: 'static>(volume: &VolumeCookie) -> Option<ArcBorrow<'a, V>> {
    let private = volume.cache_priv();
    if private.is_null() {
        return None;
    }
    // SAFETY: Put there by `attach`, and the caller keeps it there.
    let private: &'a Private<V> = unsafe { KBox::<Private<V>>::borrow(private) };
    Some(private.volume.as_arc_borrow())
}

/// Detaches a volume, and gives back what stood behind it, if anything did.
///
/// # Safety
///
/// It is one of a backend whose volumes are `V`, and nobody looks at what stands behind it, now or later.
pub(super) unsafe fn detach<V: 'static>(volume: &VolumeCookie) -> Option<Arc<V>> {
    // SAFETY: The caller promises it.
    let private = unsafe { volume.replace_cache_priv(core::ptr::null_mut()) };
    // SAFETY: Null, or put there by `attach`.
    let private = unsafe { KBox::<Private<V>>::try_from_foreign(private) }?;
    let Private {
        tie,
        volume,
        attached,
    } = KBox::into_inner(private);
    tie.cut();
    attached.fetch_sub(1, Ordering::Release);
    Some(volume)
}

/// The proof that a cache is withdrawn: no access to it is under way or can begin, nor can one to a volume of it.
///
/// # Invariants
///
/// It is, during `'a`.
pub(crate) struct WithdrawnCache<'a> {
    cache: NonNull<bindings::fscache_cache>,
    _lifetime: PhantomData<&'a bindings::fscache_cache>,
}

impl WithdrawnCache<'_> {
    /// # Safety
    ///
    /// `cache` is withdrawn, and live for the lifetime of the result.
    pub(super) unsafe fn new(cache: NonNull<bindings::fscache_cache>) -> Self {
        // INVARIANT: The caller promises it.
        WithdrawnCache {
            cache,
            _lifetime: PhantomData,
        }
    }
}

/// A volume that is attached, for the withdrawal of its cache; `V` stands behind it. It does not keep the volume.
pub(crate) struct Attachment<V> {
    tie: Arc<Tie>,
    _volume: PhantomData<fn() -> V>,
}

impl<V: Send + Sync + 'static> Attachment<V> {
    /// Sleeps until no access to the volume is under way; there are no new ones, since its cache is withdrawn. `None` if
    /// that was done before, if fscache is freeing the volume, or if it is one of another cache.
    ///
    /// The result may have the last reference: it is not dropped with a lock held that `V` takes when it is dropped.
    pub(crate) fn withdraw(&self, cache: &WithdrawnCache<'_>) -> Option<WithdrawnVolume<V>> {
        let volume = self.tie.take_pinned(cache.cache.as_ptr())?;
        // SAFETY: The volume is live, and was pinned.
        unsafe { bindings::fscache_withdraw_volume(volume.as_ptr()) };
        // INVARIANT: Nobody accesses the volume, and `take_pinned` gives it out once.
        Some(WithdrawnVolume {
            volume,
            _behind: PhantomData,
        })
    }
}

/// A volume that nobody accesses any more. It is detached when this is dropped, if not before.
///
/// # Invariants
///
/// It is one of a backend whose volumes are `V`; no access to it is under way or can begin, and there is no other value for
/// the same volume.
pub(crate) struct WithdrawnVolume<V: 'static> {
    volume: ARef<VolumeCookie>,
    _behind: PhantomData<fn() -> V>,
}

impl<V: 'static> WithdrawnVolume<V> {
    /// The volume.
    pub(crate) fn cookie(&self) -> &VolumeCookie {
        &self.volume
    }

    /// Gives back what stands behind the volume; `None` if that was done before.
    pub(crate) fn detach(&mut self) -> Option<Arc<V>> {
        // SAFETY: fscache looks at it inside of an access, and when the last reference is gone: there is none by the
        // type invariant, and this is a reference.
        unsafe { detach::<V>(&self.volume) }
    }
}

impl<V: 'static> Drop for WithdrawnVolume<V> {
    fn drop(&mut self) {
        drop(self.detach());
    }
}
