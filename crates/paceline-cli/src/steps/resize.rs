//! `resize`: makes a photo fit inside a size.
//!
//! The photo is scaled before it is turned upright, so that turning costs
//! little, and the colour profile goes along, since without it wide colours
//! would look pale. Everything else that the file says about itself is left
//! out: a thumbnail should not publish where it was taken.
//!
//! Not here: animation (the first picture is taken) and lossy WebP (what is
//! written is lossless).

use std::io::{BufWriter, Cursor, Read, Write};
use std::num::NonZeroU32;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use fast_image_resize::Resizer;
use image::codecs::jpeg::JpegEncoder;
use image::codecs::png::PngEncoder;
use image::codecs::webp::WebPEncoder;
use image::metadata::Orientation;
use image::{
    DynamicImage, ImageDecoder, ImageEncoder, ImageError, ImageFormat, ImageReader, Limits,
    RgbImage,
};

use super::{Shown, StepError, fetch};
use crate::output_file::OutputFile;

/// The quality at which thumbnails of photos cannot be told from better ones.
const JPEG_QUALITY: u8 = 88;

/// The most memory that a decoded photo may take: some 170 megapixels of
/// 8-bit colour. A small file that claims more is a decompression bomb.
const LARGEST_DECODED: u64 = 512 << 20;

/// The most pixels on one side, the limit of JPEG itself.
const LONGEST_SIDE: u32 = 65_535;

/// The largest file that is read, which is held in memory beside the picture.
const LARGEST_FILE: u64 = 256 << 20;

/// The box that a photo is to fit inside. A side that is not given does not limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) width: Option<NonZeroU32>,
    pub(crate) height: Option<NonZeroU32>,
}

impl Size {
    /// Gives the size that a photo of `width` by `height` gets: in the box,
    /// in the same proportion to the nearest pixel, never larger, at least 1.
    pub(crate) fn fit(self, width: u32, height: u32) -> (u32, u32) {
        let (w, h) = (u64::from(width.max(1)), u64::from(height.max(1)));
        let box_w = self.width.map_or(w, |side| u64::from(side.get())).min(w);
        let box_h = self.height.map_or(h, |side| u64::from(side.get())).min(h);
        // The side that is the tighter fit is taken exactly, the other follows.
        let (new_w, new_h) = if box_w * h <= box_h * w {
            (box_w, (2 * h * box_w + w) / (2 * w))
        } else {
            ((2 * w * box_h + h) / (2 * h), box_h)
        };
        let side = |n: u64| u32::try_from(n.max(1)).unwrap_or(u32::MAX);
        (side(new_w), side(new_h))
    }
}

/// A format that `resize` can write. It reads the same ones, by content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Alpha is laid on white; 16-bit channels become 8-bit ones.
    Jpeg,
    /// All that was in the photo, 16-bit channels and alpha too.
    Png,
    /// Lossless; 16-bit channels become 8-bit ones.
    WebP,
}

impl Format {
    /// Chooses by the ending of a name, in letters of either case. `None` is
    /// an ending that `resize` cannot write.
    pub(crate) fn of(name: &[u8]) -> Option<Self> {
        let dot = name.iter().rposition(|&byte| byte == b'.')?;
        match name[dot + 1..].to_ascii_lowercase().as_slice() {
            b"jpg" | b"jpeg" => Some(Self::Jpeg),
            b"png" => Some(Self::Png),
            b"webp" => Some(Self::WebP),
            _ => None,
        }
    }
}

/// Makes the photo `from` fit inside `size`, writes it to `output` in the
/// format that the name ends in, and gives the file its name.
///
/// It computes, and reads and writes files: for a thread, not for the event loop.
///
/// # Errors
///
/// Fails for good if `from` is not a whole JPEG, PNG or WebP, or too large to
/// decode; failures to write may pass.
pub(crate) fn resize(from: &Path, output: OutputFile, size: Size) -> Result<(), StepError> {
    let Some(format) = Format::of(output.spelled()) else {
        return Err(StepError::permanent(format!(
            "could not write `{}`: a photo ends in `.jpg`, `.jpeg`, `.png` or `.webp`",
            Shown(output.spelled())
        )));
    };
    let Photo { mut image, orientation, profile } = decode(from)?;

    let (width, height) = match swaps_sides(orientation) {
        false => size.fit(image.width(), image.height()),
        true => {
            let (height, width) = size.fit(image.height(), image.width());
            (width, height)
        }
    };
    if (width, height) != (image.width(), image.height()) {
        let mut smaller = DynamicImage::new(width, height, image.color());
        Resizer::new()
            .resize(&image, &mut smaller, None)
            .map_err(|error| unreadable(from, "could not be scaled").caused_by(error))?;
        image = smaller;
    }
    image.apply_orientation(orientation);
    encode(image, format, profile, &output)?;
    output.commit()
}

struct Photo {
    image: DynamicImage,
    orientation: Orientation,
    profile: Option<Vec<u8>>,
}

fn unreadable(from: &Path, why: &str) -> StepError {
    StepError::permanent(format!("the photo `{}` {why}", Shown(from.as_os_str().as_bytes())))
}

fn decode(from: &Path) -> Result<Photo, StepError> {
    let read_failed = |error| {
        let from = Shown(from.as_os_str().as_bytes()).to_string();
        StepError::from_io(format!("could not read `{from}`"), error)
    };
    // The decoder reads from memory: what goes wrong there lies in the photo.
    let failed = |error| match error {
        ImageError::Limits(_) => unreadable(from, "is too large to decode"),
        error => unreadable(from, "is damaged or cut short").caused_by(error),
    };

    let file = fetch::open(from)?;
    let length = file.metadata().map_err(read_failed)?.len();
    if length > LARGEST_FILE {
        return Err(unreadable(from, "is too large to decode"));
    }
    let mut data = Vec::new();
    file.take(LARGEST_FILE).read_to_end(&mut data).map_err(read_failed)?;
    let format = match image::guess_format(&data) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP)) => format,
        _ if data.is_empty() => return Err(unreadable(from, "is empty")),
        _ => return Err(unreadable(from, "is no JPEG, PNG or WebP")),
    };
    // The decoder fills what is missing with grey and calls it a success.
    if format == ImageFormat::Jpeg && !has_jpeg_end(&data) {
        return Err(unreadable(from, "is damaged or cut short: its end marker is missing"));
    }

    let mut limits = Limits::default();
    limits.max_image_width = Some(LONGEST_SIDE);
    limits.max_image_height = Some(LONGEST_SIDE);
    limits.max_alloc = Some(LARGEST_DECODED);
    let mut reader = ImageReader::with_format(Cursor::new(data), format);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(failed)?;
    if decoder.total_bytes() > LARGEST_DECODED {
        return Err(unreadable(from, "is too large to decode"));
    }
    // Damaged metadata is no reason to refuse a photo that can be shown.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let profile = decoder.icc_profile().unwrap_or_default();
    let image = DynamicImage::from_decoder(decoder).map_err(failed)?;
    // A profile for four inks says nothing about the colours they became.
    let space: &[u8] = if image.color().has_color() { b"RGB " } else { b"GRAY" };
    let profile = profile.filter(|profile| profile.get(16..20) == Some(space));
    Ok(Photo { image, orientation, profile })
}

/// Follows the segments of a JPEG up to the end-of-image marker.
///
/// Source: ITU-T T.81, annex B.1.
fn has_jpeg_end(data: &[u8]) -> bool {
    let mut at = 2;
    while let Some(found) = data.get(at..).and_then(|rest| memchr::memchr(0xff, rest)) {
        let Some(&marker) = data.get(at + found + 1) else {
            return false;
        };
        at += found + 2;
        match marker {
            0xd9 => return true,
            // A fill byte: the next one may begin the marker.
            0xff => at -= 1,
            // An escaped byte of the picture, a restart, or a marker without a length.
            0x00 | 0x01 | 0xd0..=0xd8 => {}
            // A preview in a segment has end markers of its own, so segments are skipped whole.
            _ => match data.get(at..at + 2) {
                Some(&[high, low]) => at += usize::from(u16::from_be_bytes([high, low])),
                _ => return false,
            },
        }
    }
    false
}

fn swaps_sides(orientation: Orientation) -> bool {
    match orientation {
        Orientation::Rotate90
        | Orientation::Rotate270
        | Orientation::Rotate90FlipH
        | Orientation::Rotate270FlipH => true,
        Orientation::NoTransforms
        | Orientation::Rotate180
        | Orientation::FlipHorizontal
        | Orientation::FlipVertical => false,
    }
}

fn encode(
    image: DynamicImage,
    format: Format,
    profile: Option<Vec<u8>>,
    output: &OutputFile,
) -> Result<(), StepError> {
    let mut writer = BufWriter::with_capacity(1 << 16, output.file());
    match format {
        Format::Jpeg => {
            let encoder = JpegEncoder::new_with_quality(&mut writer, JPEG_QUALITY);
            write(encoder, &for_jpeg(image), profile)
        }
        Format::Png => write(PngEncoder::new(&mut writer), &image, profile),
        Format::WebP => write(WebPEncoder::new_lossless(&mut writer), &eight_bit(image), profile),
    }
    .and_then(|()| writer.flush().map_err(ImageError::IoError))
    .map_err(|error| match error {
        ImageError::IoError(error) => output.write_failed(error),
        error => StepError::permanent(format!("could not write `{}`", Shown(output.spelled())))
            .caused_by(error),
    })
}

fn write(
    mut encoder: impl ImageEncoder,
    image: &DynamicImage,
    profile: Option<Vec<u8>>,
) -> Result<(), ImageError> {
    if let Some(profile) = profile {
        // The picture without its profile is still the picture.
        _ = encoder.set_icc_profile(profile);
    }
    image.write_with_encoder(encoder)
}

fn eight_bit(image: DynamicImage) -> DynamicImage {
    use DynamicImage as I;
    match image {
        I::ImageLuma16(_) => I::ImageLuma8(image.into_luma8()),
        I::ImageLumaA16(_) => I::ImageLumaA8(image.into_luma_alpha8()),
        I::ImageRgb16(_) | I::ImageRgb32F(_) => I::ImageRgb8(image.into_rgb8()),
        I::ImageRgba16(_) | I::ImageRgba32F(_) => I::ImageRgba8(image.into_rgba8()),
        image => image,
    }
}

/// Makes of any photo one that a JPEG can hold, with white where it was transparent.
fn for_jpeg(image: DynamicImage) -> DynamicImage {
    if !image.color().has_alpha() {
        return eight_bit(image);
    }
    let has_color = image.color().has_color();
    let image = image.into_rgba8();
    let on_white = |value: u8, alpha: u8| {
        let (value, alpha) = (u32::from(value), u32::from(alpha));
        // At most 255 * 255 / 255.
        ((value * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    let mut flat = RgbImage::new(image.width(), image.height());
    for (to, from) in flat.pixels_mut().zip(image.pixels()) {
        let [r, g, b, a] = from.0;
        to.0 = [on_white(r, a), on_white(g, a), on_white(b, a)];
    }
    let flat = DynamicImage::ImageRgb8(flat);
    if has_color { flat } else { DynamicImage::ImageLuma8(flat.into_luma8()) }
}

#[cfg(test)]
mod tests;
