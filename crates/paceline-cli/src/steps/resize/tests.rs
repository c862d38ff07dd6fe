use std::io::Cursor;

use image::{GenericImageView, ImageBuffer, Luma, LumaA, Rgb, RgbaImage};
use tempfile::TempDir;

use super::*;
use crate::steps::testing::{bounded, files_below, output};

fn size(width: u32, height: u32) -> Size {
    Size { width: NonZeroU32::new(width), height: NonZeroU32::new(height) }
}

/// Red, green on top; blue, white below: each turn and flip gives another picture.
fn quarters(width: u32, height: u32) -> DynamicImage {
    let image = RgbImage::from_fn(width, height, |x, y| match (2 * x < width, 2 * y < height) {
        (true, true) => Rgb([255, 0, 0]),
        (false, true) => Rgb([0, 255, 0]),
        (true, false) => Rgb([0, 0, 255]),
        (false, false) => Rgb([255, 255, 255]),
    });
    DynamicImage::ImageRgb8(image)
}

/// Names the quarters of an image, from the top left, by their nearest colours.
fn colours(image: &DynamicImage) -> String {
    let (width, height) = image.dimensions();
    [(1, 1), (3, 1), (1, 3), (3, 3)]
        .map(|(x, y)| {
            let [r, g, b, _] = image.get_pixel(width * x / 4, height * y / 4).0;
            match (r > 127, g > 127, b > 127) {
                (true, false, false) => 'r',
                (false, true, false) => 'g',
                (false, false, true) => 'b',
                (true, true, true) => 'w',
                _ => '?',
            }
        })
        .iter()
        .collect()
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Puts an EXIF segment with this orientation after the start of a JPEG.
///
/// Source: CIPA DC-008 (Exif 2.3), 4.5 and 4.6; TIFF 6.0.
fn with_exif(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08".to_vec();
    exif.extend([0, 1]);
    exif.extend([0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0]);
    exif.extend([0, 0, 0, 0]);
    let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
    [&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]].concat()
}

fn resized(photo: &[u8], to: &str, size: Size) -> Result<DynamicImage, StepError> {
    let base = TempDir::new().unwrap();
    let from = base.path().join("photo");
    std::fs::write(&from, photo).unwrap();
    let result = resize(&from, output(base.path(), to), size);
    // The photo, and the result if there is one, but no temporary.
    assert_eq!(files_below(base.path()).len(), 1 + usize::from(result.is_ok()));
    result?;
    let written = std::fs::read(base.path().join(to)).unwrap();
    let format = image::guess_format(&written).unwrap();
    assert_eq!(format, ImageFormat::from_path(to).unwrap());
    Ok(image::load_from_memory(&written).unwrap())
}

#[test]
fn a_photo_fits_inside_and_is_never_enlarged() {
    bounded(|| {
        for (limit, from, expected) in [
            (size(320, 320), (640, 480), (320, 240)),
            (size(320, 320), (480, 640), (240, 320)),
            (size(320, 100), (640, 480), (133, 100)),
            (size(320, 0), (640, 480), (320, 240)),
            (size(0, 240), (640, 480), (320, 240)),
            (size(0, 0), (640, 480), (640, 480)),
            (size(640, 480), (640, 480), (640, 480)),
            (size(1000, 1000), (640, 480), (640, 480)),
            (size(1000, 240), (640, 480), (320, 240)),
            (size(100, 100), (10_000, 3), (100, 1)),
            (size(1, 1), (640, 480), (1, 1)),
            (size(3, 3), (10, 5), (3, 2)),
            (size(u32::MAX, u32::MAX), (65_535, 65_535), (65_535, 65_535)),
        ] {
            assert_eq!(limit.fit(from.0, from.1), expected, "{from:?} in {limit:?}");
        }
    });
}

proptest::proptest! {
    #[test]
    fn a_fit_keeps_the_proportion_to_the_nearest_pixel(
        w in 1_u32..70_000, h in 1_u32..70_000, box_w in 0_u32..5_000, box_h in 0_u32..5_000,
    ) {
        let (width, height) = size(box_w, box_h).fit(w, h);
        assert!(width >= 1 && height >= 1 && width <= w && height <= h);
        assert!(box_w == 0 || width <= box_w);
        assert!(box_h == 0 || height <= box_h);
        let (w, h) = (f64::from(w), f64::from(h));
        let off_w = (f64::from(width) - f64::from(height) * w / h).abs();
        let off_h = (f64::from(height) - f64::from(width) * h / w).abs();
        assert!(off_w <= 0.5 || off_h <= 0.5 || width == 1 || height == 1, "{off_w} {off_h}");
    }
}

#[test]
fn every_format_becomes_every_other() {
    bounded(|| {
        let photo = quarters(64, 32);
        for from in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
            for to in ["out/a.jpg", "out/a.JPEG", "out/a.png", "out/a.webp"] {
                let small = resized(&encoded(&photo, from), to, size(16, 16)).unwrap();
                assert_eq!(small.dimensions(), (16, 8), "{from:?} to {to}");
                assert_eq!(colours(&small), "rgbw", "{from:?} to {to}");
            }
        }
    });
}

/// The eight orientations as the standard draws them: which corner of the
/// stored picture is to be shown where.
#[test]
fn a_photo_is_turned_upright() {
    bounded(|| {
        let jpeg = encoded(&quarters(64, 32), ImageFormat::Jpeg);
        for (orientation, expected, dimensions) in [
            (1, "rgbw", (32, 16)),
            (2, "grwb", (32, 16)),
            (3, "wbgr", (32, 16)),
            (4, "bwrg", (32, 16)),
            (5, "rbgw", (32, 64)),
            (6, "brwg", (32, 64)),
            (7, "wgbr", (32, 64)),
            (8, "gwrb", (32, 64)),
            (0, "rgbw", (32, 16)),
            (99, "rgbw", (32, 16)),
        ] {
            // The width limits the photo as it is shown, not as it is stored.
            let shown = resized(&with_exif(&jpeg, orientation), "a.jpg", size(32, 0)).unwrap();
            assert_eq!(colours(&shown), expected, "orientation {orientation}");
            assert_eq!(shown.dimensions(), dimensions, "orientation {orientation}");
        }
        // Turned even where nothing is to be made smaller, and marked as upright.
        let shown = resized(&with_exif(&jpeg, 6), "a.png", size(999, 999)).unwrap();
        assert_eq!((shown.dimensions(), colours(&shown).as_str()), ((32, 64), "brwg"));
    });
}

#[test]
fn depth_and_alpha_are_kept_where_the_format_has_them() {
    bounded(|| {
        let deep = DynamicImage::ImageRgb16(ImageBuffer::from_fn(64, 64, |_, _| {
            Rgb([60_000_u16, 1_000, 30_000])
        }));
        let png = encoded(&deep, ImageFormat::Png);
        let small = resized(&png, "a.png", size(8, 8)).unwrap();
        assert!(
            matches!(&small, DynamicImage::ImageRgb16(image) if image[(4, 4)].0 == [60_000, 1_000, 30_000])
        );
        for to in ["a.jpg", "a.webp"] {
            let [r, g, b, _] = resized(&png, to, size(8, 8)).unwrap().get_pixel(4, 4).0;
            assert!(
                r.abs_diff(234) < 4 && g.abs_diff(4) < 4 && b.abs_diff(117) < 4,
                "{to}: {r} {g} {b}"
            );
        }

        let grey =
            DynamicImage::ImageLuma16(ImageBuffer::from_fn(64, 64, |_, _| Luma([30_000_u16])));
        for to in ["a.jpg", "a.png", "a.webp"] {
            let small = resized(&encoded(&grey, ImageFormat::Png), to, size(8, 8)).unwrap();
            assert!(small.get_pixel(4, 4).0[0].abs_diff(117) < 3, "{to}");
        }
        let veil = ImageBuffer::from_fn(64, 64, |_, _| LumaA([0_u16, 32_768]));
        let small = resized(
            &encoded(&DynamicImage::ImageLumaA16(veil), ImageFormat::Png),
            "a.jpg",
            size(8, 8),
        );
        let small = small.unwrap();
        assert!(!small.color().has_color(), "grey stays grey");
        assert!(small.get_pixel(4, 4).0[0].abs_diff(127) < 4);
    });
}

#[test]
fn what_is_transparent_becomes_white_in_a_jpeg_and_bleeds_nowhere() {
    bounded(|| {
        // Fully transparent red beside opaque blue: no red may show in between.
        let image = RgbaImage::from_fn(64, 64, |x, _| {
            if x < 32 { image::Rgba([255, 0, 0, 0]) } else { image::Rgba([0, 0, 255, 255]) }
        });
        let png = encoded(&DynamicImage::ImageRgba8(image), ImageFormat::Png);
        let flat = resized(&png, "a.jpg", size(16, 16)).unwrap();
        let [r, g, b, _] = flat.get_pixel(2, 8).0;
        assert!(r > 245 && g > 245 && b > 245, "{r} {g} {b}");
        let kept = resized(&png, "a.png", size(15, 15)).unwrap();
        for x in 0..15 {
            let [r, _, _, a] = kept.get_pixel(x, 7).0;
            assert!(a < 8 || r < 8, "red shows at {x}: {r} of {a}");
        }
        let webp = resized(&png, "a.webp", size(16, 16)).unwrap();
        assert_eq!(webp.get_pixel(2, 8).0[3], 0);
    });
}

#[test]
fn a_photo_cut_short_anywhere_is_a_failure_that_names_it() {
    bounded(|| {
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
            let mut noise = 1_u32;
            let image = RgbImage::from_fn(64, 64, |_, _| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let [a, b, c, _] = noise.to_be_bytes();
                Rgb([a, b, c])
            });
            let whole = encoded(&DynamicImage::ImageRgb8(image), format);
            for percent in [0, 1, 5, 20, 50, 90, 99] {
                let cut = &whole[..whole.len() * percent / 100];
                let error = resized(cut, "a.jpg", size(8, 8)).unwrap_err();
                assert!(error.is_permanent(), "{format:?} {percent}: {}", error.line());
                assert!(error.line().contains("photo`"), "{}", error.line());
            }
        }
        for other in
            [&b"GIF89a"[..], b"<svg/>", b"\xff\xd8", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"]
        {
            assert!(resized(other, "a.jpg", size(8, 8)).unwrap_err().is_permanent());
        }
    });
}

#[test]
fn a_damaged_photo_is_resized_or_fails_for_good() {
    bounded(|| {
        let mut noise = 1_u32;
        let mut random = move |below: usize| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 8) as usize % below
        };
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
            let whole = encoded(&quarters(24, 40), format);
            let whole = if format == ImageFormat::Jpeg { with_exif(&whole, 6) } else { whole };
            for _ in 0..200 {
                let mut damaged = whole.clone();
                for _ in 0..=random(3) {
                    let at = random(damaged.len());
                    damaged[at] = random(256) as u8;
                }
                if let Err(error) = resized(&damaged, "a.jpg", size(8, 8)) {
                    assert!(error.is_permanent(), "{}", error.line());
                }
            }
        }
    });
}

#[test]
fn a_preview_in_the_exif_does_not_stand_for_the_end_of_the_photo() {
    bounded(|| {
        let jpeg = encoded(&quarters(64, 32), ImageFormat::Jpeg);
        let preview = [0xff, 0xd8, 0xff, 0xd9];
        let segment = [&[0xff, 0xe2, 0, 6][..], &preview].concat();
        let whole = [&jpeg[..2], &segment, &jpeg[2..]].concat();
        resized(&whole, "a.jpg", size(8, 8)).unwrap();
        assert!(resized(&whole[..whole.len() - 2], "a.jpg", size(8, 8)).is_err());
        // Some cameras append a film or padding.
        resized(&[&whole[..], b"appended"].concat(), "a.jpg", size(8, 8)).unwrap();
    });
}

#[test]
fn a_decompression_bomb_fails_before_it_takes_memory() {
    bounded(|| {
        // A PNG header that claims 60,000 by 60,000 pixels.
        let mut bomb = encoded(&quarters(8, 8), ImageFormat::Png);
        bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
        let crc = png_crc(&bomb[12..29]);
        bomb[29..33].copy_from_slice(&crc.to_be_bytes());
        let error = resized(&bomb, "a.jpg", size(8, 8)).unwrap_err();
        assert!(error.line().contains("too large"), "{}", error.line());
        assert!(error.is_permanent());
    });
}

/// Source: PNG specification, annex D.
fn png_crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(
            crc ^ u32::from(byte),
            |c, _| if c & 1 == 1 { 0xedb8_8320 ^ (c >> 1) } else { c >> 1 },
        )
    })
}

#[test]
fn the_colour_profile_goes_along_if_it_is_for_these_colours() {
    bounded(|| {
        let mut profile = vec![0; 128];
        profile[16..20].copy_from_slice(b"RGB ");
        let mut jpeg = Vec::new();
        let mut encoder = JpegEncoder::new(&mut jpeg);
        encoder.set_icc_profile(profile.clone()).unwrap();
        quarters(64, 32).write_with_encoder(encoder).unwrap();

        let base = TempDir::new().unwrap();
        let from = base.path().join("photo");
        std::fs::write(&from, &jpeg).unwrap();
        for to in ["a.jpg", "a.png", "a.webp"] {
            resize(&from, output(base.path(), to), size(8, 8)).unwrap();
            let reader = ImageReader::open(base.path().join(to)).unwrap();
            let kept = reader.into_decoder().unwrap().icc_profile().unwrap();
            assert_eq!(kept.as_deref(), Some(profile.as_slice()), "{to}");
        }
    });
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing() {
    bounded(|| {
        let base = TempDir::new().unwrap();
        let from = base.path().join("photo");
        std::fs::write(&from, encoded(&quarters(64, 32), ImageFormat::Png)).unwrap();
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = output(base.path(), "small.jpg").writing_to(full);
        let error = resize(&from, output, size(8, 8)).unwrap_err();
        assert_eq!(error.line(), "could not write `small.jpg`: no space left on device");
        assert!(!error.is_permanent());
        assert_eq!(files_below(base.path()), [Path::new("photo")]);
    });
}

#[test]
fn an_ending_that_is_no_photo_is_refused() {
    bounded(|| {
        for (name, format) in [
            ("a.jpg", Some(Format::Jpeg)),
            ("a.b.JPEG", Some(Format::Jpeg)),
            ("x/a.png", Some(Format::Png)),
            ("a.webp", Some(Format::WebP)),
            ("a.gif", None),
            ("a", None),
            ("jpg", None),
            ("a.jpg/b", None),
            ("", None),
        ] {
            assert_eq!(Format::of(name.as_bytes()), format, "{name}");
        }
    });
}

#[test]
fn the_photos_of_the_example_become_thumbnails() {
    bounded(|| {
        let photos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/photos/originals");
        let base = TempDir::new().unwrap();
        let names = files_below(&photos);
        assert_eq!(names.len(), 6);
        for name in &names {
            let to = name.with_extension("jpg");
            let output = output(base.path(), to.to_str().unwrap());
            resize(&photos.join(name), output, size(320, 320)).unwrap();
            let thumbnail = image::open(base.path().join(to)).unwrap();
            assert_eq!(thumbnail.width().max(thumbnail.height()), 320);
            let original = image::image_dimensions(photos.join(name)).unwrap();
            assert_eq!(size(320, 320).fit(original.0, original.1), thumbnail.dimensions());
        }
    });
}
