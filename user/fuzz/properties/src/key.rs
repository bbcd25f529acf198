// SPDX-License-Identifier: MIT OR Apache-2.0

//! Names of the store (`store/key.rs`, `layout.rs`): legal file names, as the protocol writes them, and
//! they tell the key.

use ondemand_core::errno::Errno;
use ondemand_core::key;
use ondemand_core::layout;

const SIX_BITS: &[u8; 64] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-";

/// The key that a name tells; zeros at the end of an `S` or `T` key may be too many.
fn key_of(name: &[u8]) -> Option<Vec<u8>> {
    let (letter, rest) = name.split_first()?;
    let word = |text: &[u8]| match text {
        [] => Some(0),
        _ => u32::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok(),
    };
    let words = || rest.split(|byte| *byte == b',').map(word);
    match letter {
        b'D' => Some(rest.to_vec()),
        b'S' => words()
            .map(|w| Some(w?.to_be_bytes()))
            .collect::<Option<Vec<_>>>()
            .map(|w| w.concat()),
        b'T' => words()
            .map(|w| Some(w?.to_le_bytes()))
            .collect::<Option<Vec<_>>>()
            .map(|w| w.concat()),
        b'E' => {
            let (missing, digits) = rest.split_first()?;
            let mut key = Vec::new();
            for group in digits.chunks(4) {
                let mut bits = 0;
                for digit in group.iter().rev() {
                    let value = SIX_BITS.iter().position(|known| known == digit)?;
                    bits = bits << 6 | u32::try_from(value).ok()?;
                }
                key.extend_from_slice(&bits.to_le_bytes()[..3]);
            }
            for _ in b'0'..*missing {
                ensure_zero(key.pop()?)?;
            }
            Some(key)
        }
        _ => None,
    }
}

/// What pads a group is zero.
fn ensure_zero(byte: u8) -> Option<()> {
    (byte == 0).then_some(())
}

/// The name that the protocol gives a key: the shortest, and of equal ones `E` before `S` before `T`.
fn name_of(key: &[u8]) -> Result<Vec<u8>, Errno> {
    if key.is_empty() {
        return Err(Errno::EINVAL);
    }
    if key.len() > 252 {
        return Err(Errno::ENAMETOOLONG);
    }
    if key
        .iter()
        .all(|byte| byte.is_ascii() && *byte > b' ' && *byte != b'/')
    {
        return Ok([b"D", key].concat());
    }
    let mut padded = key.to_vec();
    padded.resize(key.len().next_multiple_of(4), 0);
    let hexadecimal = |swap: bool| {
        let mut words = Vec::new();
        for word in padded.chunks(4) {
            let mut word = word.to_vec();
            if swap {
                word.reverse();
            }
            let digits: String = word.iter().map(|byte| format!("{byte:02x}")).collect();
            words.push(digits.trim_start_matches('0').to_owned());
        }
        words.join(",")
    };
    let missing = key.len().next_multiple_of(3) - key.len();
    let mut e = format!("E{missing}").into_bytes();
    for group in key.chunks(3) {
        let value: usize = group
            .iter()
            .rev()
            .fold(0, |value, byte| value * 256 + usize::from(*byte));
        e.extend([1, 64, 4096, 262_144].map(|place| SIX_BITS[value / place % 64]));
    }
    let s = format!("S{}", hexadecimal(false)).into_bytes();
    let t = format!("T{}", hexadecimal(true)).into_bytes();
    let mut names = [e, s, t];
    // The sort is stable.
    names.sort_by_key(Vec::len);
    let [name, ..] = names;
    if name.len() > 255 {
        Err(Errno::ENAMETOOLONG)
    } else {
        Ok(name)
    }
}

fn is_file_name(name: &[u8]) -> bool {
    (1..=255).contains(&name.len())
        && !name.iter().any(|byte| matches!(byte, 0 | b'/'))
        && name != b"."
        && name != b".."
}

fn volume_name_of(key: &[u8]) -> Result<Vec<u8>, Errno> {
    let name = [b"I", key].concat();
    match () {
        () if key.is_empty() || key.contains(&0) || key.contains(&b'/') => Err(Errno::EINVAL),
        () if name.len() > 255 => Err(Errno::ENAMETOOLONG),
        () => Ok(name),
    }
}

/// One byte says how many of those that follow are a volume's key; the rest is a cookie's.
///
/// # Errors
///
/// Says what does not hold.
pub fn holds(data: &[u8]) -> Result<(), String> {
    let Some((count, data)) = data.split_first() else {
        return Ok(());
    };
    let (volume, key) = data.split_at(data.len().min(usize::from(*count)));

    let cooked = key::cook(key).map(|name| name.as_bytes().to_vec());
    let expected = name_of(key);
    let shown = |name: &Result<Vec<u8>, Errno>| match name {
        Ok(name) => name.escape_ascii().to_string(),
        Err(error) => format!("{error:?}"),
    };
    ensure!(
        cooked == expected,
        "{key:02x?} is called {}, not {}",
        shown(&cooked),
        shown(&expected)
    );
    if let Ok(name) = &cooked {
        ensure!(is_file_name(name), "{key:02x?} is called {name:02x?}");
        let mut told = key_of(name).ok_or_else(|| format!("{} tells no key", shown(&cooked)))?;
        if matches!(name[0], b'S' | b'T') {
            let padding = told.len().saturating_sub(key.len());
            ensure!(
                padding < 4 && told.ends_with(&[0; 3][..padding]),
                "{key:02x?} comes back as {told:02x?}"
            );
            told.truncate(key.len());
        }
        ensure!(told == key, "{key:02x?} comes back as {told:02x?}");
    }

    let named = key::volume_name(volume).map(|name| name.as_bytes().to_vec());
    ensure!(
        named == volume_name_of(volume),
        "volume {volume:02x?} is called {}",
        shown(&named)
    );
    if let Ok(name) = &named {
        ensure!(
            is_file_name(name),
            "volume {volume:02x?} is called {name:02x?}"
        );
    }
    match layout::object_path(volume, key) {
        Ok(path) => {
            let hash =
                layout::volume_hash(volume).map_err(|error| format!("no hash: {error:?}"))?;
            let low = key::fscache_hash(hash, key) % 256;
            ensure!(
                Ok(path.volume.as_bytes()) == named.as_deref()
                    && Ok(path.file.as_bytes()) == cooked.as_deref()
                    && path.fanout == *format!("@{low:02x}").as_bytes(),
                "{volume:02x?}, {key:02x?} lies at {path:?}"
            );
        }
        Err(error) => ensure!(
            named.as_ref().err().or(cooked.as_ref().err()) == Some(&error),
            "{volume:02x?}, {key:02x?} lies nowhere: {error:?}"
        ),
    }
    Ok(())
}
