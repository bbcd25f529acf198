// SPDX-License-Identifier: MIT OR Apache-2.0

//! The format: what is written is read again, and nothing else is.

use proptest::prelude::*;

use super::*;

fn of(data: &[u8], chunk: u32) -> Manifest {
    let len = usize::try_from(chunk).unwrap();
    let sums = data.chunks(len).map(sum).collect();
    let size = u64::try_from(data.len()).unwrap();
    Manifest::new(size, chunk, sums).unwrap()
}

#[test]
fn the_text_is_as_documented() {
    let manifest = of(b"abc", 4096);
    let text = manifest.to_text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[..5],
        [
            "ondemandd-manifest 1",
            "size 3",
            "chunk 4096",
            "digest sha256",
            // The example of FIPS 180.
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ]
    );
    assert!(lines[5].starts_with("end ") && lines.len() == 6, "{text}");
    assert_eq!(Manifest::parse(text.as_bytes()).unwrap(), manifest);
}

#[test]
fn an_empty_blob_has_no_chunks() {
    let manifest = of(b"", LARGEST_CHUNK);
    assert_eq!(manifest.chunks(), 0);
    assert_eq!(
        Manifest::parse(manifest.to_text().as_bytes()).unwrap(),
        manifest
    );
    assert!(!manifest.fits(0, b""));
}

#[test]
fn chunks_are_compared_where_they_belong() {
    let data: Vec<u8> = (0..10_000_u32).map(|n| (n % 251) as u8).collect();
    let manifest = of(&data, 4096);
    assert!(manifest.fits(0, &data[..4096]));
    assert!(manifest.fits(8192, &data[8192..]));
    assert!(!manifest.fits(4096, &data[..4096]), "another chunk");
    assert!(!manifest.fits(8192, &data[8192..9999]), "cut");
    assert!(!manifest.fits(1, &data[..4096]), "between");
    assert!(!manifest.fits(u64::MAX - 4095, &data[..4096]), "beyond");
}

#[test]
fn what_is_no_manifest_is_refused() {
    let good = of(&[7; 5000], 4096).to_text();
    let broken = |from: &str, to: &str| {
        let text = good.replacen(from, to, 1);
        assert_ne!(text, good);
        Manifest::parse(text.as_bytes()).unwrap_err()
    };
    assert_eq!(broken("manifest 1", "manifest 2"), ManifestError::Version);
    assert_eq!(broken("size 5000", "size 05000"), ManifestError::Line(2));
    assert_eq!(broken("size 5000", "size +5000"), ManifestError::Line(2));
    assert_eq!(broken("size 5000", "size 5001"), ManifestError::Damaged);
    assert_eq!(broken("chunk 4096", "chunk 4095"), ManifestError::Line(3));
    assert_eq!(broken("chunk 4096", "chunk 0"), ManifestError::Line(3));
    assert_eq!(broken("sha256", "md5"), ManifestError::Line(4));
    assert_eq!(broken("sha256\n", "sha256\r\n"), ManifestError::Line(4));
    assert_eq!(broken("sha256\n", "sha256\n\n"), ManifestError::Line(5));
    assert_eq!(broken("end ", "END "), ManifestError::Line(7));
    let more = format!("{good}\n");
    let error = Manifest::parse(more.as_bytes()).unwrap_err();
    assert_eq!(error, ManifestError::Line(8));
    assert_eq!(Manifest::parse(b"\xff"), Err(ManifestError::Version));
    // Its own digest fits, but a chunk is missing.
    let one = of(&[7; 4096], 4096)
        .to_text()
        .replacen("size 4096", "size 4097", 1);
    let above = &one[..one.rfind("end ").unwrap()];
    let mut text = format!("{above}end ");
    push_hex(&mut text, &sum(above.as_bytes()));
    text.push('\n');
    let error = Manifest::parse(text.as_bytes()).unwrap_err();
    assert_eq!(error, ManifestError::Count { have: 1, want: 2 });
}

proptest! {
    #[test]
    fn what_is_written_is_read(data in prop::collection::vec(any::<u8>(), 0..20_000), shift in 0_u32..9) {
        let manifest = of(&data, SMALLEST_CHUNK << shift);
        let text = manifest.to_text();
        prop_assert!(text.len() as u64 <= longest_of(manifest.size()));
        prop_assert_eq!(Manifest::parse(text.as_bytes()), Ok(manifest));
    }

    #[test]
    fn no_other_byte_is_taken(at in 0_usize..1000, byte in any::<u8>()) {
        let text = of(&[7; 5000], 4096).to_text();
        let mut bytes = text.clone().into_bytes();
        let at = at % bytes.len();
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        prop_assert!(Manifest::parse(&bytes).is_err());
    }

    #[test]
    fn no_cut_is_taken(at in 0_usize..1000) {
        let text = of(&[7; 5000], 4096).to_text();
        prop_assert!(Manifest::parse(&text.as_bytes()[..at % text.len()]).is_err());
    }

    #[test]
    fn anything_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(Manifest::parse(&bytes).is_err());
    }
}
