// SPDX-License-Identifier: MIT OR Apache-2.0

//! Dropping what is stored of single objects: for a worker, which may change no file, before it answers an OPEN; and
//! for who asks on the control socket.
//!
//! Both take a while, the time of a disk that is busy, so a thread of the keeper does it. It has a working directory
//! of its own, as the one that culls, since `cull` means a name there.
//!
//! | module | what it is |
//! |---|---|
//! | [`command`] | `ondemandd evict` |
//! | `stale` | how a file is made stale |

pub mod command;
mod stale;

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::sync::mpsc;
use std::sync::Arc;
use std::thread;

use anyhow::Context;
use cachefiles_proto::Device;
use rustix::event::EventfdFlags;
use rustix::io::Errno;
use tracing::error;
use tracing::info;
use tracing::warn;

use crate::clients::ClientId;
use crate::control::Answer;
use crate::control::Evicted;
use crate::control::Targets;
use crate::cull;
use crate::cull::oldest::Place;
use crate::cull::pass::Verdict;
use crate::cull::store;
use crate::cull::store::Store;
use crate::handover::Channel;
use crate::handover::Done;
use crate::record::Name;
use crate::record::Record;
use crate::record::FILE;

enum Job {
    MakeStale {
        channel: Channel,
        number: u8,
        name: String,
    },
    Evict {
        client: ClientId,
        targets: Targets,
    },
}

/// The thread, as the keeper's loop sees it. It is readable when something is done.
pub(crate) struct Clerk {
    jobs: mpsc::Sender<Job>,
    done: mpsc::Receiver<(ClientId, Answer)>,
    bell: Arc<OwnedFd>,
}

/// The thread's own state.
struct Desk {
    device: Device,
    store: Store,
    record: PathBuf,
    reusable: bool,
    done: mpsc::Sender<(ClientId, Answer)>,
    bell: Arc<OwnedFd>,
}

impl Clerk {
    /// Starts the thread, for a cache that is bound in `dir`; `reusable` is of [`Evicted`]. It ends with the process.
    ///
    /// # Errors
    ///
    /// A descriptor or a thread cannot be had.
    pub(crate) fn start(device: &Device, dir: &Path, reusable: bool) -> anyhow::Result<Self> {
        let device = device.as_fd().try_clone_to_owned().context("device")?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let bell = Arc::new(rustix::event::eventfd(0, flags).context("eventfd")?);
        let (jobs, taken) = mpsc::channel();
        let (tell, done) = mpsc::channel();
        let desk = Desk {
            device: Device::from_owned_fd(device)?,
            store: Store::open(dir).with_context(|| format!("cannot open {}", dir.display()))?,
            record: dir.join(FILE),
            reusable,
            done: tell,
            bell: Arc::clone(&bell),
        };
        let run = move || {
            if let Err(errno) = cull::own_working_directory() {
                error!(%errno, "no working directory of its own: nothing can be evicted");
                return;
            }
            for job in taken {
                desk.work(job);
            }
        };
        thread::Builder::new()
            .name("ondemandd-evict".into())
            .spawn(run)
            .context("cannot start the thread that evicts")?;
        Ok(Clerk { jobs, done, bell })
    }

    /// Has a file made stale; the worker at the other end of the channel is answered.
    pub(crate) fn make_stale(&self, channel: Channel, number: u8, name: &str) {
        let name = name.to_owned();
        // Without a thread there is no answer, and the worker does not wait for ever.
        let _ = self.jobs.send(Job::MakeStale {
            channel,
            number,
            name,
        });
    }

    /// Has objects evicted; [`Clerk::take_done`] has the answer for the client later.
    ///
    /// # Errors
    ///
    /// The thread has ended.
    pub(crate) fn evict(&self, client: ClientId, targets: Targets) -> anyhow::Result<()> {
        let sent = self.jobs.send(Job::Evict { client, targets });
        sent.ok()
            .context("the thread that evicts has ended; the log says why")
    }

    /// The next answer, if there is one.
    pub(crate) fn take_done(&self) -> Option<(ClientId, Answer)> {
        let done = self.done.try_recv().ok();
        if done.is_none() {
            // After all of them; who rings later is heard again.
            let _ = rustix::io::read(&*self.bell, &mut [0; 8]);
            return self.done.try_recv().ok();
        }
        done
    }
}

impl AsFd for Clerk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Desk {
    fn work(&self, job: Job) {
        match job {
            Job::MakeStale {
                channel,
                number,
                name,
            } => {
                let failed = self.make_stale(&name).err();
                if let Some(error) = &failed {
                    warn!(name, error, "cannot be made stale");
                }
                let done = Done { number, failed };
                if let Err(error) = channel.send_done(&done) {
                    warn!(%error, "the worker does not hear");
                }
            }
            Job::Evict { client, targets } => {
                let answer = match self.evict(&targets) {
                    Ok(evicted) => Answer::Evicted { evicted },
                    Err(error) => Answer::error(format!("{error:#}")),
                };
                // The working directory would hold a directory that may have to go.
                let _ = rustix::process::chdir("/");
                let _ = self.done.send((client, answer));
                let _ = rustix::io::write(&*self.bell, &1_u64.to_ne_bytes());
            }
        }
    }

    fn make_stale(&self, name: &str) -> Result<(), String> {
        // Whoever asks is not trusted.
        let place = Name::parse(name).and_then(|name| name.place());
        let place = place.ok_or("no name of an object")?;
        stale::make_stale(&self.store, &place).map_err(|errno| errno.to_string())
    }

    fn evict(&self, targets: &Targets) -> anyhow::Result<Evicted> {
        let mut evicted = Evicted {
            reusable: self.reusable,
            ..Evicted::default()
        };
        let record = Record::open(&self.record)
            .with_context(|| format!("the record of versions, {}", self.record.display()))?;
        let mut named = Vec::new();
        for key in &targets.keys {
            let name = Name::of(targets.volume.as_bytes(), key.as_bytes());
            let place = name.place();
            let place = place.with_context(|| format!("{key}: no object has such a name"))?;
            self.evict_one(key, &place, targets.forget, &record, &mut evicted)?;
            named.push(place.name);
        }
        if targets.all {
            self.evict_volume(targets, &named, &record, &mut evicted)?;
        }
        let Evicted { objects, bytes, .. } = evicted;
        info!(volume = targets.volume, objects, bytes, "evicted");
        Ok(evicted)
    }

    /// All of a volume that is not among `named`.
    fn evict_volume(
        &self,
        targets: &Targets,
        named: &[std::ffi::OsString],
        record: &Record,
        evicted: &mut Evicted,
    ) -> anyhow::Result<()> {
        let volume = Arc::new(OsStr::new(&format!("I{}", targets.volume)).to_owned());
        let mut places = Vec::new();
        let visit = &mut |found| {
            if let store::Found::Object(candidate) = found {
                places.push(candidate.place);
            }
            ControlFlow::Continue(())
        };
        match self.store.walk_one(&volume, visit) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno).context("cannot read the volume"),
        }
        for place in places.iter().filter(|place| !named.contains(&place.name)) {
            let key = place.name.to_string_lossy();
            self.evict_one(&key, place, targets.forget, record, evicted)?;
        }
        Ok(())
    }

    fn evict_one(
        &self,
        key: &str,
        place: &Place,
        forget: bool,
        record: &Record,
        evicted: &mut Evicted,
    ) -> anyhow::Result<()> {
        let dir = self.store.directory_of(place);
        let file = dir.and_then(|dir| {
            let stat = store::object(&dir, &place.name)?;
            Ok((dir, stat.ok_or(Errno::NOENT)?))
        });
        let gone = match file {
            Ok((dir, stat)) => match cull::remove(&self.device, dir.as_fd(), &place.name)? {
                Verdict::Culled => {
                    evicted.objects += 1;
                    evicted.bytes += store::bytes_of(&stat);
                    true
                }
                Verdict::InUse => {
                    evicted.in_use.push(key.to_owned());
                    false
                }
                Verdict::Gone => {
                    evicted.missing.push(key.to_owned());
                    true
                }
                Verdict::Failed(errno) => {
                    let why = errno.map_or("see the log".to_owned(), |errno| errno.to_string());
                    evicted.failed.push(format!("{key}: {why}"));
                    false
                }
            },
            Err(Errno::NOENT | Errno::NOTDIR) => {
                evicted.missing.push(key.to_owned());
                true
            }
            Err(errno) => {
                evicted.failed.push(format!("{key}: {errno}"));
                false
            }
        };
        if gone && forget {
            let cannot = "the record of versions cannot be used";
            let name = Name::at(place);
            let (entry, _) = record.get(&name).context(cannot)?;
            if entry.is_some_and(|entry| entry.manifest) {
                record.forget(&name).context(cannot)?;
                evicted.forgotten += 1;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
