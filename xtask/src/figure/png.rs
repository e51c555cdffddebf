//! SVG to PNG.

use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg::fontdb::Database;
use resvg::usvg::{Options, Tree};

/// Pixels of the PNG for each of the SVG, for sharp text on dense screens.
const SCALE: f32 = 1.5;

const FONTS: [&[u8]; 2] = [
    include_bytes!("../../assets/inter/Inter-Regular.otf"),
    include_bytes!("../../assets/inter/Inter-Bold.otf"),
];

pub(crate) fn render(svg: &str) -> Result<Vec<u8>> {
    static DATABASE: OnceLock<Arc<Database>> = OnceLock::new();
    let fonts = DATABASE.get_or_init(|| {
        let mut database = Database::new();
        FONTS.iter().for_each(|font| database.load_font_data(font.to_vec()));
        database.set_sans_serif_family("Inter");
        Arc::new(database)
    });
    let options = Options { fontdb: Arc::clone(fonts), ..Options::default() };
    let tree = Tree::from_str(svg, &options).context("cannot render the picture")?;
    let size = tree.size();
    let (width, height) = ((size.width() * SCALE).ceil() as u32, (size.height() * SCALE).ceil() as u32);
    let mut pixels = Pixmap::new(width, height).context("cannot render a picture without pixels")?;
    resvg::render(&tree, Transform::from_scale(SCALE, SCALE), &mut pixels.as_mut());
    pixels.encode_png().context("cannot encode the picture")
}
