//! `render FILE.svg ...` writes FILE.png beside each picture, with a font that comes along, so that
//! a picture looks the same on every machine. `cargo xtask` runs it for the commands that draw.

#![forbid(unsafe_code)]

use std::env;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::fontdb::Database;
use resvg::usvg::{Options, Tree};

/// Pixels of the PNG for each of the SVG, for sharp text on dense screens.
const SCALE: f32 = 1.5;

const FONTS: [&[u8]; 2] =
    [include_bytes!("../assets/inter/Inter-Regular.otf"), include_bytes!("../assets/inter/Inter-Bold.otf")];

fn main() -> Result<()> {
    let options = options();
    for path in env::args_os().skip(1) {
        let svg = Path::new(&path);
        let text = fs::read_to_string(svg).with_context(|| format!("cannot read {}", svg.display()))?;
        let png = svg.with_extension("png");
        fs::write(&png, render(&text, &options)?)
            .with_context(|| format!("cannot write {}", png.display()))?;
    }
    Ok(())
}

/// Text in the font that comes along, never in one of the machine.
fn options() -> Options<'static> {
    let mut options = Options::default();
    let database: &mut Database = options.fontdb_mut();
    FONTS.iter().for_each(|font| database.load_font_data(font.to_vec()));
    database.set_sans_serif_family("Inter");
    options
}

fn render(svg: &str, options: &Options<'_>) -> Result<Vec<u8>> {
    let tree = Tree::from_str(svg, options).context("cannot render the picture")?;
    let size = tree.size();
    let (width, height) = ((size.width() * SCALE).ceil() as u32, (size.height() * SCALE).ceil() as u32);
    let mut pixels = Pixmap::new(width, height).context("cannot render a picture without pixels")?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().context("cannot encode the picture")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_becomes_pixels_with_its_letters() {
        let picture = |text: &str| {
            let svg = format!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"40\" height=\"20\">\
                 <text x=\"10\" y=\"15\" font-family=\"sans-serif\" font-size=\"12\">{text}</text></svg>"
            );
            render(&svg, &options()).unwrap()
        };
        assert_eq!(&picture("m")[..8], b"\x89PNG\r\n\x1a\n");
        // The letter is there: in the font that came with it, not in one of the machine.
        assert_ne!(picture("m"), picture(""));
    }
}
