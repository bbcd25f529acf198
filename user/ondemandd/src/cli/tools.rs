// SPDX-License-Identifier: MIT OR Apache-2.0

//! Arguments of the commands beside the daemon.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::Subcommand;

use super::DEFAULT_RUN_DIR;

/// Arguments of `status`.
#[derive(Args, Debug)]
pub struct Status {
    /// Run directory of the keeper.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    pub run_dir: PathBuf,

    /// Print JSON rather than a table.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `top`.
#[derive(Args, Debug)]
pub struct Top {
    /// Run directory of the keeper.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    pub run_dir: PathBuf,

    /// Seconds between two looks, 0.1 to 3600.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = interval)]
    pub interval: Duration,

    /// Print a table at each look rather than fill the terminal; also if standard output is none, or if the program
    /// was built without the feature `screen`.
    #[arg(short, long)]
    pub batch: bool,

    /// End after so many looks.
    #[arg(long, value_name = "N")]
    pub count: Option<NonZeroUsize>,
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok();
    let seconds = seconds.filter(|seconds| (0.1..=3600.0).contains(seconds));
    let interval = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    interval.ok_or_else(|| "a number from 0.1 to 3600".to_owned())
}

/// Arguments of `upgrade`.
#[derive(Args, Debug)]
pub struct Upgrade {
    /// Run directory of the keeper.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    pub run_dir: PathBuf,

    /// The program [default: the file that is now where the keeper's own was].
    #[arg(long, value_name = "PATH")]
    pub program: Option<PathBuf>,
}

/// Arguments of `mount`.
#[derive(Args, Debug)]
pub struct Mount {
    /// The image: `NAME/IMAGE` of the source NAME, or `IMAGE` of the default source.
    #[arg(value_name = "[SOURCE/]IMAGE")]
    pub image: String,

    /// Where to.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,

    /// The domain, in which images share blobs and cached data. The kernel takes an image with a slash in
    /// one only; its default is what stands before the first slash, and for others none.
    #[arg(long, value_name = "NAME")]
    pub domain: Option<String>,

    /// A blob of the image, named as the image is; in the order in which the image counts them.
    #[arg(long, value_name = "[SOURCE/]BLOB")]
    pub blob: Vec<String>,
}

/// Arguments of `prefetch`.
#[derive(Args, Debug)]
pub struct Prefetch {
    /// The image, as it was mounted, or the directory where it is.
    #[arg(value_name = "IMAGE")]
    pub image: String,

    /// Only these files and directories: a file with a path below the root of the image in each line.
    #[arg(long, value_name = "FILE")]
    pub list: Option<PathBuf>,

    /// How many files are read at a time.
    #[arg(long, value_name = "N", default_value = "4")]
    pub jobs: NonZeroUsize,

    /// Run directory of the keeper, which says whether others wait for something.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    pub run_dir: PathBuf,

    /// Print JSON rather than a line.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `evict`.
#[derive(Args, Debug)]
pub struct Evict {
    /// The image, as it is mounted: `NAME/IMAGE` of the source NAME, or `IMAGE` of the default source.
    #[arg(value_name = "[SOURCE/]IMAGE")]
    pub image: String,

    /// The domain, as in `mount`.
    #[arg(long, value_name = "NAME")]
    pub domain: Option<String>,

    /// A blob of the image that is to go, too.
    #[arg(long, value_name = "[SOURCE/]BLOB")]
    pub blob: Vec<String>,

    /// Run directory of the keeper.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    pub run_dir: PathBuf,

    /// Print JSON rather than lines.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `scrub`.
#[derive(Args, Debug)]
pub struct Scrub {
    /// The image, as it is mounted: `NAME/IMAGE` of the source NAME, or `IMAGE` of the default source.
    #[arg(value_name = "[SOURCE/]IMAGE")]
    pub image: String,

    /// The domain, as in `mount`.
    #[arg(long, value_name = "NAME")]
    pub domain: Option<String>,

    /// A blob of the image that is scrubbed, too.
    #[arg(long, value_name = "[SOURCE/]BLOB")]
    pub blob: Vec<String>,

    /// The manifest, if it is not to be had from the image's source.
    #[arg(long, value_name = "FILE", conflicts_with = "blob")]
    pub manifest: Option<PathBuf>,

    /// Run directory of the keeper.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    pub run_dir: PathBuf,

    /// Print JSON rather than lines.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `umount`.
#[derive(Args, Debug)]
pub struct Umount {
    /// Where the image is mounted.
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

/// Arguments of `doctor`.
#[derive(Args, Debug)]
pub struct Doctor {
    /// A configuration of `serve` to look at as well; the flags below come before it.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Directory of the cache.
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,

    /// The device [default: /dev/cachefiles].
    #[arg(long, value_name = "PATH")]
    pub device: Option<PathBuf>,

    /// Run directory of the keeper [default: /run/ondemandd].
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,

    /// Print JSON rather than lines.
    #[arg(long)]
    pub json: bool,
}

/// What to generate.
#[derive(Debug, Subcommand)]
pub enum Generate {
    /// Man pages of all commands, into a directory.
    Man {
        /// The directory; made if it is missing.
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
    /// Completions for a shell, to standard output.
    Completions {
        /// The shell.
        #[arg(value_name = "SHELL")]
        shell: clap_complete::Shell,
    },
}

/// Arguments of `manifest`.
#[derive(Args, Debug)]
pub struct Manifest {
    /// The image. It must be complete, and must not change any more.
    #[arg(value_name = "IMAGE")]
    pub image: PathBuf,

    /// Bytes a chunk, a power of two from 4096 to 1048576. A reader of one block waits for a whole chunk.
    #[arg(long, value_name = "BYTES", default_value_t = 65_536, value_parser = chunk)]
    pub chunk: u32,

    /// Where to write it, instead of beside the image.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Print JSON rather than a line.
    #[arg(long)]
    pub json: bool,
}

fn chunk(text: &str) -> Result<u32, String> {
    let bytes = text.parse::<u32>().ok();
    bytes
        .filter(|bytes| crate::manifest::is_chunk(*bytes))
        .ok_or_else(|| "a power of two from 4096 to 1048576".to_owned())
}
